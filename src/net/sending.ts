/**
 * What a socket writes: into the peer's ring while the connection says so, else to TCP. What the ring has no room for waits, one write at
 * a time, as the stream gives them.
 */
import { inNextTurn, nextTick } from '../os/event-loop.ts';
import type { Connection, Reserved } from '../smc/connection.ts';
import { COUNTER } from './info.ts';
import { type InternalSocket, ORIGINAL, SOCKET, socketError, type WriteCallback } from './internals.ts';
import { PendingWrite } from './pending-write.ts';
import type { Traffic } from './traffic.ts';

export interface SendingListener {
  /** A write to TCP has passed through JavaScript. */
  passed(): void;
  /** A write waits for room. */
  waits(): void;
  /** The peer broke a rule. Not to be acted on at once: this may be within a call of the program. */
  failed(error: unknown): void;
}

export class Sending {
  readonly #socket: InternalSocket;
  readonly #traffic: Traffic;
  readonly #listener: SendingListener;
  #connection: Connection | null = null;
  /** A write that waits for room. */
  #pending: PendingWrite | null = null;
  /** Tells the stream of the end of a write that had to wait. */
  #answer: (() => void) | null = null;
  #closed = false;

  constructor(socket: InternalSocket, traffic: Traffic, listener: SendingListener) {
    this.#socket = socket;
    this.#traffic = traffic;
    this.#listener = listener;
  }

  /** From now on the connection says where bytes go. */
  carry(connection: Connection): void {
    this.#connection = connection;
  }

  /** Everything goes to TCP again. */
  release(): void {
    this.#answerNow();
    this.#connection = null;
  }

  /** Whether a write waits for room. */
  get isWaiting(): boolean {
    return this.#pending !== null;
  }

  /** Of the write that waits. */
  get waitingBytes(): number {
    return this.#connection?.out.isMoved ? (this.#pending?.lengthBytes ?? 0) : 0;
  }

  /** Room in the peer's ring for the next bytes, in the place of a write; null where they have to be written. */
  reserve(lengthBytes: number): Reserved | null {
    if (this.#pending !== null || this.#closed) return null;
    try {
      return this.#connection?.reserve(lengthBytes) ?? null;
    } catch (error) {
      this.#listener.failed(error);
      return null;
    }
  }

  /** What was reserved is written. */
  commit(reserved: Reserved, lengthBytes: number): void {
    reserved.commit(lengthBytes);
    this.#socket._unrefTimer();
    this.#traffic.count(COUNTER.writes);
    this.#traffic.sum();
  }

  /** As `write`, which would write this chunk at once in this state, and call nobody back. */
  writeNow(chunk: unknown, encoding?: unknown, callback?: unknown): boolean {
    const socket = this.#socket;
    const connection = this.#connection;
    if (connection?.out.isMoved && this.#pending === null && callback === undefined && isBytes(chunk)) {
      const state = socket._writableState;
      if (
        typeof encoding !== 'function' &&
        SOCKET.write === ORIGINAL.write &&
        state.length === 0 &&
        state.corked === 0 &&
        !state.ending &&
        !state.destroyed &&
        !state.errored &&
        !state.needDrain &&
        !state.bufferProcessing &&
        chunk.length < state.highWaterMark
      ) {
        const taken = this.#intoRing(connection, chunk, 0);
        if (taken > 0) socket._unrefTimer();
        this.#traffic.wroteRing();
        if (taken === chunk.length) {
          this.#traffic.count(COUNTER.writes);
          return true;
        }
        return SOCKET.write.call(socket, chunk.subarray(taken));
      }
    }
    return SOCKET.write.call(socket, chunk, encoding, callback);
  }

  /** As `_writeGeneric`. */
  write(writev: boolean, data: unknown, encoding: BufferEncoding, callback: WriteCallback): void {
    const socket = this.#socket;
    if (this.#connection?.out.isMoved && socket._handle !== null) {
      socket._unrefTimer();
      socket._pendingData = null; // it was written before the socket was connected, if this is it
      const bytes = writev
        ? (data as readonly Chunk[]).map(({ chunk, encoding: own }) => bytesOf(chunk, own))
        : [bytesOf(data, encoding)];
      const pending = new PendingWrite(bytes, callback);
      this.#pending = pending;
      this.#traffic.count(COUNTER.writes);
      if (this.#flush(pending)) {
        callback();
        return;
      }
      this.#traffic.count(COUNTER.full);
      pending.wait();
      this.#listener.waits();
      return;
    }
    if (socket._handle === null || socket.connecting)
      SOCKET._writeGeneric.call(socket, writev, data, encoding, callback);
    else this.#toTcp(writev, data, encoding, callback);
  }

  /** Gives the write that waits to the way that its bytes go now. */
  goOn(): void {
    const pending = this.#pending;
    if (pending === null || this.#connection === null) return;
    if (this.#connection.out.isMoved) {
      if (this.#flush(pending)) this.#answerLater(pending.callback);
      return;
    }
    this.#waitsNoMore();
    const chunks = pending.rest().map((chunk) => ({ chunk, encoding: 'buffer' }));
    this.#toTcp(true, Object.assign(chunks, { allBuffers: true }), 'utf8', (error) =>
      this.#answerLater(() => pending.callback(error)),
    );
  }

  /** As `goOn` at the exit of the process: no tick comes any more, and an answer brings the next write. */
  goOnUnheard(): void {
    this.#answerUnheard();
    this.goOn();
    this.#answerUnheard();
  }

  /** The socket is about to be closed. */
  closing(): void {
    this.#closed = true;
    if (this.#answer !== null) nextTick(() => this.#answerNow());
  }

  /** The socket is closed: what waits is not written any more. */
  close(): void {
    const pending = this.#pending;
    this.#waitsNoMore();
    if (pending !== null) nextTick(pending.callback, ECANCELED_FOR_PENDING ? socketError('ECANCELED', 'write') : null);
    this.#connection = null;
  }

  #toTcp(writev: boolean, data: unknown, encoding: BufferEncoding, callback: WriteCallback): void {
    this.#traffic.writeTcp(() => SOCKET._writeGeneric.call(this.#socket, writev, data, encoding, callback));
    this.#listener.passed();
  }

  /** How many bytes the ring took. */
  #intoRing(connection: Connection, bytes: Uint8Array, from: number, behind = 0): number {
    try {
      return connection.out.write(bytes, from, behind);
    } catch (error) {
      this.#listener.failed(error);
      return 0;
    }
  }

  /** Gives the ring what it takes of the write that waits; whether that is all. */
  #flush(pending: PendingWrite): boolean {
    const connection = this.#connection;
    if (connection === null) return false;
    const given = pending.give((bytes, from, behind) => this.#intoRing(connection, bytes, from, behind));
    if (given > 0) this.#socket._unrefTimer();
    this.#traffic.wroteRing();
    if (!pending.isDone) return false;
    this.#waitsNoMore();
    return true;
  }

  #waitsNoMore(): void {
    this.#pending?.end();
    this.#pending = null;
  }

  /**
   * As TCP does it, with no tick of the program waiting: those of writes before this one come first, and a message of HTTP that waits
   * for `drain` counts in a tick on what waited when it was written.
   */
  #answerLater(answer: () => void): void {
    this.#answer = answer;
    // Before 'close', which is as near when it was closed in this turn.
    const soon = this.#closed ? nextTick : inNextTurn;
    soon(() => this.#answerNow());
  }

  #answerNow(): void {
    const answer = this.#answer;
    this.#answer = null;
    answer?.();
  }

  /** As where a write is done at once: the stream tells the program in a tick, of which none comes any more. */
  #answerUnheard(): void {
    this.#socket._writableState.sync = true;
    this.#answerNow();
  }
}

function isBytes(chunk: unknown): chunk is Uint8Array {
  return chunk instanceof Uint8Array && chunk.length > 0;
}

interface Chunk {
  readonly chunk: unknown;
  readonly encoding: BufferEncoding;
}

function bytesOf(chunk: unknown, encoding: BufferEncoding): Uint8Array {
  return typeof chunk === 'string' ? Buffer.from(chunk, encoding) : (chunk as Uint8Array);
}

/** What the callback of a write in flight gets when its socket is destroyed: nothing on Node.js 20, an error from 22 on. */
const ECANCELED_FOR_PENDING = Number.parseInt(process.versions.node, 10) >= 22;
