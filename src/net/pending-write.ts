/** A write that the program has made and that is not all in the ring yet. */
import { AsyncResource } from 'node:async_hooks';
import { holdLoop, letLoopGo } from '../os/event-loop.ts';
import type { WriteCallback } from './internals.ts';

export class PendingWrite {
  readonly #bytes: readonly Uint8Array[];
  #index = 0;
  #offset = 0;
  #lengthBytes: number;
  #callback: WriteCallback;
  #holdsLoop = false;

  constructor(bytes: readonly Uint8Array[], callback: WriteCallback) {
    this.#bytes = bytes;
    this.#lengthBytes = bytes.reduce((sum, { length }) => sum + length, 0);
    this.#callback = callback;
  }

  get callback(): WriteCallback {
    return this.#callback;
  }

  /**
   * Gives away what is taken.
   * @param take takes bytes of the first from the second on, behind which so many follow as the third says, and says how many
   * @returns how many were taken
   */
  give(take: (bytes: Uint8Array, from: number, behind: number) => number): number {
    let given = 0;
    for (let bytes = this.#bytes[this.#index]; bytes !== undefined; bytes = this.#bytes[this.#index]) {
      // A program may have taken memory away that it has written: who takes the last is not to wait for more.
      const isLast = this.#index === this.#bytes.length - 1;
      const taken = take(bytes, this.#offset, isLast ? 0 : this.#lengthBytes - (bytes.length - this.#offset));
      given += taken;
      this.#lengthBytes -= taken;
      this.#offset += taken;
      if (this.#offset < bytes.length) break;
      this.#index++;
      this.#offset = 0;
    }
    return given;
  }

  get isDone(): boolean {
    return this.#bytes[this.#index] === undefined;
  }

  /** Of what was not given away. */
  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  /** What was not given away. */
  rest(): Uint8Array[] {
    const rest = this.#bytes.slice(this.#index);
    const [first] = rest;
    if (first !== undefined) rest[0] = first.subarray(this.#offset);
    return rest;
  }

  /** It has to wait for room. A write that waits keeps the program running, as one that waits for TCP does. To be followed by `end`. */
  wait(): void {
    // What makes room for the rest is not of the program: its callback belongs to the write, as on TCP.
    // Not by AsyncResource.bind, which takes Node.js 20 longer than the bytes.
    const context = new AsyncResource('ISTHMUS');
    const callback = this.#callback;
    this.#callback = (error) => context.runInAsyncScope(callback, undefined, error);
    this.#holdsLoop = true;
    holdLoop();
  }

  /** It waits no more. */
  end(): void {
    if (this.#holdsLoop) letLoopGo();
    this.#holdsLoop = false;
  }
}
