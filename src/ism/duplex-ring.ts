/**
 * Bytes both ways between two programs or threads, without sockets: a ring in either one's DMB, for programs that want what the machine gives.
 *
 * Both ends register a DMB for the other and attach the other's; each makes a Ring of the two. The head of a DMB, all of it written by the
 * peer of its owner, little endian:
 *
 *     index of int32 | word     | means
 *     1              | PRODUCED | bytes that the peer has put into this DMB's ring, modulo 2^32
 *     2              | CONSUMED | bytes of ours that the peer has taken out of the ring in its own DMB, modulo 2^32
 *     3              | WANTED   | how often the peer has asked to be signalled when there is room in its own DMB
 *
 * The ring begins after RING_HEAD_BYTES. Nothing here waits or calls anybody back: a program looks again, spins, or returns to its event
 * loop, where its Client is told of signals (`handleSignal`).
 */
import type { Dmb, RemoteDmb } from './dmb.ts';
import { IsmError } from './errors.ts';
import { fence } from './order.ts';
import { cursorDistance, RING_HEAD_BYTES, RING_WORD, RingReader, RingWriter } from './ring.ts';

const WANTED = 3;
/** Between two looks at the clock, which costs as much as several of them. */
const LOOKS = 64;
/** Up to here copying in JavaScript takes less time than a call of what copies. */
const SHORT_BYTES = 128;

export class Ring {
  readonly #writer: RingWriter;
  readonly #reader: RingReader;
  readonly #words: Int32Array;
  readonly #remote: RemoteDmb;
  /** Of ours, as far as the peer has said. */
  #taken = 0;
  #reserved = 0;
  /** Of the peer's: seen, taken, and said to have been taken. */
  #seen = 0;
  #consumed = 0;
  #published = 0;
  /** Something was taken, and not looked since whether the peer waits for that. */
  #mayWait = false;
  /** How often we have asked for room; and of the peer's, what was answered. */
  #wanted = 0;
  #answered = 0;

  /**
   * @param dmb ours, registered for that peer and new: the peer writes there
   * @param remote the peer's, registered for us: we write there. Its length may be another
   *
   * Throws IsmError RANGE for a DMB that is too short for a ring.
   */
  constructor(dmb: Dmb, remote: RemoteDmb) {
    const lengthBytes = Math.min(dmb.lengthBytes, remote.lengthBytes);
    if (lengthBytes <= RING_HEAD_BYTES)
      throw outOfRange(`a ring needs more than ${RING_HEAD_BYTES} bytes`, lengthBytes);
    this.#writer = new RingWriter(remote);
    this.#reader = new RingReader(dmb);
    this.#words = dmb.words;
    this.#remote = remote;
  }

  // --- Writing ---

  /** How many bytes can be written now. Throws IsmError PROTOCOL when the peer says what cannot be. */
  get room(): number {
    const { produced, lengthBytes } = this.#writer;
    const taken = Atomics.load(this.#words, RING_WORD.CONSUMED);
    const untaken = cursorDistance(this.#taken, produced);
    if (cursorDistance(this.#taken, taken) > untaken) throw broken(`${taken} bytes taken of ${produced}`);
    this.#taken = taken;
    return lengthBytes - cursorDistance(taken, produced);
  }

  /**
   * Copies bytes into the peer's ring, where it can see them at once. Returns how many: as many as there is room for. Once the peer has gone
   * they go nowhere.
   * @param from where in `bytes` to begin
   */
  write(bytes: Uint8Array, from = 0): number {
    this.#checkNothingReserved();
    if (!isPart(from, bytes.length)) throw outOfRange(`there are ${bytes.length} bytes to write from`, from);
    let room = this.#writer.lengthBytes - cursorDistance(this.#taken, this.#writer.produced);
    if (room < bytes.length - from) room = this.room;
    this.#publishConsumed(); // beside our own cursor, in one cache line
    const written = this.#writer.put(bytes, from, room);
    if (written > 0) this.#writer.publish();
    return written;
  }

  /**
   * The peer's memory itself, for the next bytes: fill it, then `commit`. Null while there is not that much room in one piece (the ring ends
   * somewhere: `write` goes on at its beginning), and always where the device does not map (`remote.bytes` is null).
   */
  reserve(lengthBytes: number): Buffer | null {
    this.#checkNothingReserved();
    if (!isPart(lengthBytes, Number.MAX_SAFE_INTEGER)) throw outOfRange('bytes are reserved', lengthBytes);
    const bytes = this.#writer.reserve(lengthBytes, this.room);
    if (bytes !== null) this.#reserved = lengthBytes;
    return bytes;
  }

  /** The first so many of the bytes reserved are written. Throws IsmError RANGE for more than there are. */
  commit(lengthBytes: number): void {
    if (!isPart(lengthBytes, this.#reserved)) throw outOfRange(`${this.#reserved} bytes are reserved`, lengthBytes);
    this.#reserved = 0;
    if (lengthBytes === 0) return;
    this.#writer.step(lengthBytes);
    this.#writer.publish();
  }

  #checkNothingReserved(): void {
    if (this.#reserved > 0)
      throw outOfRange('nothing is written before the commit of what is reserved', this.#reserved);
  }

  /**
   * For a writer that is going to sleep: the peer is signalled, and signals us once, when it has made room. True: there is as much room by
   * now, and nothing to wait for.
   */
  askForRoom(lengthBytes = 1): boolean {
    this.#wanted = (this.#wanted + 1) | 0;
    this.#remote.storeWord(4 * WANTED, this.#wanted);
    fence(); // pairs with the one in #answer: the peer sees that we ask, or we see what it took
    if (this.room >= lengthBytes) return true;
    this.signal(); // it may have taken bytes and not said so
    return false;
  }

  // --- Reading ---

  /** How many bytes can be read now. Throws IsmError PROTOCOL when the peer says what cannot be. */
  get readable(): number {
    const { produced, lengthBytes } = this.#reader;
    const readable = cursorDistance(this.#consumed, produced);
    if (readable > lengthBytes || readable < cursorDistance(this.#consumed, this.#seen))
      throw broken(`${readable} bytes in a ring of ${lengthBytes}`);
    this.#seen = produced;
    if (readable === 0 && this.#mayWait) this.#answer();
    return readable;
  }

  /** Copies the next bytes out of the ring and makes room. Returns how many: as many as are there and go into the target. */
  read(into: Uint8Array): number {
    const length = Math.min(into.length, this.readable);
    const first = Math.min(length, this.#reader.untilEnd);
    if (length <= SHORT_BYTES && first === length) {
      this.#reader.copyShort(into, length);
    } else {
      this.#reader.copy(into, 0, first);
      if (first < length) this.#reader.copy(into, first, length - first);
    }
    this.#pass(length);
    return length;
  }

  /**
   * The next bytes where the peer has put them, in one piece; empty when there are none. The peer can change them at any time: copy first
   * what you check. They are yours until `advance`.
   */
  peek(): Buffer {
    return this.#reader.peek(Math.min(this.readable, this.#reader.untilEnd));
  }

  /** Steps over bytes and makes room. Throws IsmError RANGE for more than there are. */
  advance(lengthBytes: number): void {
    const { readable } = this;
    if (!isPart(lengthBytes, readable)) throw outOfRange(`${readable} bytes can be read`, lengthBytes);
    this.#reader.skip(lengthBytes);
    this.#pass(lengthBytes);
  }

  /** The peer is told with our next write, of each quarter, and when we find nothing more. */
  #pass(lengthBytes: number): void {
    if (lengthBytes === 0) return;
    this.#consumed = (this.#consumed + lengthBytes) | 0;
    this.#mayWait = true;
    if (cursorDistance(this.#published, this.#consumed) >= this.#reader.lengthBytes / 4) this.#answer();
  }

  #publishConsumed(): void {
    if (this.#published === this.#consumed) return;
    this.#published = this.#consumed;
    this.#remote.storeWord(4 * RING_WORD.CONSUMED, this.#consumed);
  }

  /** Signals a peer that waits for what we took. */
  #answer(): void {
    this.#publishConsumed();
    this.#mayWait = false;
    fence(); // pairs with the one in askForRoom
    const wanted = Atomics.load(this.#words, WANTED);
    if (wanted === this.#answered) return;
    this.#answered = wanted;
    this.signal();
  }

  // --- Waiting ---

  /** Has the peer's Client called, in its event loop, after all that was written. Not needed for a peer that spins. */
  signal(): void {
    this.#remote.signal();
  }

  /**
   * Looks for bytes again and again; the event loop stands still meanwhile. False: there are none after so many microseconds. Return to
   * the event loop now and then: only there it is learnt that the peer has gone.
   */
  spinForBytes(budgetUs: number): boolean {
    return spin(budgetUs, () => this.readable > 0);
  }

  /** As `spinForBytes`, for room. */
  spinForRoom(budgetUs: number, lengthBytes = 1): boolean {
    return spin(budgetUs, () => this.room >= lengthBytes);
  }
}

function spin(budgetUs: number, isThere: () => boolean): boolean {
  let end = 0;
  for (;;) {
    for (let looks = LOOKS; looks > 0; looks--) if (isThere()) return true;
    const now = performance.now();
    if (end === 0) end = now + budgetUs / 1000;
    else if (now >= end) return false;
  }
}

function isPart(lengthBytes: number, whole: number): boolean {
  return Number.isInteger(lengthBytes) && lengthBytes >= 0 && lengthBytes <= whole;
}

function outOfRange(rule: string, got: number): IsmError {
  return new IsmError('ERR_ISTHMUS_RANGE', 'local', `${rule}, not ${got}`);
}

function broken(what: string): IsmError {
  return new IsmError('ERR_ISTHMUS_PROTOCOL', 'peer', `ring: ${what}`);
}
