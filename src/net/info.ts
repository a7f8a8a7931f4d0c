/** What is said of a connection: by `info()`, and by `isthmus ss` as one row. */
import type { Socket } from 'node:net';
import { REASONS, type Reason } from '../smc/reasons.ts';
import { STATE_NAMES } from '../smc/states.ts';
import type { Mover, Role } from './mover.ts';

export interface ConnectionInfo {
  /** Unique on this host while the connection lives; null when nobody has looked at the connection yet. */
  readonly id: string | null;
  readonly pid: number;
  readonly program: string;
  readonly role: Role | null;
  /** SMC's names of states (smcss) for a connection that has an SMC-D connection, else what TCP is in. */
  readonly state: string;
  readonly mode: 'SMC-D' | 'TCP';
  readonly reason: Reason;
  readonly device: 'loopback' | 'host' | null;
  readonly access: 'mapped' | 'store' | null;
  readonly local: Endpoint | null;
  readonly peer: Endpoint | null;
  /** From the program's first byte on; `Shm` through shared memory. */
  readonly bytes: Bytes;
  /** When the first direction moved, in milliseconds since 1970. */
  readonly movedAtMs: number | null;
  readonly gid: string | null;
  readonly peerGid: string | null;
  readonly linkGroup: string | null;
  /** Of the fabric that the device is attached to; 0xffff inside one event loop. */
  readonly chid: string | null;
  /** Length of the buffer for what this end receives. */
  readonly dmbBytes: number | null;
}

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** As tools print it, `[::1]:80`. */
export function formatEndpoint(end: Endpoint | null): string {
  if (end === null) return '-';
  return end.address.includes(':') && !end.address.includes('.')
    ? `[${end.address}]:${end.port}`
    : `${end.address.replace('::ffff:', '')}:${end.port}`;
}

export interface Bytes {
  readonly inTcp: number;
  readonly inShm: number;
  readonly outTcp: number;
  readonly outShm: number;
}

/** Counters of a connection, in this order; may be memory that other processes read. */
export const COUNTER = {
  inTcp: 0,
  inShm: 1,
  outTcp: 2,
  outShm: 3,
  /** Chunks that were taken from memory, and writes of the program to it. */
  reads: 4,
  writes: 5,
  /** Writes that had to wait, since the peer's buffer was full. */
  full: 6,
} as const;

export function bytesOf(counters: Float64Array): Bytes {
  const at = (index: number) => counters[index] ?? 0;
  return { inTcp: at(0), inShm: at(1), outTcp: at(2), outShm: at(3) };
}

export const PROGRAM = process.argv[1] ?? process.execPath;

function endpoint(address: string | undefined, port: number | undefined): Endpoint | null {
  return address === undefined || port === undefined ? null : { address, port };
}

/** The reason of one connection: its hint names the server where it says HOST:PORT. */
export function reasonFor(reason: Reason, role: Role | null, local: Endpoint | null, peer: Endpoint | null): Reason {
  const server = role === 'server' ? local : peer;
  if (role === null || server === null || !reason.hint.includes(ADDRESSEE)) return reason;
  return { ...reason, hint: reason.hint.replace(ADDRESSEE, formatEndpoint(server)) };
}
const ADDRESSEE = 'HOST:PORT';

/** Everything but the bytes. */
export function describeSocket(
  socket: Socket,
  mover: Mover | null,
  id: string | null,
  reason: Reason,
): Omit<ConnectionInfo, 'bytes'> {
  const connection = mover?.connection ?? null;
  const group = connection === null ? null : (mover?.group ?? null);
  const device = group?.device ?? null;
  const local = endpoint(socket.localAddress, socket.localPort);
  const peer = endpoint(socket.remoteAddress, socket.remotePort);
  return {
    id,
    pid: process.pid,
    program: PROGRAM,
    role: mover?.role ?? null,
    state: connection === null ? socket.readyState : STATE_NAMES[connection.state],
    mode: mover?.isMoved ? 'SMC-D' : 'TCP',
    reason: reasonFor(reason, mover?.role ?? null, local, peer),
    device: device === null ? null : (device.name as 'loopback' | 'host'),
    access: device === null ? null : device.capabilities.access,
    local,
    peer,
    movedAtMs: mover?.movedAtMs ?? null,
    gid: device?.gid ?? null,
    peerGid: group?.peer ?? null,
    linkGroup: group === null ? null : `0x${group.id.toString(16).padStart(8, '0')}`,
    chid: device === null ? null : `0x${device.chid.toString(16).padStart(4, '0')}`,
    dmbBytes: connection?.dmbBytes ?? null,
  };
}

/** What is said of a socket that nobody has looked at. */
export function describeUnseen(socket: Socket, reason: Reason = REASONS.YOUNG): ConnectionInfo {
  return {
    ...describeSocket(socket, null, null, reason),
    bytes: { inTcp: socket.bytesRead ?? 0, inShm: 0, outTcp: socket.bytesWritten ?? 0, outShm: 0 },
  };
}
