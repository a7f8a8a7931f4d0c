// Bytes whose values depend on their position: when one is lost, doubled or out of place, a comparison shows it.
import { randomBytes } from 'node:crypto';

const PERIOD = 1_048_573; // a prime: no buffer or packet repeats in step with it
const once = randomBytes(PERIOD);
const twice = Buffer.concat([once, once]);

/** The bytes at a position of an endless stream; at most PERIOD of them. */
export function patternAt(position, length) {
  const start = position % PERIOD;
  return twice.subarray(start, start + length);
}
