/**
 * A stream for C++ whose bytes are those of a socket, taken and given below the socket's own stream, whose listeners and encoding do
 * not matter: what TLS is put on instead of the socket's handle, so that the socket can be moved.
 */
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { setImmediate } from '../os/event-loop.ts';
import { Feeder } from './feeder.ts';
import {
  type InternalSocket,
  internalsOf,
  SOCKET,
  type TcpHandle,
  type WriteCallback,
  type WritingInternals,
} from './internals.ts';
import { Records, TLS_RECORD } from './records.ts';
import type { JsStream, StreamRequest, TlsInternals } from './tls-internals.ts';

/** Takes a chunk, or null for the end of the stream; false: no more for now. */
export type Sink = (chunk: Buffer | null) => boolean;

type Methods = { readonly push: Sink } & Partial<WritingInternals>;

/** Of sockets below TLS: `push` is the sink that gets their bytes, also where something else stands in its place. */
const methodsOf = new WeakMap<Socket, Methods>();

export function sinkOf(socket: Socket): Sink | null {
  return methodsOf.get(socket)?.push ?? null;
}

/** Whether this method was put on the socket for what is above it. */
export function isOfTls(socket: Socket, name: string, method: unknown): boolean {
  const methods = methodsOf.get(socket);
  return methods !== undefined && Object.hasOwn(methods, name) && Reflect.get(methods, name) === method;
}

/** Whatever was put on it has ended. */
export function forgetTls(socket: Socket): void {
  for (const name of Object.keys(methodsOf.get(socket) ?? {}))
    if (isOfTls(socket, name, Reflect.get(socket, name))) Reflect.deleteProperty(socket, name);
  methodsOf.delete(socket);
}

/** What TLS asks the handle below it, when it is asked itself. */
const FORWARDED = ['getpeername', 'getsockname', 'ref', 'unref', 'hasRef', 'setNoDelay', 'setKeepAlive'] as const;

interface Writing {
  readonly pieces: readonly Buffer[];
  failure: Error | null;
}

export class BelowTls {
  readonly stream: JsStream;
  readonly #handle: TcpHandle;
  readonly #feeder: Feeder;
  #socket: InternalSocket | null = null;
  #closed = false;
  /** The write of TLS that is under way; it has one at a time. */
  #writing: Writing | null = null;

  /** @param handle of the socket that is to be opened */
  constructor({ JsStream }: TlsInternals, handle: TcpHandle) {
    this.#handle = handle;
    this.stream = Object.assign(new JsStream(), {
      onreadstart: () => this.#read(true),
      onreadstop: () => this.#read(false),
      onwrite: (request: StreamRequest, chunks: readonly Buffer[]) => this.#write(request, chunks),
      onshutdown: (request: StreamRequest) => this.#shutdown(request),
      isClosing: () => this.#closed,
      close: (closed?: () => void) => this.#close(closed),
    } satisfies Partial<JsStream>);
    this.#feeder = new Feeder(new Records(TLS_RECORD), {
      isOpen: () => !this.#closed,
      feed: (record) => this.stream.readBuffer(record),
      end: () => this.stream.emitEOF(),
      drained: () => void this.#read(true),
    });
    for (const name of FORWARDED) {
      const method: unknown = Reflect.get(handle, name);
      if (typeof method === 'function')
        Reflect.set(this.stream, name, (...args: unknown[]) => Reflect.apply(method, handle, args));
    }
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** From now on the socket's bytes come here. @param divert leads them to a sink */
  open(socket: Socket, divert: (sink: Sink) => void): void {
    const internal = internalsOf(socket);
    this.#socket = internal;
    const writing = {
      _write: (chunk, encoding, callback) =>
        SOCKET._write.call(socket, chunk, encoding, this.#judged([{ chunk }], callback)),
      _writev: (chunks, callback) => SOCKET._writev.call(socket, chunks, this.#judged(chunks, callback)),
    } satisfies WritingInternals;
    const isNets = internal._write === SOCKET._write && internal._writev === SOCKET._writev;
    if (isNets) Object.assign(internal, writing);
    methodsOf.set(socket, { push: this.#take, ...(isNets && writing) });
    divert(this.#take);
  }

  readonly #take: Sink = (chunk) => this.#feeder.take(chunk);

  /**
   * A write of TLS that fails does not end the socket: where TLS has said its last, it reads on. One in which there is something of the
   * program does.
   */
  #judged(chunks: readonly { readonly chunk: unknown }[], callback: WriteCallback): WriteCallback {
    return (error) => {
      const writing = this.#writing;
      const isOfTls = () => chunks.every(({ chunk }) => writing?.pieces.includes(chunk as Buffer));
      if (!error || writing === null || this.#socket?.destroyed || !isOfTls()) {
        callback(error);
        return;
      }
      writing.failure = error;
      callback();
    };
  }

  #read(on: boolean): number {
    this.#feeder.wants = on;
    // One that was destroyed says by itself why.
    if (this.#closed || this.#socket?.destroyed || this.#handle.reading === on || (on && this.#feeder.isBusy)) return 0;
    this.#handle.reading = on;
    return on ? this.#handle.readStart() : this.#handle.readStop();
  }

  #write(request: StreamRequest, chunks: readonly Buffer[]): number {
    const socket = this.#socket;
    if (socket === null || !socket.writable) return -constants.errno.EPIPE;
    const pieces = inPieces(chunks);
    const writing: Writing = { pieces, failure: null };
    this.#writing = writing;
    writeTo(socket, pieces, (error) => {
      this.#writing = null;
      this.stream.finishWrite(request, statusOf(writing.failure ?? error));
    });
    return 0;
  }

  #shutdown(request: StreamRequest): number {
    if (this.#socket === null) return -constants.errno.ENOTCONN;
    this.#socket.end((error?: Error | null) => this.stream.finishShutdown(request, statusOf(error)));
    return 0;
  }

  #close(closed?: () => void): void {
    this.#closed = true;
    const socket = this.#socket;
    if (socket === null) {
      this.#handle.close(closed);
      return;
    }
    if (socket.closed) setImmediate(() => closed?.());
    else socket.once('close', () => closed?.());
    socket.destroy();
  }
}

/** To copy more costs more than to write it piece by piece, unless the pieces are small. */
const JOINED_BYTES = 32 * 1024;
const SMALL_BYTES = 4 * 1024;

/** What C++ writes to a stream goes to a socket. */
export function writeTo(socket: Socket, pieces: readonly Buffer[], done: WriteCallback): void {
  if (pieces.length === 1) {
    socket.write(pieces[0] as Buffer, done);
    return;
  }
  socket.cork();
  try {
    for (const piece of pieces.slice(0, -1)) socket.write(piece);
    socket.write(pieces.at(-1) as Buffer, done);
  } finally {
    socket.uncork();
  }
}

/** One, or those that were given. */
export function inPieces(chunks: readonly Buffer[]): readonly Buffer[] {
  if (chunks.length === 1) return chunks;
  const lengthBytes = chunks.reduce((sum, { length }) => sum + length, 0);
  const isJoined = lengthBytes <= Math.max(JOINED_BYTES, chunks.length * SMALL_BYTES);
  return isJoined ? [Buffer.concat(chunks, lengthBytes)] : chunks;
}

/** For C++. */
export function statusOf(error: NodeJS.ErrnoException | null | undefined): number {
  if (!error) return 0;
  return error.errno !== undefined && error.errno < 0 ? error.errno : -constants.errno.ECANCELED;
}

/** A socket around a handle that is connected, which the program never sees. */
export function socketAround(handle: TcpHandle): Socket {
  const options = { handle, allowHalfOpen: true, manualStart: true };
  return new Socket(options as ConstructorParameters<typeof Socket>[0]);
}
