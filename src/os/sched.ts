import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { declare } from './ffi.ts';

const sched_yield = declare('sched_yield', 'i32', []);
const sched_getcpu = declare('sched_getcpu', 'i32', []);

/** Lets another process run on this CPU, if one wants to. */
export function yieldCpu(): void {
  sched_yield();
}

/** The CPU this thread runs on right now. */
export function currentCpu(): number {
  return Number(sched_getcpu());
}

/** How many CPUs' worth of time this process may use: affinity, limited by the cgroup's quota. */
export function availableCpus(): number {
  return Math.min(availableParallelism(), cgroupCpus());
}

function cgroupCpus(): number {
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
