/**
 * `npm run compat`: runs the programs of compat/ with and without Isthmus, by turns, compares their answers, and writes
 * docs/compatibility.md.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Interruption, Programs } from '../../src/cli/programs.ts';
import { ROOT } from '../integration/commands.ts';
import { exchange, judge, missingFor, reasonsOf, SUBJECTS, type Subject, versionOf } from './packages.ts';

const HELP = `Usage: npm run compat -- [options]

      --only NAME   one program of compat/programs/, and no document is written
      --quick       for a moment each, and no document is written
  -h, --help        this text

Exit code: 1 when answers were others than over plain TCP, or connections went another way than they should.
`;

/** Of these, some pass until both clients are there. */
const SECONDS = 20;
const QUICK_SECONDS = 5;
/** Of the slots that both have, for the compilers to be done: what moves runs more JavaScript, and takes longer to get there. */
const WARM_UP = 1 / 2;
const DOCUMENT = join(ROOT, 'docs/compatibility.md');

interface Row {
  readonly subject: Subject;
  readonly mode: string;
  /** How many times as fast as plain TCP, in slots beside each other. */
  readonly ratios: Quartiles;
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
  const load = loadavg()[0] ?? 0;
  const rows: Row[] = [];
  const failed: string[] = [];
  try {
    for (const subject of subjects) {
      try {
        const row = await rowOf(programs, subject, quick ? QUICK_SECONDS : SECONDS);
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
  else if (only === undefined && !quick) writeFileSync(DOCUMENT, documentOf(rows, load));
  return failed.length === 0 ? 0 : 1;
}

async function rowOf(programs: Programs, subject: Subject, seconds: number): Promise<Row> {
  const cpus = canPin() ? ([0, 1] as const) : null;
  const [plain, run] = await Promise.all([
    exchange(programs, subject, 'plain', seconds, { turn: 0, cpus }),
    exchange(programs, subject, 'run', seconds, { turn: 1, cpus }),
  ]);
  judge(subject, plain, run);
  const slots = Object.keys(plain.result.rates)
    .map(Number)
    .filter((slot) => slot + 1 in run.result.rates)
    .sort((a, b) => a - b);
  const measured = slots.slice(Math.ceil(slots.length * WARM_UP));
  const plainRates = measured.map((slot) => plain.result.rates[slot] ?? Number.NaN);
  return {
    subject,
    mode: subject.expects === 'TCP' ? `TCP ${reasonsOf(run)}` : 'SMC-D',
    ratios: quartiles(plainRates.map((rate, i) => (run.result.rates[(measured[i] ?? 0) + 1] ?? Number.NaN) / rate)),
    requestsPerSecond: quartiles(plainRates)[1],
  };
}

type Quartiles = readonly [number, number, number];

function quartiles(values: readonly number[]): Quartiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number) => sorted[Math.floor(sorted.length * part)] ?? Number.NaN;
  return [at(0.25), at(0.5), at(0.75)];
}

function canPin(): boolean {
  return availableParallelism() >= 2 && spawnSync('taskset', ['-c', '0,1', 'true']).status === 0;
}

function formatRatio({ ratios: [least, median, most] }: Row): string {
  return `${median.toFixed(2)} (${least.toFixed(2)} to ${most.toFixed(2)})`;
}

/** @param load what else ran: the average of a minute before */
function documentOf(rows: readonly Row[], load: number): string {
  const moved = rows.filter(({ subject }) => subject.expects === 'SMC-D').length;
  const lines = rows.map(({ subject, mode, ...row }) => [
    `\`${subject.name}\``,
    subject.packages.map((name) => `${name} ${versionOf(name)}`).join(', '),
    Math.round(row.requestsPerSecond).toLocaleString('en'),
    mode,
    formatRatio({ subject, mode, ...row }),
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

${new Date().toISOString().slice(0, 10)}, ${where}${canPin() ? ', server and client on a CPU of their own' : ''};
load of the machine by other programs before it began: ${load.toFixed(1)}. Anew: \`npm run compat\`.
It installs the packages into \`compat/\`, and takes about twelve minutes.

- Mode: as \`isthmus ss\` showed the connections while the programs ran. A name after TCP is the [reason](reasons.md) why they stayed there.
- Ratio: requests per second, under Isthmus by plain TCP. Both pairs of programs run at the same time and take turns of a second; the first
  ${(SECONDS * WARM_UP) / 2} s of each are warm-up. The ratio is that of two turns beside each other: median (quartiles). Four requests are
  under way at any time, mostly shorter than 1 KB, one in fifty of 100 KB. What the packages themselves do takes most of the time of many. Programs that stayed on TCP
  have a ratio too: how far it is from 1 is how much this measurement can be trusted. With a load above 1 it cannot be trusted much.

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
