/** Durations of a window, and what is said of them. */
import { quantile } from '../statistics.ts';

/** In microseconds. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
  readonly count: number;
}

export interface RoundTrips extends Latency {
  /** Of both ends. */
  readonly cpuSeconds: number;
}

/** Kept without allocation: the first million of them, all are counted. */
export class Times {
  readonly #values = new Float64Array(1 << 20);
  #count = 0;

  add(value: number): void {
    if (this.#count < this.#values.length) this.#values[this.#count] = value;
    this.#count++;
  }

  latency(): Latency {
    const sorted = this.#values.subarray(0, this.#count).sort();
    return { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), count: this.#count };
  }
}
