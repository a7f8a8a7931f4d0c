/**
 * `isthmus`: sockets of node:net that move to shared memory when both ends are on this host and use Isthmus; everything else about
 * them is node:net's. Connections of a program that runs under `isthmus run` do so without a line of code.
 * @module
 */
import {
  type NetConnectOpts,
  connect as netConnect,
  createServer as netCreateServer,
  type Server,
  type ServerOpts,
  Socket,
} from 'node:net';
import { inspect } from 'node:util';
import { TIMER_LIMIT_MS } from './fabric/settings.ts';
import type { ConnectionInfo } from './net/info.ts';
import { type Lease, type LeasesOptions, readLeases } from './net/leases.ts';
import type { Role } from './net/mover.ts';
import { type Reservation, reserveRoom } from './net/reservation.ts';
import { handshakeOf, sharedRuntime } from './net/runtime.ts';
import { lowest } from './net/wrapping.ts';
import { inTime, keepingAlive } from './os/in-time.ts';

export { IsthmusError } from './ism/errors.ts';
export type { Bytes, ConnectionInfo, Endpoint } from './net/info.ts';
export type { Lease, LeasesOptions } from './net/leases.ts';
export type { Reservation } from './net/reservation.ts';
export type { Reason } from './smc/reasons.ts';

const runtime = sharedRuntime(new URL('./register.cjs', import.meta.url).href);

/**
 * How the two ends agree. `fabric`, the default: by way of the fabric, once bytes pass. `in-band`: in the TCP connection itself, before any
 * byte of the programs, as RFC 7609 and Linux do. A program cannot set the TCP option by which Linux tells that it speaks SMC, so in-band
 * has to be said at **both** ends: a peer that does not expect it takes the first message for data.
 */
export interface HandshakeOption {
  readonly handshake?: 'fabric' | 'in-band';
}

/** Like net.createServer. Accepted connections move according to the policy (ISTHMUS_POLICY). */
export function createServer(options?: ServerOpts & HandshakeOption, listener?: (socket: Socket) => void): Server;
export function createServer(listener?: (socket: Socket) => void): Server;
export function createServer(...args: unknown[]): Server {
  const isInBand = wantsInBand(args);
  runtime.watchAll(isInBand);
  const server = netCreateServer(...(args as [ServerOpts, (socket: Socket) => void]));
  if (isInBand) runtime.useInBand(server);
  return server;
}

/** Like net.connect. The connection moves according to the policy (ISTHMUS_POLICY). */
export function connect(options: NetConnectOpts & HandshakeOption, listener?: () => void): Socket;
export function connect(port: number, host?: string, listener?: () => void): Socket;
export function connect(path: string, listener?: () => void): Socket;
export function connect(...args: unknown[]): Socket {
  runtime.watchAll(wantsInBand(args));
  return netConnect(...(args as [NetConnectOpts, () => void]));
}

export const createConnection = connect;

/** Throws TypeError for what is none. */
function wantsInBand(args: readonly unknown[]): boolean {
  const handshake = handshakeOf(args);
  if (handshake === undefined || handshake === 'fabric') return false;
  if (handshake === 'in-band') return true;
  throw invalid('VALUE', `options.handshake is 'fabric' or 'in-band', not ${inspect(handshake)}`);
}

function checkSocket(socket: unknown): void {
  if (!(socket instanceof Socket))
    throw invalid('TYPE', `socket is a net.Socket, not ${inspect(socket, { depth: 0 })}`);
}

function checkRole(role: unknown): void {
  if (role !== 'client' && role !== 'server')
    throw invalid('VALUE', `role is 'client' or 'server', not ${inspect(role)}`);
}

/** Throws TypeError for an option that there is not, or a value that makes no sense. */
function checkOptions(options: unknown, names: readonly string[]): void {
  if (typeof options !== 'object' || options === null)
    throw invalid('TYPE', `options is an object, not ${inspect(options, { depth: 0 })}`);
  const unknown = Object.keys(options).find((name) => !names.includes(name));
  if (unknown !== undefined) throw invalid('VALUE', `there is no option ${unknown}, but ${names.join(', ')}`);
  const { role, timeoutMs, destroyOnReturn } = options as Readonly<Record<string, unknown>>;
  if (role !== undefined) checkRole(role);
  if (destroyOnReturn !== undefined && typeof destroyOnReturn !== 'boolean')
    throw invalid('TYPE', `options.destroyOnReturn is true or false, not ${inspect(destroyOnReturn, { depth: 0 })}`);
  if (timeoutMs === undefined) return;
  if (typeof timeoutMs !== 'number')
    throw invalid('TYPE', `options.timeoutMs is a number of milliseconds, not ${inspect(timeoutMs, { depth: 0 })}`);
  if (!(timeoutMs >= 0 && timeoutMs < TIMER_LIMIT_MS))
    throw invalid('VALUE', `options.timeoutMs is from 0 to ${TIMER_LIMIT_MS - 1}, not ${timeoutMs}`);
}

function invalid(what: 'TYPE' | 'VALUE', message: string): TypeError {
  return Object.assign(new TypeError(message), { code: `ERR_INVALID_ARG_${what}` });
}

export interface AccelerateOptions {
  /** Which end of the connection this is; found out where it can be: an accepted socket has a server. */
  readonly role?: Role;
  /** How long to wait for the other end, in milliseconds (default: 5000). */
  readonly timeoutMs?: number;
}

const DEFAULT_TIMEOUT_MS = 5000;

/**
 * Moves a connected socket now, also under the policy off, but not against a rule. Resolves when both directions have moved, when it
 * is clear that the connection stays on TCP, or after the timeout: look at `mode` and `reason` of the result. The other end has to want
 * it too, and a byte has to pass in either direction before anything moves. A socket that is not connected stays what it is (NOTTCP,
 * ENDED). Rejects for wrong arguments only.
 */
export async function accelerate(socket: Socket, options: AccelerateOptions = {}): Promise<ConnectionInfo> {
  checkSocket(socket);
  checkOptions(options, ['role', 'timeoutMs']);
  const below = lowest(socket);
  if (below.pending) return runtime.info(socket);
  const role = options.role ?? runtime.roleOf(socket);
  const engine = runtime.forbids(below, role) ? null : await keepingAlive(runtime.engine());
  if (engine === null) return runtime.info(socket);
  const mover = engine.moverOf(below);
  if (mover === null) engine.start(below, role, runtime.contextOf(role));
  else mover.retry();
  const waitFor = engine.moverOf(below);
  if (waitFor !== null) {
    const settled = waitFor.until(
      () => waitFor.isWhollyMoved || waitFor.state === 'STAYS' || waitFor.state === 'ENDED',
    );
    await inTime(settled, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  }
  return engine.info(below);
}

/**
 * Has Isthmus look after a socket whose beginning it has not seen: one that was made from a descriptor (`new net.Socket({ fd })`) or
 * received from another process. It moves according to the policy from then on, provided that nobody else has read or written it.
 * @param role which end it is: `server` for one that was accepted, wherever that was
 */
export function attach(socket: Socket, role: Role): void {
  checkSocket(socket);
  checkRole(role);
  runtime.attach(socket, role);
}

/**
 * Brings a socket back to TCP, both directions, and keeps it there until `accelerate`. Resolves when that is done, when the
 * connection has ended, or after the timeout. Rejects for wrong arguments only.
 */
export async function restore(socket: Socket, options: { readonly timeoutMs?: number } = {}): Promise<ConnectionInfo> {
  checkSocket(socket);
  checkOptions(options, ['timeoutMs']);
  if (lowest(socket).pending) return runtime.info(socket);
  const engine = await keepingAlive(runtime.engine());
  if (engine === null) return runtime.info(socket);
  // What waits for room is written then: its callback must not overtake those that wait for their tick.
  await new Promise((resolve) => setImmediate(resolve));
  const below = lowest(socket);
  const mover = engine.moverOf(below);
  if (mover !== null) await inTime(mover.restore(), options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  return engine.info(below);
}

/**
 * What a socket receives, lent in place of copies: `for await (const lease of leases(socket))`, as `for await (const chunk of socket)`, for
 * any socket. Where the connection has moved a lease shows the bytes where the other end has put them; on TCP, and in the kernel's layout,
 * it is the chunk of Node.js. A program need not know: it asks for `lease.bytes`, and calls `lease.release()` when it has done with them.
 *
 * Until then the other end cannot use their room (64 KiB less 128 bytes in all at first, `ISTHMUS_DMB_BYTES`; more where it waits, up to
 * `ISTHMUS_MAX_DMB_BYTES`): leases that are never released stop it, as a socket that nobody reads does. They may be released in any
 * order; the room comes free up to the oldest that is not. They stay good, and keep the memory of the connection, when the connection
 * ends, is destroyed, or goes back to TCP (`restore` does not wait for them). A write that waits for room while leases take all of it here, and no more is to be had, goes by TCP.
 *
 * The loop ends as that of a stream does, also in what it throws, and in that it destroys the socket. Rejects with ERR_ISTHMUS_LEASE for a
 * second loop, and for a socket with an encoding or with the option `onread`.
 */
export function leases(socket: Socket, options: LeasesOptions = {}): AsyncGenerator<Lease, void, undefined> {
  checkSocket(socket);
  checkOptions(options, ['destroyOnReturn']);
  return readLeases(socket, options, {
    lend: (lender) => runtime.lend(socket, lender),
    pull: () => runtime.carrierOf(socket)?.pull() ?? null,
  });
}

/** The most that can be reserved at once, in bytes. */
const MAX_RESERVED_BYTES = 2 ** 30;

/**
 * Room for the next bytes that a socket writes, to be filled in place and then committed: `room.bytes`, `room.commit(n)`. Where the
 * connection has moved, the other end's memory is mapped and there is room in one piece, that memory itself; else a Buffer, which `commit`
 * gives to `socket.write`. Null while the socket wants nothing more to be written: wait for its 'drain'.
 *
 * Bytes are in the order of the calls of `write` and `commit`. What is written between `reserve` and `commit` waits for the latter (the
 * socket is corked), so commit soon. There is one reservation at a time: throws ERR_ISTHMUS_RESERVE for a second one, and for a socket that
 * has ended. One that is never committed keeps memory of the other end, also when the connection has ended.
 *
 * @param lengthBytes from 1 to 2^30
 */
export function reserve(socket: Socket, lengthBytes: number): Reservation | null {
  checkSocket(socket);
  if (!Number.isInteger(lengthBytes) || lengthBytes < 1 || lengthBytes > MAX_RESERVED_BYTES)
    throw invalid('VALUE', `lengthBytes is an integer from 1 to ${MAX_RESERVED_BYTES}, not ${inspect(lengthBytes)}`);
  return reserveRoom(socket, lengthBytes, runtime.carrierOf(socket));
}

/** What this connection is and why. For any socket, also of a program that knows nothing of Isthmus. */
export function info(socket: Socket): ConnectionInfo {
  checkSocket(socket);
  return runtime.info(socket);
}
