/**
 * `npm run compat`: runs the programs of compat/ with and without Isthmus in interleaved rounds, compares their answers, and writes
 * docs/compatibility.md.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Interruption, Programs } from '../../src/cli/programs.ts';
import { ROOT } from '../integration/commands.ts';
import { exchange, judge, missingFor, reasonsOf, SUBJECTS, type Subject, versionOf } from './packages.ts';

const HELP = `Usage: npm run compat -- [options]

      --only NAME   one program of compat/programs/, and no document is written
      --quick       one short round, and no document is written
  -h, --help        this text

Exit code: 1 when answers were others than over plain TCP, or connections went another way than they should.
`;

const [ROUNDS, SECONDS] = [3, 2];
const QUICK_SECONDS = 1;
const DOCUMENT = join(ROOT, 'docs/compatibility.md');

interface Row {
  readonly subject: Subject;
  readonly mode: string;
  /** How many times as fast as plain TCP, of each round, sorted. */
  readonly ratios: readonly number[];
  /** Over plain TCP, the median. */
  readonly requestsPerSecond: number;
}

async function main(only: string | undefined, quick: boolean): Promise<number> {
  const subjects = SUBJECTS.filter(({ name }) => only === undefined || name === only);
  const missing = subjects.map(missingFor).find((one) => one !== null);
  if (subjects.length === 0 || missing !== undefined) {
    process.stderr.write(`${missing ?? `there is no program ${only}`}\n`);
    return 1;
  }
  const interruption = new Interruption();
  const programs = new Programs(() => {}, interruption.happens);
  const rows: Row[] = [];
  const failed: string[] = [];
  try {
    for (const subject of subjects) {
      try {
        const row = await rowOf(programs, subject, quick);
        rows.push(row);
        process.stdout.write(`${subject.name}: ${row.mode}, ${formatRatio(row)}\n`);
      } catch (error) {
        if (error === interruption) return 1;
        failed.push(subject.name);
        process.stdout.write(`${subject.name}: ${(error as Error).message}\n`);
      }
    }
  } finally {
    await programs.close();
    interruption.ignore();
  }
  if (failed.length > 0) process.stdout.write(`not as they should be: ${failed.join(', ')}\n`);
  else if (only === undefined && !quick) writeFileSync(DOCUMENT, documentOf(rows));
  return failed.length === 0 ? 0 : 1;
}

/** Rounds begin with plain TCP and with Isthmus by turns. */
async function rowOf(programs: Programs, subject: Subject, quick: boolean): Promise<Row> {
  const pinned = canPin() ? ([0, 1] as const) : null;
  const seconds = quick ? QUICK_SECONDS : SECONDS;
  const ratios: number[] = [];
  const rates: number[] = [];
  let mode = '';
  for (let round = 0; round < (quick ? 1 : ROUNDS); round++) {
    const go = (way: 'plain' | 'run') => exchange(programs, subject, way, seconds, pinned);
    const early = round % 2 === 0 ? await go('plain') : null;
    const run = await go('run');
    const plain = early ?? (await go('plain'));
    judge(subject, plain, run);
    ratios.push(run.result.requestsPerSecond / plain.result.requestsPerSecond);
    rates.push(plain.result.requestsPerSecond);
    mode = subject.expects === 'TCP' ? `TCP ${reasonsOf(run)}` : 'SMC-D';
  }
  return { subject, mode, ratios: ratios.sort(ascending), requestsPerSecond: median(rates.sort(ascending)) };
}

const ascending = (a: number, b: number) => a - b;
const median = (sorted: readonly number[]) => sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;

function canPin(): boolean {
  return availableParallelism() >= 2 && spawnSync('taskset', ['-c', '0,1', 'true']).status === 0;
}

function formatRatio({ ratios }: Row): string {
  const [least = 0, most = 0] = [ratios[0], ratios.at(-1)];
  return `${median(ratios).toFixed(2)} (${least.toFixed(2)} to ${most.toFixed(2)})`;
}

function documentOf(rows: readonly Row[]): string {
  const moved = rows.filter(({ subject }) => subject.expects === 'SMC-D').length;
  const lines = rows.map(({ subject, mode, ...row }) => [
    `\`${subject.name}\``,
    subject.packages.map((name) => `${name} ${versionOf(name)}`).join(', '),
    Math.round(row.requestsPerSecond).toLocaleString('en'),
    mode,
    subject.expects === 'SMC-D' ? formatRatio({ subject, mode, ...row }) : '',
    subject.remark ?? '',
  ]);
  const table = [
    ['program', 'packages', 'requests/s over TCP', 'mode', 'ratio', 'remarks'],
    Array(6).fill('---'),
    ...lines,
  ]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');
  const where = `${availableParallelism()} CPUs (${cpus()[0]?.model.trim() ?? 'unknown'}), Linux ${release()}, Node.js ${process.version}`;
  return `<!-- Written by npm run compat. -->
# Compatibility

Packages that know nothing of Isthmus, each in a server and a client of its own process, as a user of the package would write them:
the programs are in \`compat/programs\`. They ran as they are and under \`isthmus run\`, with nothing set. Every answer was the same
both ways, byte by byte; ${moved} of ${rows.length} programs moved to shared memory.

${new Date().toISOString().slice(0, 10)}, ${where}${canPin() ? ', server and client on a CPU of their own' : ''}. Anew: \`npm run compat\`.
It installs the packages into \`compat/\`, and takes about a quarter of an hour.

- Mode: as \`isthmus ss\` showed the connections while the programs ran. A name after TCP is the [reason](reasons.md) why they stayed there.
- Ratio: requests per second, under Isthmus by plain TCP, of ${ROUNDS} interleaved rounds: median (least to most). Four requests are under way
  at any time, mostly shorter than 1 KB, one in fifty of 100 KB. What the packages themselves take is most of the time of many.

${table}
`;
}

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h' },
  },
});
if (values.help) process.stdout.write(HELP);
else process.exitCode = await main(values.only, values.quick);
