/** What the kernel says of a process. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface Effort {
  readonly cpuMs: number;
  /** Of all its threads. */
  readonly voluntarySwitches: number;
  readonly involuntarySwitches: number;
}

/** Unit of times in /proc/PID/stat; Linux shows the same on every architecture that Node.js runs on. */
const TICK_MS = 10;

export function effortOf(pid: number): Effort {
  const threads = readdirSync(`/proc/${pid}/task`);
  let [nanoseconds, voluntary, involuntary] = [0, 0, 0];
  let isFine = true;
  for (const thread of threads) {
    const folder = `/proc/${pid}/task/${thread}`;
    try {
      nanoseconds += Number(readFileSync(`${folder}/schedstat`, 'utf8').split(' ')[0]);
    } catch {
      isFine = false; // a kernel without CONFIG_SCHED_INFO
    }
    const status = readFileSync(`${folder}/status`, 'utf8');
    voluntary += Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)?.[1]);
    involuntary += Number(/^nonvoluntary_ctxt_switches:\s*(\d+)/m.exec(status)?.[1]);
  }
  return {
    cpuMs: isFine ? nanoseconds / 1e6 : ticksOf(pid) * TICK_MS,
    voluntarySwitches: voluntary,
    involuntarySwitches: involuntary,
  };
}

/** CPU time of all threads of some processes. */
export function cpuSecondsOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + effortOf(pid).cpuMs, 0) / 1000;
}

/** utime, stime, and both of children that have ended and were waited for: fields 14 to 17 of /proc/PID/stat, in ticks. */
export function timesOf(stat: string): readonly [utime: number, stime: number, cutime: number, cstime: number] {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [utime = 0, stime = 0, cutime = 0, cstime = 0] = fields.slice(11, 15).map(Number);
  return [utime, stime, cutime, cstime];
}

function ticksOf(pid: number): number {
  const [utime, stime] = timesOf(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  return utime + stime;
}

/** Proportional set size: a page that two processes map counts half in each. */
export function pssKiB(pid: number): number {
  return Number(/^Pss:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]);
}

/** What its descriptors are, without numbers that differ from one to the next. */
export function descriptorsOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).flatMap((fd) => {
    try {
      return [readlinkSync(`${folder}/${fd}`).replace(/\[\d+\]/, '')];
    } catch {
      return []; // the one this was read through
    }
  });
}

/** How many there are more than before, by what they are. */
export function moreDescriptors(before: readonly string[], after: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const one of after) counts.set(one, (counts.get(one) ?? 0) + 1);
  for (const one of before) counts.set(one, (counts.get(one) ?? 0) - 1);
  return [...counts].filter(([, count]) => count > 0).map(([what, count]) => `${count} x ${what}`);
}

/** How many connections a process may hold, with some descriptors to spare; programs of Node.js raise their limit by themselves. */
export function mostConnections(): number {
  try {
    const limit = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return limit === undefined || limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit) - 100;
  } catch {
    return Number.POSITIVE_INFINITY; // not Linux
  }
}
