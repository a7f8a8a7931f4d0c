/** `isthmus ss`: the connections of all programs of this user that have Isthmus loaded, in the manner of smcss. */
import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type ConnectionInfo, formatEndpoint } from '../net/info.ts';
import { type Command, EXIT_FAILED, EXIT_OK, formatTable, UsageError } from './command.ts';
import { allProcesses, silentPrograms } from './processes.ts';
import { readTables } from './rows.ts';
import { printable, printableJson } from './text.ts';

const HELP = `Usage: isthmus ss [options]

Lists the connections of running programs that have Isthmus loaded, as far as they may be on this host: yours, or
everybody's if you are root. One line an end. Works while a program is busy, and without a fabric. Not listed are
connections that Isthmus has not looked at: too young for the policy lazy, to other hosts, or under the policy off (but
in-band). When there is nothing to list, stderr says why. Exit code 1 when there is no process PID.

      --json     an array of objects, as info() gives them
  -D, --smcd     only connections that are in shared memory
  -d, --details  more columns: bytes, GIDs, link group; and the reason in words
  -p, --pid PID  only those of one process
  -h, --help     this text

  State    as smcss names it, for a connection with an SMC-D connection; else as Node.js does
  Mode     SMC-D: bytes go through shared memory in at least one direction; TCP with the reason's code and name
  Device   host: between processes; loopback: inside one. Access: mapped or store

Rows are what the programs say of themselves. Control characters in them are shown as escapes, rows that no program
of Isthmus would write are left out.

Bytes of a connection that Isthmus does not watch are those at its last change of state.
`;

export const ss: Command = {
  summary: 'list connections with mode and reason',
  help: HELP,
  async main(args) {
    const { values } = parseArgs({
      args: [...args],
      options: {
        json: { type: 'boolean' },
        smcd: { type: 'boolean', short: 'D' },
        details: { type: 'boolean', short: 'd' },
        pid: { type: 'string', short: 'p' },
      },
    });
    const { json, smcd, details, pid } = values;
    if (pid !== undefined && !/^\d+$/.test(pid)) throw new UsageError('--pid takes the number of a process');
    const { rows: all, complete } = readTables(pid);
    if (!complete)
      process.stderr.write(`isthmus: only the first ${all.length} connections are shown; --pid shows others\n`);
    const rows = all.filter((row) => !smcd || row.mode === 'SMC-D');
    if (rows.length === 0) process.stderr.write(`isthmus: ${whyNone(pid, all.length)}\n`);
    process.stdout.write(json ? `${printableJson(rows)}\n` : formatConnections(rows, details ?? false));
    return pid !== undefined && !existsSync(`/proc/${pid}`) ? EXIT_FAILED : EXIT_OK;
  },
};

/** Why there is no row to show. */
function whyNone(pid: string | undefined, all: number): string {
  if (all > 0) return `none of ${all} connections is in shared memory; isthmus ss without -D says why`;
  if (pid !== undefined && !existsSync(`/proc/${pid}`)) return `there is no process ${pid}`;
  const silent = silentPrograms(pid === undefined ? allProcesses() : [Number(pid)]);
  if (silent.length > 0) {
    const [first, ...more] = silent.map(({ process, why }) => `process ${process.pid} (${process.command}): ${why}`);
    return [`no connection to show of programs with Isthmus: ${first}`, ...more].join('\n         ');
  }
  const ways = 'isthmus run COMMAND starts a program with Isthmus, NODE_DEBUG=isthmus has one say why nothing moves';
  const whose = pid === undefined ? 'no program of yours has a connection' : `process ${pid} has no connection`;
  return `${whose} that Isthmus has looked at (without it, with the policy off, or where it cannot work none is): ${ways}`;
}

export function formatConnections(rows: readonly ConnectionInfo[], details = false): string {
  const head = ['State', 'PID', 'Role', 'Local Address', 'Peer Address', 'Device', 'Mode'];
  const more = details ? ['In TCP', 'In Shm', 'Out TCP', 'Out Shm', 'GID', 'Peer-GID', 'Linkid', 'Reason'] : [];
  const lines = rows.map((row) => {
    const { bytes, reason } = row;
    const line = [
      row.state,
      String(row.pid),
      row.role ?? '-',
      formatEndpoint(row.local),
      formatEndpoint(row.peer),
      row.device === null ? '-' : row.device === 'host' ? `host ${row.access}` : row.device,
      row.mode === 'SMC-D' ? 'SMC-D' : `TCP 0x${reason.code.toString(16).padStart(8, '0')} ${reason.name}`,
    ];
    if (!details) return line;
    const counters = [bytes.inTcp, bytes.inShm, bytes.outTcp, bytes.outShm].map(String);
    const hint = reason.hint === '' ? '' : ` (${reason.hint})`;
    return [...line, ...counters, row.gid ?? '-', row.peerGid ?? '-', row.linkGroup ?? '-', `${reason.text}${hint}`];
  });
  return formatTable([[...head, ...more], ...lines.map((line) => line.map((cell) => printable(cell)))]);
}
