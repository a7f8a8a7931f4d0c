/**
 * How long a partition may spin over all: as long as it may take to be woken, for each look that has found something, and a part of the
 * time besides. Who spins for a message every 0.2 ms does so half of the time then, and not all of it.
 */

/** What a message that is found has saved both ends, when it is dear: a doorbell, and to be woken by it. */
const FOUND_WORTH_MS = 0.1;
/** Of all time, so much may be spun besides. */
const SHARE = 1 / 4;
/** So much can be saved for later. */
const MOST_SAVED_MS = 1;
/** So much has to be, once all was spent: a wait that is broken off has brought nothing. */
const ENOUGH_SAVED_MS = 0.5;
/** A longer time was not spun: the CPU was away. */
const LONGEST_MS = 0.5;

export class SpinAllowance {
  #savedMs = 0;
  #savedAt = 0;
  #isSpent = false;

  /** Whether there is something left of it. @param now in milliseconds */
  isLeft(now: number): boolean {
    this.#save((now - this.#savedAt) * SHARE);
    this.#savedAt = now;
    this.#isSpent = this.#savedMs < (this.#isSpent ? ENOUGH_SAVED_MS : 0);
    return !this.#isSpent;
  }

  spent(ms: number): void {
    this.#save(-Math.min(ms, LONGEST_MS));
  }

  /** Once for each look that has found something. */
  found(): void {
    this.#save(FOUND_WORTH_MS);
  }

  #save(ms: number): void {
    this.#savedMs = Math.min(this.#savedMs + ms, MOST_SAVED_MS);
  }
}
