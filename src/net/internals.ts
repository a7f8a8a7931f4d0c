/**
 * Every assumption on the inside of Node.js, in one file, with the test that finds out at start whether they hold.
 *
 * How a socket is moved: the TCP handle stays; methods of the socket (`_writeGeneric`, `_final`, `_destroy`, `destroy`, `push`,
 * `write`; below TLS `_write` and `_writev`, too) and of its handle (`readStart`, `readStop`, the counters) are overridden on the
 * instance. Any surprise means: stay on TCP.
 */
import { AsyncResource } from 'node:async_hooks';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { Readable, Writable } from 'node:stream';

/** Bun and Deno speak of themselves as Node.js, too; their node:net is another one. */
export const IS_NODE = !('bun' in process.versions || 'deno' in process.versions);

export type WriteCallback = (error?: Error | null) => void;

/** The methods of net.Socket.prototype that are overridden or called. */
export interface SocketInternals {
  _writeGeneric(writev: boolean, data: unknown, encoding: BufferEncoding, callback: WriteCallback): void;
  _final(callback: WriteCallback): void;
  _destroy(error: Error | null, callback: (error: Error | null) => void): void;
  destroy(error?: Error, callback?: (error: Error | null) => void): unknown;
  push(chunk: Buffer | null, encoding?: BufferEncoding): boolean;
  write(chunk: unknown, encoding?: unknown, callback?: unknown): boolean;
}

/** Its methods by which the stream writes. */
export interface WritingInternals {
  _write(chunk: unknown, encoding: BufferEncoding, callback: WriteCallback): void;
  _writev(chunks: readonly { readonly chunk: unknown }[], callback: WriteCallback): void;
}

/** What tells that a chunk handed to `push` would be emitted at once, and nothing else. */
export interface ReadableState {
  readonly flowing: boolean | null;
  readonly length: number;
  readonly decoder: unknown;
  readonly ended: boolean;
  readonly sync: boolean;
  readonly awaitDrainWriters: unknown;
  dataEmitted: boolean;
}

/** What tells that a chunk handed to `write` would be written at once, and nothing else. */
export interface WritableState {
  readonly length: number;
  readonly corked: number;
  readonly ending: boolean;
  readonly destroyed: boolean;
  readonly errored: unknown;
  readonly needDrain: boolean;
  readonly bufferProcessing: boolean;
  readonly highWaterMark: number;
  /** Within `write`: who wrote is told in a tick. */
  sync: boolean;
}

export interface TcpHandle {
  readonly fd: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly writeQueueSize: number;
  reading: boolean;
  onread: unknown;
  isStreamBase?: boolean;
  /** Not that of TLS. */
  hasRef?(): boolean;
  unref(): void;
  readStart(): number;
  readStop(): number;
  close(closed?: () => void): void;
  /** What happens on it belongs to the caller's async context from then on. */
  asyncReset(resource: object): void;
  [REUSED]?: AsyncResource;
}

/** Of a handle that http.Agent gave to another request: the context of that. */
const REUSED = Symbol.for('isthmus.reused');

export type InternalSocket = Socket &
  SocketInternals & {
    _handle: TcpHandle | null;
    _unrefTimer(): void;
    /** Counted by bytesWritten until it is written. */
    _pendingData: unknown;
    _readableState: ReadableState;
    _writableState: WritableState;
    /** Of the http server. */
    parser?: { _consumed?: boolean } | null;
    server?: unknown;
    resetAndClosing?: boolean;
    encrypted?: boolean;
  };

export function internalsOf(socket: Socket): InternalSocket {
  return socket as InternalSocket;
}

export const SOCKET = Socket.prototype as unknown as SocketInternals & WritingInternals;

/** What net.Socket inherits, whatever was put over its prototype before we were loaded. */
export const ORIGINAL = { write: Writable.prototype.write, push: Readable.prototype.push };

/** Methods that a moved socket does not call any more, or not each time, or calls as they are in net.Socket.prototype. */
const PASSED_OVER = [
  'push',
  'write',
  'destroy',
  '_destroy',
  '_final',
  '_read',
  '_write',
  '_writev',
  '_writeGeneric',
] as const;

/**
 * Whether a socket has one of these methods of its own, or of a class of the program's. What is put over the prototype of all sockets is
 * called as before.
 * @param ours whether this is our own method of that name
 */
export function hasOwnWays(socket: Socket, ours: (name: string, method: unknown) => boolean): boolean {
  return PASSED_OVER.some((name) => {
    const method: unknown = Reflect.get(socket, name);
    return method !== Reflect.get(SOCKET, name) && !ours(name, method);
  });
}

/** From now on it is known of all handles of TCP. Once, for the prototype: it costs those nothing that are never used again. */
export function watchReuse(handle: TcpHandle | null): void {
  if (handle?.constructor.name !== 'TCP') return;
  const prototype = Object.getPrototypeOf(handle) as TcpHandle;
  const { asyncReset } = prototype;
  if (Object.hasOwn(prototype, 'asyncReset') || typeof asyncReset !== 'function') return;
  const value = function (this: TcpHandle, resource: object): void {
    asyncReset.call(this, resource);
    this[REUSED] = new AsyncResource('ISTHMUS');
  };
  Object.defineProperty(prototype, 'asyncReset', { configurable: true, writable: true, value });
}

/** The async context in which it is used again; null: it is not. */
export function reusedIn(handle: TcpHandle): AsyncResource | null {
  return handle[REUSED] ?? null;
}

/** Gives the stream bytes again that were taken from the ring for somebody else: they come behind what it holds already. */
export function putBack(socket: Socket, bytes: Buffer): void {
  if (bytes.length > 0) SOCKET.push.call(socket, bytes);
}

/** Key of the method by which a socket is posted to another thread (Node.js 24 on). */
export const TRANSFER = Object.getOwnPropertySymbols(Socket.prototype).find(
  ({ description }) => description === 'messaging_transfer_symbol',
);

/** What `spawnSync` and its like call, also where the program has got them before anybody could replace them. */
export interface SpawnSync {
  spawn(options: object): unknown;
}

/** Null where it cannot be had: under Node's permission model. */
export function findSpawnSync(): SpawnSync | null {
  const { binding } = process as { binding?: (name: string) => SpawnSync };
  const { noDeprecation } = process;
  process.noDeprecation = true; // it is not for the program to read that we ask
  try {
    const found = binding?.('spawn_sync');
    return typeof found?.spawn === 'function' ? found : null;
  } catch {
    return null;
  } finally {
    Object.assign(process, { noDeprecation });
  }
}

/** [name, parameters] */
const METHODS = [
  ['_writeGeneric', 4],
  ['_final', 1],
  ['_destroy', 2],
  ['_read', 1],
  ['_unrefTimer', 0],
] as const;

const READABLE_STATE = ['flowing', 'length', 'decoder', 'ended', 'sync', 'awaitDrainWriters', 'dataEmitted'] as const;
const WRITABLE_STATE = [
  'length',
  'corked',
  'ending',
  'destroyed',
  'errored',
  'needDrain',
  'bufferProcessing',
  'highWaterMark',
  'sync',
] as const;

const HANDLE_METHODS = ['readStart', 'readStop', 'hasRef'] as const;
const HANDLE_NUMBERS = ['fd', 'bytesRead', 'bytesWritten', 'writeQueueSize'] as const;

/** Of a socket with the option `onread`: buffer, callback, and what makes the next buffer. */
const ONREAD_SYMBOLS = ['kBuffer', 'kBufferCb', 'kBufferGen'] as const;

export interface OnreadSymbols {
  readonly kBuffer: symbol;
  readonly kBufferCb: symbol;
  readonly kBufferGen: symbol;
}

export interface Internals {
  /** net's own read callback of handles. */
  readonly onStreamRead: unknown;
  readonly symbols: OnreadSymbols;
}

/** What was found, or the reason in words why this Node.js is not as expected. */
export function testInternals(): Internals | string {
  for (const [name, parameters] of METHODS) {
    const method: unknown = Object.hasOwn(Socket.prototype, name) ? Reflect.get(Socket.prototype, name) : undefined;
    if (typeof method !== 'function' || method.length !== parameters) return `net.Socket.prototype.${name} has changed`;
  }
  for (const name of ['_write', '_writev'] as const) {
    if (!sourceOf(Reflect.get(Socket.prototype, name)).includes('_writeGeneric('))
      return `${name} does not call _writeGeneric`;
  }
  const bytesRead = Object.getOwnPropertyDescriptor(Socket.prototype, 'bytesRead')?.get;
  if (!sourceOf(bytesRead).includes('handle.bytesRead')) return 'net.Socket.prototype.bytesRead has changed';
  const onStreamRead = findOnStreamRead();
  if (typeof onStreamRead !== 'function' || onStreamRead.name !== 'onStreamRead') return 'onStreamRead was not found';
  if (!sourceOf(onStreamRead).includes('stream.push(')) return 'onStreamRead does not call stream.push';
  const fresh = internalsOf(new Socket());
  for (const name of READABLE_STATE) if (!(name in fresh._readableState)) return `_readableState.${name} was not found`;
  for (const name of WRITABLE_STATE) if (!(name in fresh._writableState)) return `_writableState.${name} was not found`;
  const symbols: Record<string, symbol> = {};
  const own = Object.getOwnPropertySymbols(fresh);
  for (const name of ONREAD_SYMBOLS) {
    const symbol = own.find(({ description }) => description === name);
    if (symbol === undefined) return `the symbol ${name} was not found`;
    symbols[name] = symbol;
  }
  return { onStreamRead, symbols: symbols as unknown as OnreadSymbols };
}

/** Whether a socket gives its bytes to a callback of the program's, by the option `onread`. */
export function hasOnread(socket: Socket): boolean {
  const symbol = Object.getOwnPropertySymbols(socket).find(({ description }) => description === 'kBufferCb');
  return symbol !== undefined && typeof Reflect.get(socket, symbol) === 'function';
}

/** The same for a handle, which only a connected socket has. */
export function testHandle(socket: Socket, { onStreamRead }: Internals): string | null {
  const handle = internalsOf(socket)._handle;
  if (handle?.constructor.name !== 'TCP') return `the handle of a socket is a ${handle?.constructor.name}`;
  for (const name of HANDLE_METHODS)
    if (typeof handle[name] !== 'function' || Object.hasOwn(handle, name)) return `handle.${name} has changed`;
  for (const name of HANDLE_NUMBERS)
    if (typeof handle[name] !== 'number' || Object.hasOwn(handle, name)) return `handle.${name} has changed`;
  if (handle.reading !== true) return 'handle.reading has changed';
  if (handle.onread !== onStreamRead) return 'handle.onread is not onStreamRead';
  if (handle.isStreamBase !== true) return 'handle.isStreamBase has changed';
  return null;
}

function sourceOf(method: unknown): string {
  return typeof method === 'function' ? Function.prototype.toString.call(method) : '';
}

/** net sets it on any handle that a socket is made with. */
function findOnStreamRead(): unknown {
  const handle = { getAsyncId: () => -1 };
  const options = { handle, manualStart: true };
  const socket = internalsOf(new Socket(options as ConstructorParameters<typeof Socket>[0]));
  return socket._handle?.onread;
}

/** http.Agent puts it in the place of onStreamRead while a socket idles in its pool: whatever comes ends the socket (Node.js 22 on). */
export function isGuardOfIdle(onread: unknown): boolean {
  return typeof onread === 'function' && onread.name === 'freeSocketOnReadGuard';
}

/** Whether a program reads the handle itself. */
export function isReadByProgram({ onread }: TcpHandle): boolean {
  onStreamRead ??= findOnStreamRead();
  return onread !== onStreamRead && !isGuardOfIdle(onread);
}
let onStreamRead: unknown;

/** An error as net makes it when a connection does not come about. */
export function connectError(
  code: 'EPROTO' | 'ECONNRESET' | 'ETIMEDOUT',
  socket: Socket,
  why: string,
): NodeJS.ErrnoException {
  const errno = -constants.errno[code];
  const { remoteAddress: address, remotePort: port } = socket;
  const error = new Error(`connect ${code} ${address}:${port}`, { cause: new Error(why) });
  return Object.assign(error, { errno, code, syscall: 'connect', address, port });
}

/** An error as the C++ side of net makes it. */
export function socketError(
  code: 'ECONNRESET' | 'EPIPE' | 'ECANCELED' | 'ENOBUFS',
  syscall: 'read' | 'write',
): NodeJS.ErrnoException {
  const errno = -constants.errno[code];
  return Object.assign(new Error(`${syscall} ${code}`), { errno, code, syscall });
}
