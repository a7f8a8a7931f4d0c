import { readFileSync } from 'node:fs';
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

/** How many CPUs' worth of time the cgroup of this process grants; Infinity without a quota. */
export function cgroupCpus(): number {
  try {
    const own = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/';
    let cpus = Number.POSITIVE_INFINITY;
    // A quota of any ancestor counts. In a container the path is often '/', which is the container's own group.
    for (let path = own; ; path = path.slice(0, path.lastIndexOf('/'))) {
      cpus = Math.min(cpus, quotaOf(`/sys/fs/cgroup${path}/cpu.max`));
      if (path === '' || path === '/') return cpus;
    }
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function quotaOf(file: string): number {
  try {
    const [quota, period] = readFileSync(file, 'utf8').trim().split(' ').map(Number);
    return quota !== undefined && period !== undefined && quota > 0 ? quota / period : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY; // no such controller, or 'max'
  }
}
