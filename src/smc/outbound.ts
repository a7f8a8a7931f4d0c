/**
 * The sending half of a connection: whether our bytes go on TCP or into the peer's ring, and the way into the ring.
 *
 * Installing the own writer, taking the number of TCP bytes and publishing the cut are one synchronous step: `cut` is called with
 * that number, and from its return on every byte goes through `write`.
 */
import { cursorDistance, fence, parseToken, type RemoteDmb, RingWriter, type Token } from '../ism/index.ts';
import { PeerFault } from './errors.ts';
import { SENDER, type SenderAction, type SenderEvent, type SenderState } from './handover/sender.ts';
import { FLAG, WORD } from './head.ts';
import { type OutboundHalf, TOLD_BYTES } from './layout.ts';
import { step } from './table.ts';
import type { Words } from './words.ts';

/** As much as a program gets at once. */
const PIECE_BYTES = 64 * 1024;
/** As many as a word can say. */
const MOST_WAITING = 2 ** 31 - 1;

export class Outbound implements OutboundHalf {
  readonly #peer: RemoteDmb;
  readonly #words: Words;
  #ring: RingWriter;
  #state: SenderState = 'TCP';
  /** The epoch that is on offer or in use; in state TCP the last one that was. */
  #epoch = 0;
  #wasCut = false;
  #cutAt = 0;
  #consumed = 0;
  #flags = 0;
  #ringTotal = 0;
  /** In the ring, and the peer was not told. None but in the course of a write. */
  #untoldBytes = 0;
  /** Rings that were offered beside the first, and of them those that were answered. */
  #rings = 0;
  #answeredRings = 0;
  /** Reserved and not committed: places in the ring that is in use. */
  #reservations = 0;
  /** Where to go on once there are none. */
  #next: { readonly dmb: RemoteDmb; readonly changed: () => void } | null = null;

  /**
   * @param peer the peer's DMB, where our bytes go
   * @param words of both ends
   */
  constructor(peer: RemoteDmb, words: Words) {
    this.#peer = peer;
    this.#words = words;
    this.#ring = new RingWriter(peer);
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
    return cursorDistance(this.#consumed, this.#ring.produced);
  }

  /** None while a longer ring still has more to be taken than a shorter one, in use since, could hold. */
  get #room(): number {
    return Math.max(0, this.#ring.lengthBytes - this.unconsumed);
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
    this.#lookAtRings();
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

  #lookAtRings(): void {
    const rings = this.#words.load(WORD.RING);
    if (rings === this.#rings) return;
    if (this.#answeredRings !== this.#rings || rings !== ((this.#rings + 1) | 0))
      throw new PeerFault(`RING ${rings} after ${this.#rings}`);
    this.#rings = rings;
  }

  /** The ring that is offered and not answered; null if there is none. To be answered once, by `goOnIn` or `cannotUse`. */
  get offeredRing(): Token | null {
    if (this.#answeredRings === this.#rings || this.#next !== null) return null;
    const [low, high] = [this.#words.load(WORD.RING_TOKEN_LOW), this.#words.load(WORD.RING_TOKEN_HIGH)];
    return parseToken((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0));
  }

  /** The DMB whose ring is in use. */
  get ringDmb(): RemoteDmb {
    return this.#ring.dmb;
  }

  /**
   * The next byte goes into the ring of the DMB that was offered: at once, or when nothing is reserved any more.
   * @param changed is called then
   */
  goOnIn(dmb: RemoteDmb, changed: () => void): void {
    this.#next = { dmb, changed };
    this.#changeRing();
  }

  #changeRing(): void {
    const next = this.#next;
    if (next === null || this.#reservations > 0) return;
    this.#next = null;
    this.#tell();
    this.#ring = new RingWriter(next.dmb, this.#ring.produced);
    this.#answerRing(WORD.RING_USED);
    next.changed();
  }

  cannotUse(): void {
    this.#answerRing(WORD.RING_UNFIT);
  }

  #answerRing(word: typeof WORD.RING_USED | typeof WORD.RING_UNFIT): void {
    this.#answeredRings = this.#rings;
    this.#words.store(word, this.#rings);
    this.#words.tellNews();
  }

  /** Reads the peer's cursor: all there is to read while it tells no news. */
  lookAtRing(): void {
    const consumed = this.#words.load(WORD.CONSUMED);
    if (cursorDistance(this.#consumed, consumed) > this.unconsumed) {
      throw new PeerFault(`${consumed} consumed of ${this.#ring.produced} bytes`);
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
   * @param behind bytes that are written next, in the same call from the event loop: the peer may be told of all together
   */
  write(chunk: Uint8Array, from = 0, behind = 0): number {
    let at = this.#put(chunk, from, PIECE_BYTES);
    if (behind > 0 && at === chunk.length && this.#untoldBytes < TOLD_BYTES) return at - from;
    const wasBlocked = (this.#flags & FLAG.WRITE_BLOCKED) !== 0;
    if (at < chunk.length) {
      this.#words.store(WORD.WAITING, Math.min(chunk.length - at + behind, MOST_WAITING));
      // Say that we wait, then look again: the peer either sees the flag or we see its cursor.
      this.#setFlags(this.#flags | FLAG.WRITE_BLOCKED);
      fence();
      this.lookAtRing();
      at = this.#put(chunk, at, chunk.length);
    }
    // Only now: a peer that takes what came before we have said that we wait would not know that its ring is short.
    const hasNews = this.#publish();
    if (at >= chunk.length) this.#setFlags(this.#flags & ~FLAG.WRITE_BLOCKED);
    // A ring can have been full before: a peer that does not read is to know that somebody waits.
    if (hasNews || (at < chunk.length && !wasBlocked)) this.#peer.signal();
    return at - from;
  }

  /**
   * As many as there is room for now, however fast the peer makes more. After each piece but the last the peer is told: it takes one
   * while we write the next. Returns where to go on.
   */
  #put(chunk: Uint8Array, from: number, pieceBytes: number): number {
    if (chunk.length - from > this.#room) this.lookAtRing();
    const end = Math.min(chunk.length, from + this.#room);
    for (let at = from; ; this.#tell()) {
      const length = this.#ring.put(chunk, at, Math.min(end - at, pieceBytes));
      this.#wrote(length);
      at += length;
      if (at >= end) return at;
    }
  }

  /** So many bytes are in the ring, and the peer is to be told. */
  #wrote(lengthBytes: number): void {
    this.#untoldBytes += lengthBytes;
    this.#ringTotal += lengthBytes;
  }

  #tell(): void {
    if (this.#publish()) this.#peer.signal();
  }

  /** Whether there was something. */
  #publish(): boolean {
    if (this.#untoldBytes === 0) return false;
    this.#untoldBytes = 0;
    this.#ring.publish();
    return true;
  }

  reserve(lengthBytes: number): Buffer | null {
    if (!this.isMoved) return null;
    this.lookAtRing();
    const bytes = this.#ring.reserve(lengthBytes, this.#room);
    if (bytes !== null) this.#reservations++;
    return bytes;
  }

  commit(lengthBytes: number): void {
    this.#reservations--;
    this.#ring.step(lengthBytes);
    this.#wrote(lengthBytes);
    this.#tell();
    this.#changeRing();
  }

  /** Sets flags of the connection's state, beside those that stand. */
  raise(flags: number): void {
    this.#tell();
    this.#setFlags(this.#flags | flags);
    this.#words.tellNews();
  }

  #setFlags(flags: number): void {
    if (flags === this.#flags) return;
    this.#flags = flags;
    this.#words.store(WORD.FLAGS, flags);
  }

  #step(event: SenderEvent): void {
    this.#tell();
    const { next, actions } = step(SENDER, this.#state, event);
    this.#state = next;
    for (const action of actions) this.#act(action);
  }

  #act(action: SenderAction): void {
    switch (action) {
      case 'publishCut':
        this.#setFlags(this.#flags & ~FLAG.WRITE_BLOCKED); // whoever waited has gone on by TCP
        this.#wasCut = true;
        this.#words.store(WORD.CUT_AT_LOW, this.#cutAt | 0);
        this.#words.store(WORD.CUT_AT_HIGH, Math.floor(this.#cutAt / 2 ** 32));
        this.#words.store(WORD.CUT, this.#epoch);
        break;
      case 'publishBack':
        this.#words.store(WORD.BACK_AT, this.#ring.produced);
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
