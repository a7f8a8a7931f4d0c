/** What does the preload cost the start of a program that loads `node:net`? Both ways by turns. */
import { spawnSync } from 'node:child_process';
import type { Finding, Inquiry } from './question.ts';
import { median } from './statistics.ts';
import { environmentOf, MAPPED, TCP } from './transports.ts';

const STARTS = 20;
/** One turn of the event loop, so that what is put off for it counts. */
const PROGRAM = `
  require('node:net');
  setImmediate(() => {
    const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
    process.stdout.write([(userCPUTime + systemCPUTime) / 1000, performance.now(), maxRSS / 1024].join(' '));
  });
`;
const FIGURES = [
  ['CPU', 'ms'],
  ['time', 'ms'],
  ['memory', 'MiB'],
] as const;

export const start: Inquiry = {
  name: 'start',
  title: 'start of a program',
  answer: async ({ folder }) => {
    const ways = [TCP, MAPPED].map((transport) => ({
      env: environmentOf(transport, folder),
      starts: [] as (readonly number[])[],
    }));
    for (let i = 0; i <= STARTS; i++) {
      for (const { env, starts } of ways) {
        const one = startWith(env);
        if (i > 0) starts.push(one); // the first reads files from the disk
      }
    }
    const [without = [], withIt = []] = ways.map(({ starts }) =>
      FIGURES.map((_, i) => median(starts.map((one) => one[i] ?? Number.NaN))),
    );
    return FIGURES.map(([name, unit], i): Finding => {
      const [base = Number.NaN, value = Number.NaN] = [without[i], withIt[i]];
      return {
        name: `more ${name}`,
        value: value - base,
        unit,
        detail: `${value.toFixed(1)} instead of ${base.toFixed(1)}; medians of ${STARTS} starts`,
      };
    });
  },
};

function startWith(env: NodeJS.ProcessEnv): readonly number[] {
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--eval', PROGRAM], { env, encoding: 'utf8' });
  if (status !== 0) throw new Error(`the program ended with ${status}: ${stderr.trim()}`);
  return stdout.split(' ').map(Number);
}
