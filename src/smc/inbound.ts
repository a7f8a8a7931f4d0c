/**
 * The receiving half of a connection: one stream of bytes, taken from TCP and from our ring, in the order they were sent.
 *
 * What TCP brings is pushed in (`tcpBytes`, `tcpEnd`), what the ring holds is pulled out (`take`). While `isNative` the caller
 * hands chunks of TCP straight on; otherwise it takes. Whatever comes from TCP makes us read the peer's words first: they were
 * stored before.
 */
import { cursorDistance, type Dmb, fence, RingReader } from '../ism/index.ts';
import { chunkOf } from './chunk.ts';
import { PeerFault } from './errors.ts';
import { RECEIVER, type ReceiverAction, type ReceiverEvent, type ReceiverState } from './handover/receiver.ts';
import { FLAG, WORD } from './head.ts';
import type { InboundHalf, Loan } from './layout.ts';
import { step } from './table.ts';
import type { Words } from './words.ts';

const PIECE_BYTES = 16 * 1024;

/** What becomes of rings. */
export interface RingListener {
  /** The writer was found waiting for room, and got some. */
  blocked(): void;
  /** The sender cannot use the ring that it was offered. */
  refused(dmb: Dmb): void;
  /** Everything that was in this ring is taken, and the sender goes on in another one. */
  left(dmb: Dmb): void;
}

const NOBODY: RingListener = { blocked() {}, refused() {}, left() {} };

/** A ring that the sender left. */
interface Ended {
  readonly ring: RingReader;
  /** The sender's cursor, then. */
  readonly end: number;
}

/** Of a ring. */
interface Run {
  readonly length: number;
  isLent: boolean;
}

export class Inbound implements InboundHalf {
  readonly #words: Words;
  listener: RingListener = NOBODY;
  /** Where the sender writes. */
  #ring: RingReader;
  /** Those in which it wrote before and that are not empty yet, oldest first: we read there. */
  #before: Ended[] = [];
  /** Of which something is still lent. */
  #left: Ended[] = [];
  /** Bytes that the rings can hold, as the sender counts. */
  #most: number;
  /** Offered to the sender, which has not answered. */
  #offered: RingReader | null = null;
  /** Rings that were offered beside the first. */
  #rings = 0;
  #state: ReceiverState = 'TCP';
  #epoch = 0;
  /** Bytes of TCP delivered since the connection began. */
  #tcpBytes: number;
  /** Bytes of TCP after which the ring begins; only while CATCHUP. */
  #cutAt = 0;
  /** PRODUCED at BACK; only while DRAIN. */
  #backAt = 0;
  /** Seen of the peer's PRODUCED, and taken, and said to have been taken: all modulo 2^32. */
  #produced = 0;
  #consumed = 0;
  #published = 0;
  #held: Buffer[] = [];
  #heldBytes = 0;
  #ringTotal = 0;
  /** What was taken and is not the peer's yet, oldest first: it is lent, or stands behind something that is. */
  readonly #runs: Run[] = [];
  #runsBytes = 0;
  /** A cursor was published, and not looked since whether the writer waits for it. */
  #mayBlock = false;

  /**
   * @param dmb ours, where the peer writes
   * @param words of both ends
   * @param tcpBytes bytes of TCP delivered so far, since the connection began
   */
  constructor(dmb: Dmb, words: Words, tcpBytes: number) {
    this.#ring = new RingReader(dmb);
    this.#words = words;
    this.#most = this.#ring.lengthBytes;
    this.#tcpBytes = tcpBytes;
  }

  get state(): ReceiverState {
    return this.#state;
  }

  get #isDraining(): boolean {
    return this.#state === 'DRAIN' || this.#state === 'DRAINREST';
  }

  /** Whether the next byte is in the ring. */
  get isFromRing(): boolean {
    return this.#isDraining || this.#state === 'MOVED' || this.#state === 'REST';
  }

  /** Whether chunks of TCP are handed on as they come. */
  get isNative(): boolean {
    return !this.isFromRing && this.#state !== 'CLOSED' && this.#heldBytes === 0;
  }

  /** The end of TCP says it. */
  get isEndSaid(): boolean {
    return false;
  }

  /** Whether TCP has ended while the peer, which has not come back to it, waited for room in our ring. */
  get isCutShort(): boolean {
    return this.#state === 'REST' && (this.#words.load(WORD.FLAGS) & FLAG.WRITE_BLOCKED) !== 0;
  }

  /** Whether we are bound: from READY on we cannot walk away. */
  get isBound(): boolean {
    return this.#state !== 'TCP' && this.#state !== 'CLOSED';
  }

  /** Whether bytes of TCP wait behind the ring: nothing more of it is to be read then. */
  get holdsTcp(): boolean {
    return this.#heldBytes > 0;
  }

  /** Bytes that came through the ring. */
  get ringTotal(): number {
    return this.#ringTotal;
  }

  /** Bytes in the ring and held, as far as they were seen. */
  get unread(): number {
    return this.#ringUnread + this.#heldBytes;
  }

  /** Offers the next epoch to the sender. */
  arm(): void {
    if (this.#state === 'TCP' && this.#heldBytes === 0) this.#step('arm');
  }

  /** Asks the sender to come back, or to forget the offer. */
  retract(): void {
    this.look();
    this.#step('retract');
  }

  /** Reads the peer's words. Throws PeerFault when they break a rule. */
  look(): void {
    if (!this.#words.isValid) return;
    if (this.#state === 'READY' || this.#state === 'RETRACTING') {
      if (this.#words.load(WORD.CUT) === this.#epoch) this.#cut();
      else if (this.#words.load(WORD.NEVER) === this.#epoch) this.#step('never');
    }
    if (this.#state === 'MOVED' && this.#words.load(WORD.BACK) === this.#epoch) {
      this.#step('back');
      this.#backAt = this.#words.load(WORD.BACK_AT);
    }
    this.#lookAtRings();
    this.lookAtRing();
  }

  #lookAtRings(): void {
    const offered = this.#offered;
    if (offered === null) return;
    if (this.#words.load(WORD.RING_UNFIT) === this.#rings) {
      this.#offered = null;
      this.listener.refused(offered.dmb);
    } else if (this.#words.load(WORD.RING_USED) === this.#rings) {
      this.#produced = this.#seenOf(this.#ring); // nothing more goes there
      this.#before.push({ ring: this.#ring, end: this.#produced });
      this.#offered = null;
      this.#ring = offered;
      this.#most = Math.max(this.#most, offered.lengthBytes);
      this.#leaveEmpty();
    }
  }

  #leaveEmpty(): void {
    for (let [first] = this.#before; first?.end === this.#consumed; [first] = this.#before) {
      this.#before.shift();
      this.#left.push(first);
    }
    this.#freeLeft();
  }

  /** Nobody reads a ring that was left, once nothing of it is lent any more. */
  #freeLeft(): void {
    for (let [first] = this.#left; first && ((this.#free - first.end) | 0) >= 0; [first] = this.#left) {
      this.#left.shift();
      this.listener.left(first.ring.dmb);
    }
    // What is lent of a longer ring is more than fits into this one.
    if (this.#before.length + this.#left.length === 0) this.#most = this.#ring.lengthBytes;
  }

  /** Whether the sender may be offered a ring: one at a time. */
  get mayOfferRing(): boolean {
    return this.#words.isValid && this.#offered === null;
  }

  /** Whether there is nothing in rings that was not given back to the sender. */
  get isEmpty(): boolean {
    return this.#ringUnread === 0 && this.#runsBytes === 0;
  }

  /** Offers the sender a ring to go on in. Its DMB is ours again when the listener says so, or when the connection is over. */
  offerRing(dmb: Dmb): void {
    this.#offered = new RingReader(dmb);
    this.#rings = (this.#rings + 1) | 0;
    this.#words.store(WORD.RING_TOKEN_LOW, Number(BigInt.asIntN(32, dmb.token)));
    this.#words.store(WORD.RING_TOKEN_HIGH, Number(BigInt.asIntN(32, dmb.token >> 32n)));
    this.#words.store(WORD.RING, this.#rings);
    this.#words.tellNews();
  }

  /** The DMB of the ring where the sender writes. */
  get ringDmb(): Dmb {
    return this.#ring.dmb;
  }

  /** Reads the peer's cursor: all there is to read while it tells no news. */
  lookAtRing(): void {
    // Only of a ring in use: a cut that is published while we look was not seen before, but its bytes might be.
    if (this.isFromRing || this.#state === 'CATCHUP') this.#lookAtProduced();
    if (this.#isDraining) this.#drained();
  }

  #cut(): void {
    const at = (this.#words.load(WORD.CUT_AT_LOW) >>> 0) + (this.#words.load(WORD.CUT_AT_HIGH) >>> 0) * 2 ** 32;
    if (at < this.#tcpBytes) throw new PeerFault(`cut at ${at} after ${this.#tcpBytes} bytes of TCP`);
    this.#cutAt = at;
    this.#step(at === this.#tcpBytes ? 'reached' : 'cut');
  }

  #lookAtProduced(): void {
    this.#produced = this.#seenOf(this.#ring);
  }

  /** PRODUCED of a ring, checked. */
  #seenOf({ produced }: RingReader): number {
    const unread = cursorDistance(this.#consumed, produced);
    if (unread > this.#most - this.#runsBytes || unread < this.#ringUnread) {
      throw new PeerFault(`${unread} bytes produced in a ring of ${this.#most}`);
    }
    return produced;
  }

  #drained(): void {
    const left = cursorDistance(this.#consumed, this.#backAt);
    if (left !== this.#ringUnread) throw new PeerFault(`BACK ${left} bytes ahead with ${this.#ringUnread} in the ring`);
    if (left === 0) this.#step('drained');
  }

  /**
   * A chunk that TCP brought. Gives the part to be handed on now, or null: the rest is held for `take`.
   * Throws PeerFault for a byte that has no business on TCP.
   */
  tcpBytes(chunk: Buffer): Buffer | null {
    this.look();
    if (this.isNative) {
      const untilCut = this.#state === 'CATCHUP' ? this.#cutAt - this.#tcpBytes : Number.POSITIVE_INFINITY;
      const now = chunk.length <= untilCut ? chunk : chunk.subarray(0, untilCut);
      this.#tcpBytes += now.length;
      if (now.length === untilCut) {
        this.#step('reached');
        this.look();
      }
      if (now.length < chunk.length) this.#hold(chunk.subarray(now.length));
      return now.length > 0 ? now : null;
    }
    this.#hold(chunk);
    return null;
  }

  #hold(chunk: Buffer): void {
    this.#step('byte');
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
  }

  /** Copies what is held: the caller is going to use its buffer again. */
  ownHeld(): void {
    this.#held = this.#held.map((chunk) => Buffer.from(chunk));
  }

  /** The sender said by other means that it will never cut. */
  neverCut(): void {
    this.look();
    if (this.#state === 'READY' || this.#state === 'RETRACTING') this.#step('never');
  }

  /** TCP has ended, by FIN or by error. What was promised is read first; afterwards only `take` gives bytes. */
  tcpEnd(): void {
    this.look();
    this.#step('end');
  }

  /** Whether `take` would give something. */
  get canTake(): boolean {
    return this.isFromRing ? this.#ringUnread > 0 : this.#heldBytes > 0;
  }

  get #ringUnread(): number {
    return cursorDistance(this.#consumed, this.#produced);
  }

  take(max: number, into: Uint8Array | null = null): Buffer | null {
    if (!this.isFromRing) return this.#heldBytes > 0 ? this.#takeHeld(max) : null;
    const length = Math.min(max, this.#ready);
    return length > 0 ? this.#takeFromRing(length, into) : null;
  }

  /** Bytes in the ring that we read, as far as they were seen. */
  get #ready(): number {
    if (this.#before.length === 0) return this.#ringUnread;
    return cursorDistance(this.#consumed, (this.#before[0] as Ended).end);
  }

  get #readersRing(): RingReader {
    return this.#before.length === 0 ? this.#ring : (this.#before[0] as Ended).ring;
  }

  #takeHeld(max: number): Buffer | null {
    const [first] = this.#held;
    if (first === undefined) return null;
    const now = first.length <= max ? first : first.subarray(0, max);
    if (first.length <= max) this.#held.shift();
    else this.#held[0] = first.subarray(max);
    this.#heldBytes -= now.length;
    this.#tcpBytes += now.length;
    return now;
  }

  #takeFromRing(length: number, into: Uint8Array | null): Buffer {
    const bytes = chunkOf(length, into);
    const ring = this.#readersRing;
    for (let done = 0; done < length; ) {
      // A piece at a time: a writer that waits fills the room of one while the next is copied.
      const piece = Math.min(Math.min(length - done, PIECE_BYTES), ring.untilEnd);
      ring.copy(bytes, done, piece);
      done += piece;
      if (this.#runsBytes > 0) this.#addRun(piece, false);
      this.#passed(piece);
    }
    return bytes;
  }

  #passed(length: number): void {
    this.#consumed = (this.#consumed + length) | 0;
    this.#ringTotal += length;
    this.#publishConsumed();
    if (this.#before.length > 0) this.#leaveEmpty();
    if (this.#isDraining) this.#drained();
  }

  get canLend(): boolean {
    return this.isFromRing && this.#ringUnread > 0;
  }

  lend(max: number): Loan | null {
    if (!this.canLend) return null;
    const ring = this.#readersRing;
    const length = Math.min(max, this.#ready, ring.untilEnd);
    const bytes = ring.view(length);
    const run = this.#addRun(length, true);
    this.#passed(length);
    this.taken(); // what was taken before may have been said just now
    return {
      bytes,
      giveBack: () => {
        run.isLent = false;
        this.#freeRuns();
      },
    };
  }

  #addRun(length: number, isLent: boolean): Run {
    const run = { length, isLent };
    this.#runs.push(run);
    this.#runsBytes += length;
    return run;
  }

  /** The cursor goes as far as the oldest that is lent. */
  #freeRuns(): void {
    for (let [first] = this.#runs; first?.isLent === false; [first] = this.#runs) {
      this.#runs.shift();
      this.#runsBytes -= first.length;
    }
    this.#publishConsumed();
    if (this.#left.length > 0) this.#freeLeft();
    this.taken();
  }

  get isFullOfLoans(): boolean {
    return this.#runsBytes > 0 && this.#hasNoRoom;
  }

  get isFull(): boolean {
    return this.#hasNoRoom && (this.#words.load(WORD.FLAGS) & FLAG.WRITE_BLOCKED) !== 0;
  }

  /** What a writer that waits for room has besides, as it said then; 0 if it did not. */
  get waitingBytes(): number {
    return this.#words.load(WORD.WAITING) >>> 0;
  }

  /** As far as it was seen. */
  get #hasNoRoom(): boolean {
    return cursorDistance(this.#published, this.#produced) >= this.#ring.lengthBytes;
  }

  /** How far the peer may be told that bytes were taken. */
  get #free(): number {
    return (this.#consumed - this.#runsBytes) | 0;
  }

  /** Not for every read: when the ring runs empty, and each quarter of it. A writer that has no room is woken. */
  #publishConsumed(): void {
    const consumed = this.#free;
    if (cursorDistance(this.#published, consumed) < (this.#ringUnread > 0 ? this.#ring.lengthBytes / 4 : 1)) return;
    this.#published = consumed;
    this.#words.store(WORD.CONSUMED, consumed);
    this.#mayBlock = true;
    this.#wakeBlocked();
  }

  #wakeBlocked(): void {
    if ((this.#words.load(WORD.FLAGS) & FLAG.WRITE_BLOCKED) === 0) return;
    this.#mayBlock = false;
    this.#words.signal();
    this.listener.blocked();
  }

  /**
   * To be called after `take`, once what was taken is handed on: a writer that ran out of room meanwhile either saw our cursor or
   * is seen here.
   */
  taken(): void {
    if (!this.#mayBlock) return;
    this.#mayBlock = false;
    fence();
    this.#wakeBlocked();
  }

  #step(event: ReceiverEvent): void {
    const { next, actions } = step(RECEIVER, this.#state, event);
    this.#state = next;
    for (const action of actions) this.#act(action);
  }

  #act(action: ReceiverAction): void {
    switch (action) {
      case 'publishReady':
        this.#epoch = (this.#epoch + 1) | 0;
        this.#words.store(WORD.READY, this.#epoch);
        break;
      case 'publishRetract':
        this.#words.store(WORD.RETRACT, this.#epoch);
        break;
      case 'publishDone':
        this.#words.store(WORD.DONE, this.#epoch);
        break;
      default:
        action satisfies never;
    }
    this.#words.tellNews();
  }
}
