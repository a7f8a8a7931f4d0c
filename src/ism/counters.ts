/** One more. Counters are memory that others may read at any time, hence an array of numbers and not fields of an object. */
export function count(counters: Float64Array, index: number): void {
  counters[index] = (counters[index] ?? 0) + 1;
}
