/** How bytes get to the program: by the socket's stream, by the callback of its option `onread`, or by who stands in the place of both. */
import type { Sink } from './below-tls.ts';
import { type InternalSocket, type Internals, ORIGINAL, SOCKET } from './internals.ts';

/** Chunks handed on are at most that long. */
export const CHUNK_BYTES = 64 * 1024;

type OnreadCallback = (length: number, buffer: Uint8Array) => boolean;

export class Delivery {
  /** What takes the bytes in the place of the stream. */
  sink: Sink | null;
  readonly #socket: InternalSocket;
  readonly #internals: Internals;
  #onread: OnreadCallback | null = null;
  /** Made for `onread`, and not used yet. */
  #nextBuffer: Uint8Array | null = null;

  constructor(socket: InternalSocket, internals: Internals, sink: Sink | null) {
    this.#socket = socket;
    this.#internals = internals;
    this.sink = sink;
  }

  /**
   * A socket with the option `onread` gets its bytes by a callback instead of by `push`.
   * @param fromTcp takes what C++ has read, and gives the part to be handed on now
   */
  install(fromTcp: (chunk: Buffer) => Buffer | null): void {
    const { kBufferCb } = this.#internals.symbols;
    const original = Reflect.get(this.#socket, kBufferCb) as OnreadCallback | null | undefined;
    if (typeof original !== 'function') return;
    this.#onread = original;
    Reflect.set(this.#socket, kBufferCb, (length: number, buffer: Uint8Array) => {
      const now = fromTcp(Buffer.from(buffer.buffer, buffer.byteOffset, length));
      if (now === null) return true;
      if (this.sink !== null) return this.sink(Buffer.from(now));
      return original.call(this.#socket, now.length, buffer);
    });
  }

  /** @param sink who gets what comes by the callback from now on; null: the program */
  uninstall(sink: Sink | null): void {
    if (this.#onread === null) return;
    const toSink: OnreadCallback = (length, buffer) => sink?.(Buffer.from(buffer.subarray(0, length))) ?? true;
    Reflect.set(this.#socket, this.#internals.symbols.kBufferCb, sink === null ? this.#onread : toSink);
  }

  /** Whether the program's stream gets them. */
  get isByStream(): boolean {
    return this.sink === null && this.#onread === null;
  }

  /** Whether the program has nobody who listens, and wants the bytes to be read all the same. */
  get isThrowingAway(): boolean {
    if (!this.isByStream) return false;
    return this.#socket._readableState.flowing === true && this.#socket.listenerCount('data') === 0;
  }

  /** Whether the program has said where it wants them, in memory that it has only while it does not want more. */
  get isInPlace(): boolean {
    return this.#onread !== null && this.sink === null;
  }

  /** Where the program wants the next chunk; null: in memory of its own. */
  get room(): Uint8Array | null {
    return this.isInPlace ? this.#onreadBuffer() : null;
  }

  /**
   * A chunk that did not come from C++. Whether more is wanted now.
   * @param room as it was before; the chunk may stand there, and has room there
   */
  give(chunk: Buffer, room: Uint8Array | null): boolean {
    if (this.sink !== null) return this.sink(chunk);
    return this.#onread === null || room === null ? this.#toStream(chunk) : this.#toOnread(this.#onread, chunk, room);
  }

  /** One that did, by `push`, or the end of what C++ reads. */
  pass(chunk: Buffer | null, encoding?: BufferEncoding): boolean {
    return this.sink === null ? SOCKET.push.call(this.#socket, chunk, encoding) : this.sink(chunk);
  }

  end(): void {
    this.pass(null);
    if (this.sink === null) this.#socket.read(0);
  }

  /** As `push`, which would emit the chunk at once in this state, and think about reading more. */
  #toStream(chunk: Buffer): boolean {
    const socket = this.#socket;
    const state = socket._readableState;
    if (
      state.flowing === true &&
      state.length === 0 &&
      state.decoder === null &&
      state.awaitDrainWriters === null &&
      !state.sync &&
      !state.ended &&
      SOCKET.push === ORIGINAL.push &&
      socket.listenerCount('data') > 0
    ) {
      state.dataEmitted = true;
      socket.emit('data', chunk);
      return true;
    }
    return SOCKET.push.call(socket, chunk);
  }

  #toOnread(onread: OnreadCallback, chunk: Buffer, room: Uint8Array): boolean {
    this.#nextBuffer = null;
    // What TCP had brought before it was wanted does not stand there yet.
    if (chunk.buffer !== room.buffer || chunk.byteOffset !== room.byteOffset) room.set(chunk);
    return onread.call(this.#socket, chunk.length, room) !== false;
  }

  /**
   * The next buffer of a program that makes new ones. C++ reads into the one that stands in kBuffer, when bytes come from TCP
   * again, so it stays there.
   */
  #onreadBuffer(): Uint8Array {
    const { kBuffer, kBufferGen } = this.#internals.symbols;
    const generate = Reflect.get(this.#socket, kBufferGen) as (() => unknown) | null;
    const next = this.#nextBuffer ?? generate?.();
    this.#nextBuffer = next instanceof Uint8Array && next.length > 0 ? next : null;
    return this.#nextBuffer ?? (Reflect.get(this.#socket, kBuffer) as Uint8Array);
  }
}
