import { declare } from './ffi.ts';

const sched_yield = declare('sched_yield', 'i32', []);
const sched_getcpu = declare('sched_getcpu', 'i32', []);
const sched_getaffinity = declare('sched_getaffinity', 'i32', ['i32', 'usize', 'ptr']);

/** Lets another process run on this CPU, if one wants to. */
export function yieldCpu(): void {
  sched_yield();
}

/** The CPU this thread runs on right now. */
export function currentCpu(): number {
  return Number(sched_getcpu());
}

/**
 * The CPUs this thread may run on, folded into 64 bits (CPU n is bit n modulo 64), as two words. All ones when the system does
 * not say.
 */
export function allowedCpus(): { readonly low: number; readonly high: number } {
  const mask = Buffer.alloc(128);
  if (sched_getaffinity(0, mask.length, mask) !== 0) return { low: -1, high: -1 };
  let low = 0;
  let high = 0;
  for (let at = 0; at < mask.length; at += 8) {
    low |= mask.readInt32LE(at);
    high |= mask.readInt32LE(at + 4);
  }
  return { low, high };
}
