/**
 * Proof that two sockets are the two ends of one connection where names prove nothing, across network namespaces and address
 * translation: urgent bytes that are sent at the one are looked for at the other, in both directions.
 *
 * The stream of the programs stays as it is only if a second urgent byte never overtakes a first one that was not read past, which
 * would make data of the first. So none is sent before the one before it has arrived, and unless its reader has none before it, or
 * stands exactly at it. What an earlier challenge left under way counts as well.
 *
 * All that says nothing where the reader is another one. So none is sent either unless what the one has sent is what the other has
 * received, to the byte: a stranger is found out by that, before the first urgent byte or after it. A stranger that makes its counters
 * fit is not; but what is sent at it is never seen at the other, whose peer is honest. So the first in each direction, which alone harms
 * nobody, is the last until one of the opposite direction was seen.
 */

/** What is done with a socket that was shown. None of it waits; all of it throws when the connection has gone. */
export interface UrgentEnd {
  /** False when the kernel takes nothing now. */
  send(byte: number): boolean;
  peek(): number | 'coming' | 'none';
  isAtMark(): boolean;
  /** Bytes given to the kernel, and those of them that have arrived: with one for the SYN of a client. */
  given(): number;
  acknowledged(): number;
  /** Bytes that have come. */
  received(): number;
}

/**
 * 'refuted': they belong to two connections, or it has ended. 'unseen': all bytes arrived, but were not seen. 'later': now it cannot be
 * asked, as the reader is stopped or the buffers are full.
 */
export type Verdict = 'proven' | 'refuted' | 'unseen' | 'later';

/** One under way. */
export interface PendingChallenge {
  cancel(): void;
  /** Whether there may be a byte of ours in one of the streams that its reader has not read past. */
  readonly hasSent: boolean;
}

/** Bytes that arrive and are not seen: the program may have read past them. */
const MOST_LOST = 12;

/** One challenge: `step` does what can be done now. */
export class Challenge {
  readonly #directions: readonly [Direction, Direction];
  /** What each may have acknowledged that the other has not received: one of them is the client. */
  #syns: readonly (readonly [number, number])[] = [
    [0, 1],
    [1, 0],
  ];

  /**
   * @param rounds bytes that have to be seen, in each direction
   * @param random a byte
   */
  constructor(one: UrgentEnd, other: UrgentEnd, rounds: number, random: () => number) {
    this.#directions = [new Direction(one, other, rounds, random), new Direction(other, one, rounds, random)];
  }

  /** Null: to be asked again in a moment. */
  step(): 'proven' | 'refuted' | 'unseen' | null {
    const fits = () => this.#fits();
    if (!fits()) return 'refuted';
    // Both: bytes of the one acknowledge those of the other.
    const [there, back] = this.#directions;
    const states = [there.step(fits, back.hasSeen), back.step(fits, there.hasSeen)];
    for (const state of ['refuted', 'unseen'] as const) if (states.includes(state)) return state;
    if (there.hasLostFirst && back.hasLostFirst) return 'unseen';
    return states.every((state) => state === 'proven') ? 'proven' : null;
  }

  /** Whether each may have sent what the other has received. What is known then of the SYN remains so. */
  #fits(): boolean {
    const [there, back] = this.#directions.map((direction) => direction.gap()) as [Gap, Gap];
    this.#syns = this.#syns.filter(([one, other]) => isWithin(one, there) && isWithin(other, back));
    return this.#syns.length > 0;
  }

  get hasSent(): boolean {
    return this.#directions.some(({ hasSent }) => hasSent);
  }
}

/** By how much the counter of the one may be ahead of the counter of the other. */
interface Gap {
  readonly least: number;
  readonly most: number;
}

function isWithin(count: number, { least, most }: Gap): boolean {
  return least <= count && count <= most;
}

class Direction {
  readonly #from: UrgentEnd;
  readonly #to: UrgentEnd;
  readonly #rounds: number;
  readonly #random: () => number;
  #seen = 0;
  #lost = 0;
  /** The byte under way. */
  #expected: number | null = null;
  /**
   * What has to have arrived before the next one: to begin with, all that somebody before us may have sent. Infinity: more than is known
   * yet, since the counters did not stand still.
   */
  #position: number;
  hasSent = false;

  constructor(from: UrgentEnd, to: UrgentEnd, rounds: number, random: () => number) {
    this.#from = from;
    this.#to = to;
    this.#rounds = rounds;
    this.#random = random;
    this.#position = from.given();
  }

  /** Asked in this order since the counters go on meanwhile. */
  gap(): Gap {
    const acknowledged = this.#from.acknowledged();
    const received = this.#to.received();
    return { least: acknowledged - received, most: this.#from.given() - received };
  }

  get hasSeen(): boolean {
    return this.#seen > 0;
  }

  get hasLostFirst(): boolean {
    return this.#lost > 0 && this.#seen === 0;
  }

  /** @param isSafe one of the opposite direction was seen */
  step(fits: () => boolean, isSafe: boolean): 'proven' | 'refuted' | 'unseen' | null {
    while (this.#seen < this.#rounds) {
      if (this.#expected === null) {
        if (this.hasSent && !isSafe) return null;
        if (!fits()) return 'refuted';
        if (this.#lost > MOST_LOST) return 'unseen';
        if (!this.#send()) return null;
      } else if (!this.#look()) {
        return null;
      }
    }
    return 'proven';
  }

  /** False when none can be sent now. */
  #send(): boolean {
    if (this.#from.acknowledged() < this.#position) return false;
    const standing = this.#to.peek();
    if (standing !== 'none' && !this.#to.isAtMark()) return false;
    let byte = this.#random();
    if (byte === standing) byte ^= 0xff; // or the old one would pass for it
    if (!this.#from.send(byte)) return false;
    this.hasSent = true;
    this.#position = Number.POSITIVE_INFINITY;
    this.#expected = byte;
    return true;
  }

  /** False when it is still under way. */
  #look(): boolean {
    if (this.#position === Number.POSITIVE_INFINITY) this.#position = this.#from.given();
    // Asked for first: what has arrived then is seen below, if it is there.
    const hasArrived = this.#from.acknowledged() >= this.#position;
    const there = this.#to.peek();
    if (there === this.#expected) this.#seen++;
    else if (!hasArrived || there === 'coming') return false;
    else this.#lost++;
    this.#expected = null;
    return true;
  }
}
