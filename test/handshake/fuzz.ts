/** `npm run fuzz -- --minutes N`: the properties of handshakes and messages with random seeds, until time is up or one fails. */
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { PROPERTIES } from './properties.ts';

const HELP = `Usage: npm run fuzz -- [--minutes N] [--seed N [--path P] --only NAME]

Tries the properties of CLC messages and of handshakes between two ends with random values, one after the other, for N minutes
(default: 1). The first failure is printed with a seed and a path that repeat it, and the exit code is 1.
`;
const RUNS = 500;

function optionsOf() {
  try {
    return parseArgs({
      options: {
        minutes: { type: 'string', default: '1' },
        seed: { type: 'string' },
        path: { type: 'string' },
        only: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${HELP}`);
    process.exit(2);
  }
}

const values = optionsOf();
const minutes = Number(values.minutes);
const chosen = Object.entries(PROPERTIES).filter(([name]) => name.includes(values.only ?? ''));
if (values.help || !(minutes > 0) || chosen.length === 0) {
  process.stdout.write(HELP);
  process.exit(values.help ? 0 : 2);
}

const ends = Date.now() + minutes * 60_000;
const counts = new Map<string, number>();
do {
  for (const [name, property] of chosen) {
    const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
    const at = values.path === undefined ? {} : { path: values.path };
    const result = await fc.check(property(), { numRuns: RUNS, seed, ...at });
    counts.set(name, (counts.get(name) ?? 0) + result.numRuns);
    if (!result.failed) continue;
    const repeat = `npm run fuzz -- --only '${name}' --seed ${result.seed} --path ${result.counterexamplePath}`;
    process.stderr.write(`${name}\n${fc.defaultReportMessage(result)}\n\nTo repeat it: ${repeat}\n`);
    process.exit(1);
  }
} while (Date.now() < ends && values.seed === undefined);
for (const [name, count] of counts) process.stdout.write(`${count} runs: ${name}\n`);
