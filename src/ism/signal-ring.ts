/**
 * How one partition tells another that there is something to look at, by memory alone.
 *
 * Each of the two has an **area** that the other one writes:
 *
 *     word  0      consumed   how many of our entries the peer has taken, modulo 2^32
 *     word  1      sleep mark of the peer: odd = it sleeps and must be woken
 *     word  2      the CPU the peer ran on when it last looked
 *     word  3      reserved, 0
 *     word  4, 5   the CPUs the peer may run on: CPU n is bit n modulo 64
 *     word  6..15  reserved, 0
 *     word 16..    entries of two words, entry n (from 0 on) at 16 + 2 * (n modulo capacity):
 *                  index | generation << 16, and behind it n + 1, modulo 2^32: by that it is new
 *
 * An entry is one store, which matters where a store is a system call. Its second word is never seen before its first.
 * A DMB stands in the ring at most once, so a ring with as many places as DMBs is never full, and one look finds all work
 * however many connections are idle. Everybody writes into the peer's area only and nobody clears what another wrote.
 */
import { IsmError } from './errors.ts';
import { fence, storeInOrder } from './order.ts';

const CONSUMED = 0;
const SLEEP_MARK = 1;
export const CPU = 2;
export const ALLOWED_CPUS = 4;
const FIRST_ENTRY = 16;

/** @param capacity entries, a power of two. */
export function signalAreaBytes(capacity: number): number {
  return 4 * (FIRST_ENTRY + 2 * capacity);
}

/** Stores into the peer's area, after everything stored before, each word whole. */
export interface StoreToArea {
  word(offset: number, value: number): void;
  /** Two words that stand side by side, aligned to 64 bits; the second is not seen before the first. */
  words(offset: number, first: number, second: number): void;
}

/** Into one that is mapped. */
export function storesInto(area: Int32Array): StoreToArea {
  const word = (offset: number, value: number) => storeInOrder(area, offset >> 2, value);
  return {
    word,
    words(offset, first, second) {
      word(offset, first);
      word(offset + 4, second);
    },
  };
}

function violation(what: string): IsmError {
  return new IsmError('ERR_ISTHMUS_PROTOCOL', 'peer', `signal ring: ${what}`);
}

export class SignalWriter {
  readonly #own: Int32Array;
  readonly #store: StoreToArea;
  readonly #capacity: number;
  /** Per DMB index: its last entry, and how many had been produced with it (not modulo: an index may be idle for 2^32 signals). */
  readonly #entry: Int32Array;
  readonly #position: Float64Array;
  #produced = 0;
  #rungFor = 0;

  constructor(own: Int32Array, store: StoreToArea, capacity: number) {
    this.#own = own;
    this.#store = store;
    this.#capacity = capacity;
    this.#entry = new Int32Array(capacity);
    this.#position = new Float64Array(capacity);
  }

  /**
   * To be called after what there is to see was stored. True when the peer sleeps and must be woken, which is said once per sleep.
   * Throws IsmError PROTOCOL when the peer's words make no sense.
   */
  signal(index: number, generation: number): boolean {
    const entry = index | (generation << 16);
    // It stands in the ring and was not taken: the reader will look at the DMB after this moment.
    let waiting = this.#waiting();
    if (this.#entry[index] === entry && this.#isAmong(waiting, index)) {
      fence(); // pairs with the reader's, before it looks at the DMB
      waiting = this.#waiting();
      if (this.#isAmong(waiting, index)) return false;
    }
    if (waiting === this.#capacity) throw violation('full');
    const place = FIRST_ENTRY + 2 * (this.#produced & (this.#capacity - 1));
    this.#produced++;
    this.#entry[index] = entry;
    this.#position[index] = this.#produced;
    this.#store.words(4 * place, entry, this.#produced | 0);
    return this.mustWake();
  }

  /** Entries that were not taken, as far as the reader has said. */
  #waiting(): number {
    const consumed = Atomics.load(this.#own, CONSUMED);
    const waiting = (this.#produced - consumed) >>> 0;
    if (waiting > this.#capacity) throw violation(`${consumed} consumed of ${this.#produced}`);
    return waiting;
  }

  /** Whether the last entry of a DMB is one of the newest so many. */
  #isAmong(newest: number, index: number): boolean {
    return (this.#position[index] ?? 0) > this.#produced - newest;
  }

  /** True once per sleep of the peer. Pairs with `SignalReader.sleep`: the mark is read after our last store. */
  mustWake(): boolean {
    fence();
    const mark = Atomics.load(this.#own, SLEEP_MARK);
    if ((mark & 1) === 0 || mark === this.#rungFor) return false;
    this.#rungFor = mark;
    return true;
  }
}

export class SignalReader {
  readonly #own: Int32Array;
  readonly #store: StoreToArea;
  readonly #capacity: number;
  readonly #taken: Int32Array;
  #consumed = 0;
  #mark = 0;

  constructor(own: Int32Array, store: StoreToArea, capacity: number) {
    this.#own = own;
    this.#store = store;
    this.#capacity = capacity;
    this.#taken = new Int32Array(capacity);
  }

  get isAsleep(): boolean {
    return (this.#mark & 1) === 1;
  }

  /** Whether there seems to be something to take: one load. */
  hasWork(): boolean {
    return Atomics.load(this.#own, this.#place(0) + 1) === this.#number(0);
  }

  /**
   * Takes all entries and hands them out; returns how many there were. Indices and generations are as the peer wrote them.
   * Throws IsmError PROTOCOL when the peer's words make no sense.
   */
  look(dispatch: (index: number, generation: number) => void): number {
    const count = this.#take();
    if (count === 0) return 0;
    this.#consumed = (this.#consumed + count) | 0;
    // Before the DMBs are looked at: a writer that comes later must see that it has to signal again.
    this.#store.word(4 * CONSUMED, this.#consumed);
    fence();
    for (let i = 0; i < count; i++) {
      const entry = this.#taken[i] ?? 0;
      dispatch(entry & 0xffff, entry >>> 16);
    }
    return count;
  }

  #take(): number {
    for (let count = 0; count < this.#capacity; count++) {
      const place = this.#place(count);
      const number = Atomics.load(this.#own, place + 1);
      if (number !== this.#number(count)) {
        // As the peer left it a round before, or never used.
        if (number !== ((this.#number(count) - this.#capacity) | 0) && number !== 0) throw violation(`entry ${number}`);
        return count;
      }
      this.#taken[count] = Atomics.load(this.#own, place);
    }
    return this.#capacity;
  }

  /** Of the entry that is so many behind the next one. */
  #place(behind: number): number {
    return FIRST_ENTRY + 2 * ((this.#consumed + behind) & (this.#capacity - 1));
  }

  #number(behind: number): number {
    return (this.#consumed + behind + 1) | 0;
  }

  /**
   * Says that we sleep, or sleep again after having been woken: a new odd value, for which we are rung once.
   * Look once more before really sleeping: what was written just before the mark is not rung for.
   */
  sleep(): void {
    this.#setMark(this.isAsleep ? 2 : 1);
  }

  wake(): void {
    if (this.isAsleep) this.#setMark(1);
  }

  #setMark(step: number): void {
    this.#mark = (this.#mark + step) | 0;
    this.#store.word(4 * SLEEP_MARK, this.#mark);
    fence(); // a writer that we do not see now sees the mark
  }
}
