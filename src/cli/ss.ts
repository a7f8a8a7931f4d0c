/** `isthmus ss`: the connections of all programs of this user that have Isthmus loaded, in the manner of smcss. */

import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type ConnectionInfo, formatEndpoint } from '../net/info.ts';
import { type Command, EXIT_FAILED, EXIT_OK, formatTable, UsageError } from './command.ts';
import { whyNoProgram } from './processes.ts';
import { checkPid, readTables } from './rows.ts';
import { abbreviated } from './stats.ts';
import { printable, printableJson } from './text.ts';
import { repeat } from './watch.ts';

const HELP = `Usage: isthmus ss [options]

Lists the connections of running programs that have Isthmus loaded, as far as they may be on this host: yours, or
everybody's if you are root. One line an end. Works while a program is busy, and without a fabric. Not listed are
connections that Isthmus has not looked at: too young for the policy lazy, to other hosts, denied by a rule, or under the
policy off (but in-band). When there is nothing to list, stderr says why. Exit code 1 when there is no process PID.

      --json     an array of objects, as info() gives them
  -D, --smcd     only connections that are in shared memory
  -d, --details  more columns: bytes, GIDs, link group, the program; and the reason in words
  -p, --pid PID  only those of one process
  -w, --watch [SECONDS]
                 again and again, every two seconds if nothing else is said, with bytes per second by shared memory
                 and by TCP; Ctrl-C ends it
  -h, --help     this text

  State    as smcss names it, for a connection with an SMC-D connection; else as Node.js does
  Mode     SMC-D: bytes go through shared memory in at least one direction; TCP with the reason's code and name
  Device   host: between processes; loopback: inside one. Access: mapped or store

Rows are what the programs say of themselves. Control characters in them are shown as escapes, rows that no program
of Isthmus would write are left out.

Bytes of a connection that Isthmus does not watch are those at its last change of state.
`;

const OPTIONS = {
  json: { type: 'boolean' },
  smcd: { type: 'boolean', short: 'D' },
  details: { type: 'boolean', short: 'd' },
  pid: { type: 'string', short: 'p' },
  watch: { type: 'boolean', short: 'w' },
} as const;

interface Selection {
  readonly pid: string | undefined;
  readonly smcd: boolean;
  readonly details: boolean;
}

export const ss: Command = {
  summary: 'list connections with mode and reason',
  help: HELP,
  options: OPTIONS,
  takes: [],
  async main(args) {
    const { values, positionals } = parseArgs({ args: [...args], allowPositionals: true, options: OPTIONS });
    const { json = false, smcd = false, details = false, watch = false } = values;
    const pid = checkPid(values.pid);
    const [seconds, ...more] = positionals;
    if (more.length > 0 || (seconds !== undefined && !watch))
      throw new UsageError(`'${positionals.join(' ')}' is too much`);
    if (watch) {
      if (json) throw new UsageError('--json shows once, --watch again and again');
      return await watchConnections({ pid, smcd, details }, secondsOf(seconds));
    }
    const { rows: all, complete } = readTables(pid);
    if (!complete)
      process.stderr.write(`isthmus: only the first ${all.length} connections are shown; --pid shows others\n`);
    const rows = all.filter((row) => !smcd || row.mode === 'SMC-D');
    if (rows.length === 0) process.stderr.write(`isthmus: ${whyNone(pid, all.length)}\n`);
    process.stdout.write(json ? `${printableJson(rows)}\n` : formatConnections(rows, details));
    return pid !== undefined && !existsSync(`/proc/${pid}`) ? EXIT_FAILED : EXIT_OK;
  },
};

/** Why there is no row to show. */
function whyNone(pid: string | undefined, all: number): string {
  return all > 0 ? `none of ${all} connections is in shared memory; isthmus ss without -D says why` : whyNoProgram(pid);
}

// --- Watching ---

const DEFAULT_SECONDS = 2;
const MAX_SECONDS = 86_400;

function secondsOf(text: string | undefined): number {
  const seconds = Number(text ?? DEFAULT_SECONDS);
  if (text === '' || !(seconds >= 0.1 && seconds <= MAX_SECONDS))
    throw new UsageError(`--watch takes a number of seconds, 0.1 to ${MAX_SECONDS}`);
  return seconds;
}

/** Resolves at the signal that ends it. */
async function watchConnections({ pid, smcd, details }: Selection, seconds: number): Promise<number> {
  let before = new Map<string | null, ConnectionInfo>();
  let lookedAt = performance.now();
  return await repeat(seconds * 1000, () => {
    const { rows: all } = readTables(pid);
    const elapsed = (performance.now() - lookedAt) / 1000;
    lookedAt += elapsed * 1000;
    const rows = all.filter((row) => !smcd || row.mode === 'SMC-D');
    const rates = rows.map((row) => rateOf(row, before.get(row.id), elapsed));
    before = new Map(all.map((row) => [row.id, row]));
    const time = new Date().toTimeString().slice(0, 8);
    const moved = all.filter(({ mode }) => mode === 'SMC-D').length;
    return `${time}  connections: ${all.length}, in shared memory: ${moved}\n\n${formatConnections(rows, details, rates)}`;
  });
}

/** Bytes per second, both directions together. */
interface Rate {
  readonly shm: number;
  readonly tcp: number;
}

/** @param before null for one that is seen for the first time */
function rateOf({ bytes }: ConnectionInfo, before: ConnectionInfo | undefined, seconds: number): Rate | null {
  if (before === undefined || seconds <= 0) return null;
  const per = (now: number, then: number) => Math.max(0, now - then) / seconds;
  return {
    shm: per(bytes.inShm + bytes.outShm, before.bytes.inShm + before.bytes.outShm),
    tcp: per(bytes.inTcp + bytes.outTcp, before.bytes.inTcp + before.bytes.outTcp),
  };
}

/** @param rates of each row, when they are watched */
export function formatConnections(
  rows: readonly ConnectionInfo[],
  details = false,
  rates?: readonly (Rate | null)[],
): string {
  const head = ['State', 'PID', 'Role', 'Local Address', 'Peer Address', 'Device', 'Mode'];
  const perSecond = rates === undefined ? [] : ['Shm B/s', 'TCP B/s'];
  const more = details
    ? ['In TCP', 'In Shm', 'Out TCP', 'Out Shm', 'GID', 'Peer-GID', 'Linkid', 'Program', 'Reason']
    : [];
  const lines = rows.map((row, i) => {
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
    const rate = rates?.[i] ?? null;
    if (rates !== undefined)
      line.push(...[rate?.shm, rate?.tcp].map((one) => (one === undefined ? '-' : abbreviated(Math.round(one)))));
    if (!details) return line;
    const counters = [bytes.inTcp, bytes.inShm, bytes.outTcp, bytes.outShm].map(String);
    const ids = [row.gid ?? '-', row.peerGid ?? '-', row.linkGroup ?? '-', row.program];
    const hint = reason.hint === '' ? '' : ` (${reason.hint})`;
    return [...line, ...counters, ...ids, `${reason.text}${hint}`];
  });
  return formatTable([[...head, ...perSecond, ...more], ...lines.map((line) => line.map((cell) => printable(cell)))]);
}
