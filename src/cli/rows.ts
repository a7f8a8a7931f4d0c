/**
 * Tables of connections as they are found: memory that somebody else fills, at any time, with anything. What is not as our own
 * programs write it is no row; whose row it is says the process that was looked into, never the text.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readlinkSync, readSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import { type ConnectionInfo, type Endpoint, reasonFor } from '../net/info.ts';
import { FIRST_ROW, MAX_PROGRAM_LENGTH, ROW_BYTES, readRow, rowsInUse, TABLE_NAME } from '../net/table.ts';
import { type Reason, reasonOfCode } from '../smc/reasons.ts';
import { STATE_NAMES } from '../smc/states.ts';

/** In one look, of all programs together: what is shown has to fit into memory. */
export const MAX_SHOWN_ROWS = 100_000;

/** All connections in all tables that this user may open. `complete` is false when there were too many. */
export function readTables(pid?: string): { readonly rows: readonly ConnectionInfo[]; readonly complete: boolean } {
  const rows: ConnectionInfo[] = [];
  if (process.platform !== 'linux') return { rows, complete: true }; // there is no /proc, and nothing moves
  const pids = pid === undefined ? readdirSync('/proc').filter((name) => /^\d+$/.test(name)) : [pid];
  for (const one of pids) {
    const seen = new Set<number>();
    for (const path of tablesOf(one)) {
      readTable(path, Number(one), seen, rows);
      if (rows.length >= MAX_SHOWN_ROWS) return { rows, complete: false };
    }
  }
  return { rows, complete: true };
}

/** Whether a process shows its connections, even if it has none. */
export function hasTable(pid: number): boolean {
  return tablesOf(String(pid)).length > 0;
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

/** @param seen inodes of this process: a descriptor may have been duplicated */
function readTable(path: string, pid: number, seen: Set<number>, rows: ConnectionInfo[]): void {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return;
  }
  try {
    const { ino, uid, size } = fstatSync(fd);
    // A table of another user was handed to this process. Root's may be of a program that is root no longer.
    if (seen.has(ino) || (uid !== 0 && uid !== statSync(`/proc/${pid}`).uid)) return;
    seen.add(ino);
    const head = Buffer.alloc(FIRST_ROW);
    readSync(fd, head, 0, head.length, 0);
    const count = Math.min(rowsInUse(head), Math.floor((size - FIRST_ROW) / ROW_BYTES));
    for (let i = 0; i < count && rows.length < MAX_SHOWN_ROWS; i++) {
      const row = readConnection(fd, FIRST_ROW + i * ROW_BYTES, pid);
      if (row !== null) rows.push(row);
    }
  } catch {
    // It is no file, or the process has gone: what was read is good.
  } finally {
    closeSync(fd);
  }
}

const TRIES = 5;
const [first, second] = [Buffer.alloc(ROW_BYTES), Buffer.alloc(ROW_BYTES)];

/** A row that is being written is read again. */
function readConnection(fd: number, offset: number, pid: number): ConnectionInfo | null {
  for (let i = 0; i < TRIES; i++) {
    readSync(fd, first, 0, ROW_BYTES, offset);
    readSync(fd, second, 0, ROW_BYTES, offset);
    const sequence = first.readUInt32LE(0);
    if (sequence % 2 === 1 || sequence !== second.readUInt32LE(0)) continue;
    const row = readRow(first);
    return row === null ? null : parseRow(row.text, row.counters, pid);
  }
  return null;
}

const STATES = new Set([...Object.values(STATE_NAMES), 'opening', 'open', 'readOnly', 'writeOnly', 'closed']);
const MAX_ADDRESS_LENGTH = 64;

/** Null unless every field is as describeSocket makes it. @param pid of the process that the table was found in */
export function parseRow(text: string, counters: readonly number[], pid: number): ConnectionInfo | null {
  const fields = fieldsOf(text);
  if (fields === null || !counters.every((one) => Number.isSafeInteger(one) && one >= 0)) return null;
  const { id, program, role, state, mode, reason, device, access, movedAtMs, gid, peerGid, linkGroup } = fields;
  const [local, peer] = [endpointOf(fields.local), endpointOf(fields.peer)];
  const cause = causeOf(fields.cause);
  if (
    !isMatch(id, /^\d{1,10}\.\d{1,10}\.\d{1,16}$/) ||
    typeof program !== 'string' ||
    program.length > MAX_PROGRAM_LENGTH ||
    !isOneOf(role, ['client', 'server', null]) ||
    typeof state !== 'string' ||
    !STATES.has(state) ||
    !isOneOf(mode, ['SMC-D', 'TCP']) ||
    !isWithin(reason, 0xffffffff) ||
    !isOneOf(device, ['loopback', 'host', null]) ||
    !isOneOf(access, ['mapped', 'store', null]) ||
    (device === null) !== (access === null) ||
    !(movedAtMs === null || isWithin(movedAtMs, Number.MAX_SAFE_INTEGER)) ||
    !(gid === null || isMatch(gid, GID)) ||
    !(peerGid === null || isMatch(peerGid, GID)) ||
    !(linkGroup === null || isMatch(linkGroup, /^0x[0-9a-f]{8}$/)) ||
    local === undefined ||
    peer === undefined ||
    cause === undefined
  )
    return null;
  const [inTcp = 0, inShm = 0, outTcp = 0, outShm = 0] = counters;
  return {
    id: id.replace(/^\d+/, String(pid)),
    pid,
    program,
    role,
    state,
    mode,
    reason: reasonFor({ ...reasonOfCode(reason), ...cause }, role, local, peer),
    device,
    access,
    local,
    peer,
    bytes: { inTcp, inShm, outTcp, outShm },
    movedAtMs,
    gid,
    peerGid,
    linkGroup,
  };
}

const GID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

function fieldsOf(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' ? (value as Record<string, unknown> | null) : null;
  } catch {
    return null;
  }
}

/** Null = there is none; undefined = it is no cause. */
function causeOf(value: unknown): Pick<Reason, 'text' | 'hint'> | null | undefined {
  if (value === undefined) return null;
  const { text, hint } = (value ?? {}) as Partial<Record<'text' | 'hint', unknown>>;
  return typeof text === 'string' && typeof hint === 'string' ? { text, hint } : undefined;
}

/** Null = there is none; undefined = it is no endpoint. */
function endpointOf(value: unknown): Endpoint | null | undefined {
  if (value === null) return null;
  if (typeof value !== 'object') return undefined;
  const { address, port } = value as Partial<Record<keyof Endpoint, unknown>>;
  if (typeof address !== 'string' || address.length > MAX_ADDRESS_LENGTH || isIP(address) === 0) return undefined;
  return isWithin(port, 0xffff) ? { address, port } : undefined;
}

function isMatch(value: unknown, pattern: RegExp): value is string {
  return typeof value === 'string' && pattern.test(value);
}

function isOneOf<const T extends string | null>(value: unknown, choices: readonly T[]): value is T {
  return (choices as readonly unknown[]).includes(value);
}

function isWithin(value: unknown, max: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max;
}
