/**
 * Tables of partitions as they are found: memory that somebody else fills, at any time, with anything. What is not as our own
 * programs write it is no row; whose row it is says the process that was looked into, never the text.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readlinkSync, readSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import { type ConnectionInfo, type Endpoint, reasonFor } from '../net/info.ts';
import {
  FIRST_ROW,
  type FoundRow,
  type Head,
  MAX_PROGRAM_LENGTH,
  ROW_BYTES,
  readHead,
  readRow,
  TABLE_NAME,
} from '../net/table.ts';
import { type Reason, reasonOfCode } from '../smc/reasons.ts';
import { STATE_NAMES } from '../smc/states.ts';
import { UsageError } from './command.ts';

/** In one look, of all programs together: what is shown has to fit into memory. */
export const MAX_SHOWN_ROWS = 100_000;

/** What a partition says of itself. */
export interface Table {
  readonly pid: number;
  readonly thread: number;
  readonly rows: readonly Row[];
  /** Null when they are not as our own programs write them. */
  readonly totals: Totals | null;
}

export interface Row {
  readonly info: ConnectionInfo;
  /** See COUNTER. */
  readonly counters: readonly number[];
}

/** As statistics.ts has them. */
export interface Totals {
  readonly totals: readonly number[];
  /** Connections that have ended and never moved, by the code of the reason. */
  readonly fallbacks: readonly (readonly [code: number, connections: number])[];
}

/** All connections in all tables that this user may open. `complete` is false when there were too many. */
export function readTables(pid?: string): { readonly rows: readonly ConnectionInfo[]; readonly complete: boolean } {
  const { tables, complete } = readPartitions(pid);
  return { rows: tables.flatMap(({ rows }) => rows.map(({ info }) => info)), complete };
}

/** All tables that this user may open. Waits for programs in the middle of a change, all together for MAX_WAIT_MS. */
export function readPartitions(pid?: string): { readonly tables: readonly Table[]; readonly complete: boolean } {
  const tables: Table[] = [];
  const patience = new Patience();
  if (process.platform !== 'linux') return { tables, complete: true }; // there is no /proc, and nothing moves
  const pids = pid === undefined ? readdirSync('/proc').filter((name) => /^\d+$/.test(name)) : [pid];
  let left = MAX_SHOWN_ROWS;
  for (const one of pids) {
    const seen = new Set<number>();
    for (const path of tablesOf(one)) {
      const table = readTable(path, Number(one), seen, left, patience);
      if (table === null) continue;
      tables.push(table);
      left -= table.rows.length;
      if (left <= 0) return { tables, complete: false };
    }
  }
  return { tables, complete: true };
}

/** Throws UsageError. */
export function checkPid(pid: string | undefined): string | undefined {
  if (pid !== undefined && !/^\d+$/.test(pid)) throw new UsageError('--pid takes the number of a process');
  return pid;
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
function readTable(path: string, pid: number, seen: Set<number>, maxRows: number, patience: Patience): Table | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return null;
  }
  try {
    const { ino, uid, size } = fstatSync(fd);
    // A table of another user was handed to this process. Root's may be of a program that is root no longer.
    if (seen.has(ino) || (uid !== 0 && uid !== statSync(`/proc/${pid}`).uid)) return null;
    seen.add(ino);
    // A connection that ends meanwhile would be in neither, or in both.
    for (const tries = patience.begin(); ; ) {
      const head = headOf(fd);
      if (head === null) return null;
      const count = Math.min(head.rows, Math.floor((size - FIRST_ROW) / ROW_BYTES));
      const found = rowsOf(fd, count, patience);
      const isOfOneTime = head.sequence % 2 === 0 && headOf(fd)?.sequence === head.sequence;
      if (!isOfOneTime && tries.again()) continue;
      const rows = parseRows(found, pid, maxRows);
      return { pid, thread: head.thread, rows, totals: parseTotals(head) };
    }
  } catch {
    return null; // it is no file, or the process has gone
  } finally {
    closeSync(fd);
  }
}

/** All waiting of one look: a program that was stopped in the middle of a change keeps nobody for longer. */
const MAX_WAIT_MS = 500;
/** A change takes microseconds, unless the processor was taken away meanwhile: somebody who reads on keeps it away. */
const TRIES_AT_ONCE = 3;

class Patience {
  #leftMs = MAX_WAIT_MS;

  begin(): { again(): boolean } {
    let tries = 0;
    let since = performance.now();
    return {
      again: () => {
        if (++tries < TRIES_AT_ONCE) return true;
        const now = performance.now();
        this.#leftMs -= now - since;
        since = now;
        if (this.#leftMs <= 0) return false;
        Atomics.wait(CLOCK, 0, 0, 1);
        return true;
      },
    };
  }
}
const CLOCK = new Int32Array(new SharedArrayBuffer(4));

function headOf(fd: number): Head | null {
  const head = Buffer.alloc(FIRST_ROW);
  readSync(fd, head, 0, head.length, 0);
  return readHead(head);
}

/** Many at once: the less time between the first row and the last, the fewer connections end meanwhile. */
const ROWS_AT_ONCE = 64;
const [first, second] = [Buffer.alloc(ROWS_AT_ONCE * ROW_BYTES), Buffer.alloc(ROWS_AT_ONCE * ROW_BYTES)];

/** All rows that are in use, not looked into. One that is being written is read again. */
function rowsOf(fd: number, count: number, patience: Patience): FoundRow[] {
  const rows: FoundRow[] = [];
  for (let at = 0; at < count; at += ROWS_AT_ONCE) {
    const length = Math.min(ROWS_AT_ONCE, count - at) * ROW_BYTES;
    const position = FIRST_ROW + at * ROW_BYTES;
    readTwice(fd, 0, length, position);
    for (let offset = 0; offset < length; offset += ROW_BYTES) {
      const tries = patience.begin();
      while (!isSteady(offset) && tries.again()) readTwice(fd, offset, ROW_BYTES, position + offset);
      const row = isSteady(offset) ? readRow(first.subarray(offset, offset + ROW_BYTES)) : null;
      if (row !== null) rows.push(row);
    }
  }
  return rows;
}

function readTwice(fd: number, offset: number, length: number, position: number): void {
  for (const buffer of [first, second]) readSync(fd, buffer, offset, length, position);
}

/** Whether nobody wrote a row while it was read, twice. */
function isSteady(offset: number): boolean {
  const sequence = first.readUInt32LE(offset);
  return sequence % 2 === 0 && sequence === second.readUInt32LE(offset);
}

function parseRows(found: readonly FoundRow[], pid: number, max: number): Row[] {
  const rows: Row[] = [];
  for (const { text, counters } of found) {
    const info = rows.length < max ? parseRow(text, counters, pid) : null;
    if (info !== null) rows.push({ info, counters });
  }
  return rows;
}

/** Null unless every number is one that counts. */
export function parseTotals({ totals, fallbacks }: Pick<Head, 'totals' | 'fallbacks'>): Totals | null {
  if (![...totals, ...fallbacks].every(isCount)) return null;
  const pairs = fallbacks.flatMap((code, i) => (i % 2 === 0 ? [[code, fallbacks[i + 1] ?? 0] as const] : []));
  return { totals, fallbacks: pairs.filter(([, connections]) => connections > 0) };
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

const STATES = new Set([...Object.values(STATE_NAMES), 'opening', 'open', 'readOnly', 'writeOnly', 'closed']);
const MAX_ADDRESS_LENGTH = 64;

/** Null unless every field is as describeSocket makes it. @param pid of the process that the table was found in */
export function parseRow(text: string, counters: readonly number[], pid: number): ConnectionInfo | null {
  const fields = fieldsOf(text);
  if (fields === null || !counters.every(isCount)) return null;
  const { id, program, role, state, mode, reason, device, access, movedAtMs, gid, peerGid, linkGroup, chid, dmbBytes } =
    fields;
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
    !(chid === null || isMatch(chid, /^0x[0-9a-f]{4}$/)) ||
    !(dmbBytes === null || isWithin(dmbBytes, 0xffffffff)) ||
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
    chid,
    dmbBytes,
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
