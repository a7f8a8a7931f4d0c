/** `isthmus ss`: the connections of all programs of this user that have Isthmus loaded, in the manner of smcss. */
import { closeSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { ConnectionInfo, Endpoint } from '../net/info.ts';
import { FIRST_ROW, ROW_BYTES, readRow, rowsInUse, TABLE_NAME } from '../net/table.ts';
import { reasonOfCode } from '../smc/reasons.ts';
import { type Command, EXIT_OK, EXIT_USAGE, fail, formatTable } from './command.ts';

const HELP = `Usage: isthmus ss [options]

Lists the connections of running programs that have Isthmus loaded, as far as they may be on this host: yours, or
everybody's if you are root. One line an end. Works while a program is busy, and without a fabric.

      --json     an array of objects, as info() gives them
  -D, --smcd     only connections that are in shared memory
  -d, --details  more columns: bytes, GIDs, link group; and the reason in words
  -p, --pid PID  only those of one process
  -h, --help     this text

  State    as smcss names it, for a connection with an SMC-D connection; else as Node.js does
  Mode     SMC-D: bytes go through shared memory in at least one direction; TCP with the reason's code and name
  Device   host: between processes; loopback: inside one. Access: mapped or store

Bytes of a connection on TCP are those at its last change of state.
`;

export const ss: Command = {
  summary: 'list connections with mode and reason',
  help: HELP,
  async main(args) {
    let values: { json?: boolean; smcd?: boolean; details?: boolean; pid?: string };
    try {
      ({ values } = parseArgs({
        args: [...args],
        options: {
          json: { type: 'boolean' },
          smcd: { type: 'boolean', short: 'D' },
          details: { type: 'boolean', short: 'd' },
          pid: { type: 'string', short: 'p' },
        },
      }));
    } catch (error) {
      return fail(`${(error as Error).message}\n${HELP}`, EXIT_USAGE);
    }
    const { json, smcd, details, pid } = values;
    const rows = readConnections(pid).filter((row) => !smcd || row.mode === 'SMC-D');
    process.stdout.write(json ? `${JSON.stringify(rows, null, 2)}\n` : formatConnections(rows, details ?? false));
    return EXIT_OK;
  },
};

/** All connections in all tables that this user may open. */
export function readConnections(pid?: string): ConnectionInfo[] {
  if (process.platform !== 'linux') return []; // there is no /proc, and nothing moves
  const pids = pid === undefined ? readdirSync('/proc').filter((name) => /^\d+$/.test(name)) : [pid];
  return pids.flatMap((one) => tablesOf(one).flatMap(readTable));
}

function tablesOf(pid: string): string[] {
  const folder = `/proc/${pid}/fd`;
  try {
    return readdirSync(folder)
      .map((fd) => `${folder}/${fd}`)
      .filter((path) => linkOf(path) === `/memfd:${TABLE_NAME} (deleted)`);
  } catch {
    return []; // somebody else's, or gone
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function readTable(path: string): ConnectionInfo[] {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return [];
  }
  try {
    const head = Buffer.alloc(FIRST_ROW);
    readSync(fd, head, 0, head.length, 0);
    return Array.from({ length: rowsInUse(head) }, (_, i) => readConnection(fd, FIRST_ROW + i * ROW_BYTES)).filter(
      (row) => row !== null,
    );
  } finally {
    closeSync(fd);
  }
}

const TRIES = 5;

/** A row that is being written is read again. */
function readConnection(fd: number, offset: number): ConnectionInfo | null {
  const [first, second] = [Buffer.alloc(ROW_BYTES), Buffer.alloc(ROW_BYTES)];
  for (let i = 0; i < TRIES; i++) {
    readSync(fd, first, 0, ROW_BYTES, offset);
    readSync(fd, second, 0, ROW_BYTES, offset);
    if (first.readUInt32LE(0) !== second.readUInt32LE(0)) continue;
    const row = readRow(first);
    if (row === null) continue;
    try {
      const { reason, ...rest } = JSON.parse(row.text) as Omit<ConnectionInfo, 'reason' | 'bytes'> & { reason: number };
      const [inTcp = 0, inShm = 0, outTcp = 0, outShm = 0] = row.counters;
      return { ...rest, reason: reasonOfCode(reason), bytes: { inTcp, inShm, outTcp, outShm } };
    } catch {
      return null;
    }
  }
  return null;
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
      addressOf(row.local),
      addressOf(row.peer),
      row.device === null ? '-' : row.device === 'host' ? `host ${row.access}` : row.device,
      row.mode === 'SMC-D' ? 'SMC-D' : `TCP 0x${reason.code.toString(16).padStart(8, '0')} ${reason.name}`,
    ];
    if (!details) return line;
    const counters = [bytes.inTcp, bytes.inShm, bytes.outTcp, bytes.outShm].map(String);
    const hint = reason.hint === '' ? '' : ` (${reason.hint})`;
    return [...line, ...counters, row.gid ?? '-', row.peerGid ?? '-', row.linkGroup ?? '-', `${reason.text}${hint}`];
  });
  return formatTable([[...head, ...more], ...lines]);
}

function addressOf(end: Endpoint | null): string {
  if (end === null) return '-';
  return end.address.includes(':') && !end.address.includes('.')
    ? `[${end.address}]:${end.port}`
    : `${end.address.replace('::ffff:', '')}:${end.port}`;
}
