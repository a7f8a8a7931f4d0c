/**
 * The sending half of a connection: whether our bytes go on TCP or into the peer's ring, and the way into the ring.
 *
 * Installing the own writer, taking the number of TCP bytes and publishing the cut are one synchronous step: `cut` is called with
 * that number, and from its return on every byte goes through `write`.
 */
import { fence, type RemoteDmb } from '../ism/index.ts';
import { PeerFault } from './errors.ts';
import { SENDER, type SenderAction, type SenderEvent, type SenderState } from './handover/sender.ts';
import { cursorDistance, FLAG, HEAD_BYTES, ringBytes, WORD } from './head.ts';
import type { OutboundHalf } from './layout.ts';
import { step } from './table.ts';
import type { Words } from './words.ts';

export class Outbound implements OutboundHalf {
  readonly #peer: RemoteDmb;
  readonly #words: Words;
  readonly #ringBytes: number;
  #state: SenderState = 'TCP';
  /** The epoch that is on offer or in use; in state TCP the last one that was. */
  #epoch = 0;
  #wasCut = false;
  #cutAt = 0;
  #produced = 0;
  #consumed = 0;
  #offset = 0;
  #flags = 0;
  #ringTotal = 0;

  /**
   * @param peer the peer's DMB, where our bytes go
   * @param words of both ends
   */
  constructor(peer: RemoteDmb, words: Words) {
    this.#peer = peer;
    this.#words = words;
    this.#ringBytes = ringBytes(peer.lengthBytes);
  }

  get state(): SenderState {
    return this.#state;
  }

  /** Whether bytes go through `write`. */
  get isMoved(): boolean {
    return this.#state === 'MOVED';
  }

  /** Bytes in the peer's ring that the peer has not taken, as far as it said. */
  get unconsumed(): number {
    return cursorDistance(this.#consumed, this.#produced);
  }

  /** Bytes that went through the ring. */
  get ringTotal(): number {
    return this.#ringTotal;
  }

  /** Whether the receiver honours a cut now. */
  get mayCut(): boolean {
    return this.#state === 'OFFERED';
  }

  get wasOffered(): boolean {
    return this.#epoch > 0;
  }

  /** Reads the peer's words. Throws PeerFault when they break a rule. */
  look(): void {
    if (!this.#words.isValid) return;
    // RETRACT is stored after READY: read in this order, READY of that epoch is never missed.
    const retract = this.#words.load(WORD.RETRACT);
    this.#lookAtReady();
    if (retract === this.#epoch && (this.#state === 'OFFERED' || this.#state === 'MOVED')) this.#step('retract');
    this.lookAtRing();
  }

  #lookAtReady(): void {
    const ready = this.#words.load(WORD.READY);
    if (ready === this.#epoch) return;
    if (ready !== ((this.#epoch + 1) | 0)) throw new PeerFault(`READY of epoch ${ready} after ${this.#epoch}`);
    if (this.#wasCut && this.#words.load(WORD.DONE) !== this.#epoch)
      throw new PeerFault(`READY of epoch ${ready} before DONE`);
    this.#step('ready');
    this.#epoch = ready;
    this.#wasCut = false;
  }

  /** Reads the peer's cursor: all there is to read while it tells no news. */
  lookAtRing(): void {
    const consumed = this.#words.load(WORD.CONSUMED);
    if (cursorDistance(this.#consumed, consumed) > this.unconsumed) {
      throw new PeerFault(`${consumed} consumed of ${this.#produced} bytes`);
    }
    this.#consumed = consumed;
  }

  /** @param tcpBytesWritten bytes given to TCP since the connection began, those that still wait in this process included */
  cut(tcpBytesWritten: number): void {
    this.#cutAt = tcpBytesWritten;
    this.#step('cut');
  }

  /** The way back to TCP, to be called before the first byte there. */
  back(): void {
    this.#step('back');
  }

  /** Our end of stream, to be called before the FIN, after the last write. */
  end(): void {
    this.#step('end');
  }

  /**
   * Puts bytes into the ring, as many as there is room for, and tells the peer. Returns how many.
   * When it is not all, the peer will signal once there is room.
   */
  write(chunk: Uint8Array, from = 0): number {
    let written = this.#put(chunk, from);
    if (from + written < chunk.length) {
      // Say that we wait, then look again: the peer either sees the flag or we see its cursor.
      this.#setFlags(this.#flags | FLAG.WRITE_BLOCKED);
      fence();
      this.lookAtRing();
      written += this.#put(chunk, from + written);
    }
    if (from + written === chunk.length) this.#setFlags(this.#flags & ~FLAG.WRITE_BLOCKED);
    if (written > 0) this.#peer.signal();
    return written;
  }

  #put(chunk: Uint8Array, from: number): number {
    if (chunk.length - from > this.#ringBytes - this.unconsumed) this.lookAtRing();
    const length = Math.min(chunk.length - from, this.#ringBytes - this.unconsumed);
    if (length <= 0) return 0;
    const untilEnd = Math.min(length, this.#ringBytes - this.#offset);
    const whole = from === 0 && untilEnd === chunk.length;
    this.#peer.move(HEAD_BYTES + this.#offset, whole ? chunk : chunk.subarray(from, from + untilEnd));
    if (untilEnd < length) this.#peer.move(HEAD_BYTES, chunk.subarray(from + untilEnd, from + length));
    this.#publish(length);
    return length;
  }

  #publish(length: number): void {
    this.#offset = (this.#offset + length) % this.#ringBytes;
    this.#produced = (this.#produced + length) | 0;
    this.#ringTotal += length;
    this.#words.store(WORD.PRODUCED, this.#produced); // after the bytes
  }

  reserve(lengthBytes: number): Buffer | null {
    const { bytes } = this.#peer;
    if (bytes === null || !this.isMoved) return null;
    this.lookAtRing();
    if (lengthBytes > Math.min(this.#ringBytes - this.unconsumed, this.#ringBytes - this.#offset)) return null;
    return bytes.subarray(HEAD_BYTES + this.#offset, HEAD_BYTES + this.#offset + lengthBytes);
  }

  commit(lengthBytes: number): void {
    this.#publish(lengthBytes);
    this.#peer.signal();
  }

  /** Sets flags of the connection's state, beside those that stand. */
  raise(flags: number): void {
    this.#setFlags(this.#flags | flags);
    this.#words.tellNews();
  }

  #setFlags(flags: number): void {
    if (flags === this.#flags) return;
    this.#flags = flags;
    this.#words.store(WORD.FLAGS, flags);
  }

  #step(event: SenderEvent): void {
    const { next, actions } = step(SENDER, this.#state, event);
    this.#state = next;
    for (const action of actions) this.#act(action);
  }

  #act(action: SenderAction): void {
    switch (action) {
      case 'publishCut':
        this.#wasCut = true;
        this.#words.store(WORD.CUT_AT_LOW, this.#cutAt | 0);
        this.#words.store(WORD.CUT_AT_HIGH, Math.floor(this.#cutAt / 2 ** 32));
        this.#words.store(WORD.CUT, this.#epoch);
        break;
      case 'publishBack':
        this.#words.store(WORD.BACK_AT, this.#produced);
        this.#words.store(WORD.BACK, this.#epoch);
        break;
      case 'publishNever':
        this.#words.store(WORD.NEVER, this.#epoch);
        break;
      default:
        action satisfies never;
    }
    this.#words.tellNews();
  }
}
