/** What the figures were taken on. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { version } from '../src/cli/command.ts';
import { versionOf } from './packages.ts';
import { timesOf } from './process-facts.ts';

export interface Machine {
  readonly cpu: string;
  readonly cpus: number;
  readonly isVirtual: boolean;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly node: string;
  /** Of what takes part, as far as it is installed. */
  readonly versions: Readonly<Record<string, string>>;
  /** Over the last minute, before and after. */
  readonly load: readonly [number, number];
  /** Time that the hypervisor gave to others, in percent of all CPU time of the run. */
  readonly stealPercent: number;
  /** Time that other programs had, in percent of all CPU time of the run. */
  readonly othersPercent: number;
  /** Variables of Isthmus that the user has set. */
  readonly settings: readonly string[];
}

/** More than that, and the figures are of the others too. */
const MOST_DISTURBANCE_PERCENT = 10;

/** Looks twice: now, and when what it returns is called. */
export function lookAtMachine(): () => Machine {
  const loadBefore = loadavg()[0] ?? 0;
  const timesBefore = cpuTimes();
  return () => {
    const times = cpuTimes();
    const all = Math.max(1, times.all - timesBefore.all);
    const percent = (what: 'steal' | 'others') => Math.max(0, (100 * (times[what] - timesBefore[what])) / all);
    return {
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      cpus: availableParallelism(),
      isVirtual: /^flags\s*:.*\bhypervisor\b/m.test(read('/proc/cpuinfo')),
      memoryGiB: Math.round(totalmem() / 2 ** 30),
      kernel: release(),
      node: process.version,
      versions: versions(),
      load: [loadBefore, loadavg()[0] ?? 0],
      stealPercent: percent('steal'),
      othersPercent: percent('others'),
      settings: Object.entries(process.env)
        .filter(([name]) => name.startsWith('ISTHMUS_'))
        .map(([name, value]) => `${name}=${value}`),
    };
  };
}

function versions(): Record<string, string> {
  const packages = ['koffi', 'zeromq', 'ws'].flatMap((name) => {
    const found = versionOf(name);
    return found === null ? [] : [[name, found] as const];
  });
  return { isthmus: version(), uv: process.versions.uv ?? '', ...Object.fromEntries(packages) };
}

/** In ticks. */
function cpuTimes(): { readonly all: number; readonly steal: number; readonly others: number } {
  const fields = (/^cpu +(.*)$/m.exec(read('/proc/stat'))?.[1] ?? '').split(' ').map(Number).slice(0, 8);
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = fields;
  const busy = user + nice + system + irq + softirq;
  return { all: busy + idle + iowait + steal, steal, others: busy - ownTicks() };
}

/** Of this process and of its children that have ended. */
function ownTicks(): number {
  return timesOf(read('/proc/self/stat')).reduce((sum, ticks) => sum + ticks, 0);
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

export function describeMachine({ cpu, cpus: count, isVirtual, memoryGiB, kernel, node, ...run }: Machine): string {
  const { load, stealPercent, othersPercent, settings } = run;
  const kind = isVirtual ? ', virtual machine' : '';
  const lines = [
    `${count} x ${cpu}${kind}, ${memoryGiB} GiB, Linux ${kernel}, Node.js ${node}`,
    `load ${load[0].toFixed(2)} before, ${load[1].toFixed(2)} after; of the CPU time ${othersPercent.toFixed(0)} % went to other programs, ${stealPercent.toFixed(1)} % was stolen`,
  ];
  if (othersPercent + stealPercent > MOST_DISTURBANCE_PERCENT)
    lines.push('The machine was not quiet: figures say little.');
  if (settings.length > 0) lines.push(settings.join(' '));
  return lines.join('\n');
}
