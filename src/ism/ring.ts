/**
 * A ring in a DMB: bytes that one end writes and the other one takes out, in order.
 *
 * Its head is as long as two cache lines. Two words of it are the ring's, both byte counts modulo 2^32: PRODUCED, which the writer
 * stores after the bytes, and CONSUMED, which stands in the DMB of the other direction (the reader does not write into its own memory). The
 * rest is for whoever uses the ring.
 *
 * A writer asks nobody how much room there is: it is told (`room`), by who has read the peer's CONSUMED and checked it. In the same way a
 * reader is told how much there is to take.
 */
import type { Dmb, RemoteDmb } from './dmb.ts';

export const RING_WORD = { PRODUCED: 1, CONSUMED: 2 } as const;

export const RING_HEAD_BYTES = 128;

/** How many bytes of a DMB are ring. */
export function ringBytes(dmbLengthBytes: number): number {
  return dmbLengthBytes - RING_HEAD_BYTES;
}

/** Distance from one 32-bit cursor to a later one. */
export function cursorDistance(from: number, to: number): number {
  return (to - from) >>> 0;
}

export class RingWriter {
  readonly dmb: RemoteDmb;
  readonly lengthBytes: number;
  #produced: number;
  /** Of the next byte in the ring. */
  #offset = 0;

  /** @param produced what the cursor is before the first byte of this ring; not given: 0, in memory that is new */
  constructor(dmb: RemoteDmb, produced?: number) {
    this.dmb = dmb;
    this.lengthBytes = ringBytes(dmb.lengthBytes);
    this.#produced = produced ?? 0;
    if (produced !== undefined) dmb.storeWord(4 * RING_WORD.PRODUCED, produced);
  }

  /** Where what is written ends; the reader may have been told of less. */
  get produced(): number {
    return this.#produced;
  }

  /**
   * Copies bytes into the ring, to be published. Returns how many: at most `room`.
   * @param from where in the chunk to begin
   */
  put(chunk: Uint8Array, from: number, room: number): number {
    const length = Math.min(chunk.length - from, room);
    if (length <= 0) return 0;
    const untilEnd = Math.min(length, this.lengthBytes - this.#offset);
    const whole = from === 0 && untilEnd === chunk.length;
    this.dmb.move(RING_HEAD_BYTES + this.#offset, whole ? chunk : chunk.subarray(from, from + untilEnd));
    if (untilEnd < length) this.dmb.move(RING_HEAD_BYTES, chunk.subarray(from + untilEnd, from + length));
    this.step(length);
    return length;
  }

  /** Where the next bytes go, to be written in place; null where that is not in one piece, or the memory is not mapped. */
  reserve(lengthBytes: number, room: number): Buffer | null {
    const { bytes } = this.dmb;
    if (bytes === null || lengthBytes > Math.min(room, this.lengthBytes - this.#offset)) return null;
    return bytes.subarray(RING_HEAD_BYTES + this.#offset, RING_HEAD_BYTES + this.#offset + lengthBytes);
  }

  /** The next bytes are written in place. */
  step(lengthBytes: number): void {
    this.#offset = (this.#offset + lengthBytes) % this.lengthBytes;
    this.#produced = (this.#produced + lengthBytes) | 0;
  }

  /** The reader sees what is written, all of it at once. */
  publish(): void {
    this.dmb.storeWord(4 * RING_WORD.PRODUCED, this.#produced); // after the bytes
  }
}

export class RingReader {
  readonly dmb: Dmb;
  readonly lengthBytes: number;
  readonly #view: DataView;
  /** Of the next byte in the ring. */
  #offset = 0;

  constructor(dmb: Dmb) {
    this.dmb = dmb;
    this.#view = new DataView(dmb.bytes.buffer, dmb.bytes.byteOffset, dmb.lengthBytes);
    this.lengthBytes = ringBytes(dmb.lengthBytes);
  }

  /** The writer's cursor as it stands there, to be checked. */
  get produced(): number {
    return Atomics.load(this.dmb.words, RING_WORD.PRODUCED);
  }

  /** How many bytes there are at most in one piece. */
  get untilEnd(): number {
    return this.lengthBytes - this.#offset;
  }

  /** Copies the next bytes, at most `untilEnd`, and steps over them. */
  copy(target: Uint8Array, at: number, lengthBytes: number): void {
    const from = RING_HEAD_BYTES + this.#offset;
    this.dmb.bytes.copy(target, at, from, from + lengthBytes);
    this.skip(lengthBytes);
  }

  /** As `copy`, to the beginning of the target, for few bytes. */
  copyShort(target: Uint8Array, lengthBytes: number): void {
    const view = this.#view;
    const from = RING_HEAD_BYTES + this.#offset;
    let i = 0;
    for (; i + 4 <= lengthBytes; i += 4) {
      const word = view.getInt32(from + i, true);
      target[i] = word;
      target[i + 1] = word >> 8;
      target[i + 2] = word >> 16;
      target[i + 3] = word >> 24;
    }
    for (; i < lengthBytes; i++) target[i] = view.getUint8(from + i);
    this.skip(lengthBytes);
  }

  /** The next bytes where they stand, at most `untilEnd`, and steps over them: the writer must not be told before they are done with. */
  view(lengthBytes: number): Buffer {
    const bytes = this.peek(lengthBytes);
    this.skip(lengthBytes);
    return bytes;
  }

  /** As `view`, without stepping. */
  peek(lengthBytes: number): Buffer {
    const from = RING_HEAD_BYTES + this.#offset;
    return this.dmb.bytes.subarray(from, from + lengthBytes);
  }

  skip(lengthBytes: number): void {
    this.#offset = (this.#offset + lengthBytes) % this.lengthBytes;
  }
}
