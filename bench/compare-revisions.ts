/** `npm run bench:compare -- REV`: this checkout beside another revision, by turns. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { changesOf, FEWEST_RUNS, formatChanges } from './compare.ts';
import type { Report } from './report.ts';

const HELP = `Usage: npm run bench:compare -- REV [options]

Builds a revision of git in a folder of its own, with the packages of this checkout, and has it and this checkout measure
by turns: old, new, new, old and so on, each with the benchmark that it comes with. Says what got slower, or faster,
beyond the spread: in every run of one than in every run of the other.

      --only NAME[,NAME]   questions of isthmus bench (default: rtt,stream,connect,http); what costs something, such as
                           start or memory, can be asked too
      --place NAME[,NAME]  default: two
      --rounds N           runs of each (default: 6; 4 or more)
      --quick              shorter runs
  -h, --help               this text
`;

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const FILE = 'dist/src/cli/isthmus.cjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    only: { type: 'string', default: 'rtt,stream,connect,http' },
    place: { type: 'string', default: 'two' },
    rounds: { type: 'string', default: '6' },
    quick: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
const [revision, ...more] = positionals;
const rounds = Number(values.rounds);
if (values.help) {
  process.stdout.write(HELP);
} else if (revision === undefined || more.length > 0 || !Number.isSafeInteger(rounds) || rounds < FEWEST_RUNS) {
  process.stderr.write(`one revision, and ${FEWEST_RUNS} rounds or more: npm run bench:compare -- --help\n`);
  process.exitCode = 2;
} else {
  try {
    await compare(revision);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}

async function compare(revision: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'isthmus-compare-'));
  const tree = join(folder, 'tree');
  const remove = () => {
    spawnSync('git', ['worktree', 'remove', '--force', tree], { cwd: ROOT });
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', remove);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));
  progress(`building ${revision}`);
  must('git', ['worktree', 'add', '--detach', tree, revision], ROOT);
  for (const folder of ['', 'bench/packages']) {
    const [from, to] = [ROOT, tree].map((root) => join(root, folder, 'node_modules')) as [string, string];
    if (existsSync(from) && existsSync(join(tree, folder))) symlinkSync(from, to);
  }
  must(process.execPath, ['scripts/build.mjs'], tree);

  const sides = [
    { name: revision, root: tree, reports: [] as Report[] },
    { name: 'this checkout', root: ROOT, reports: [] as Report[] },
  ] as const;
  const [old, now] = sides;
  for (let round = 0; round < rounds; round++) {
    for (const { name, root, reports } of round % 2 === 0 ? [old, now] : [now, old]) {
      progress(`round ${round + 1} of ${rounds}: ${name}`);
      reports.push(await measure(root));
    }
  }
  process.stdout.write(
    `old: ${revision}; new: this checkout. Medians of ${rounds} runs each; in brackets the least and the most.\n\n`,
  );
  process.stdout.write(formatChanges(changesOf(old.reports, now.reports)));
  for (const { name, reports } of sides) {
    const gaps = new Set(reports.flatMap((report) => report.gaps));
    for (const gap of gaps) process.stdout.write(`not measured of ${name}: ${gap}\n`);
  }
}

function must(command: string, args: readonly string[], cwd: string): void {
  const { status, stderr, stdout, error } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `${stdout}${stderr}`.trim()}`);
}

/** One round. That some of it could not be measured stands in the report. */
function measure(root: string): Promise<Report> {
  const { only, place, quick } = values;
  const args = ['bench', '--json', '--rounds', '1', '--only', only, '--place', place, ...(quick ? ['--quick'] : [])];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(root, FILE), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
    child.on('error', reject);
    child.on('close', () => {
      try {
        resolve(JSON.parse(stdout) as Report);
      } catch {
        reject(new Error(`isthmus ${args.join(' ')} has made no report: ${stderr.trim()}`));
      }
    });
  });
}

function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}
