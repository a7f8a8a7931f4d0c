/**
 * Bytes for something in C++ that gets them from JavaScript, record by record. Above a TCP handle ticks and microtasks of the program run
 * after each event; between events of one call from JavaScript they do not, and a program that sets its next listener in one of them
 * (`for (;;) await once(socket, 'data')`) would miss what comes in between. So they are run between two records, in a turn of the event loop,
 * where they can be; else each record has a turn of its own.
 */
import { inNextTurn, runTicks } from '../os/event-loop.ts';
import type { Records } from './records.ts';

export interface Fed {
  /** False: there is nobody to take anything any more. */
  isOpen(): boolean;
  feed(part: Buffer): void;
  end(): void;
  /** All was fed, and more is wanted. */
  drained(): void;
}

export class Feeder {
  readonly #records: Records;
  readonly #fed: Fed;
  readonly #waiting: (Buffer | null)[] = [];
  /** What C++ has said last. */
  wants = false;

  constructor(records: Records, fed: Fed) {
    this.#records = records;
    this.#fed = fed;
  }

  /** Something waits to be fed. */
  get isBusy(): boolean {
    return this.#waiting.length > 0;
  }

  /**
   * A chunk, or null for the end. False: no more before `drained` was called.
   * @param moreIsAtHand the next one would come in this turn
   */
  take(chunk: Buffer | null, moreIsAtHand = false): boolean {
    const parts = chunk === null ? [null] : this.#records.split(chunk);
    if (!this.#fed.isOpen()) return false;
    const first = this.isBusy ? undefined : parts.shift();
    this.#waiting.push(...parts);
    if (first !== undefined) {
      // Before: a listener of the program may throw.
      if (this.isBusy) inNextTurn(this.#next);
      else if (moreIsAtHand) this.#drainedLater();
      this.#give(first);
    }
    return !this.isBusy && !moreIsAtHand;
  }

  /** What was fed last has put something into ticks, which comes before the next chunk. */
  #drainedLater(): void {
    inNextTurn(() => {
      if (this.wants && this.#fed.isOpen() && !this.isBusy) this.#fed.drained();
    });
  }

  #give(part: Buffer | null): void {
    if (part === null) this.#fed.end();
    else this.#fed.feed(part);
  }

  readonly #next = (): void => {
    try {
      do {
        const part = this.#waiting.shift();
        if (part === undefined || !this.#fed.isOpen()) {
          this.#waiting.length = 0;
          return;
        }
        this.#give(part);
        runTicks?.();
      } while (this.isBusy && runTicks !== null);
    } finally {
      // A listener of the program may have thrown.
      if (this.isBusy) inNextTurn(this.#next);
      else this.#drainedLater();
    }
  };
}
