/** `npm run torture -- --minutes N`: rounds of programs that are killed and stopped while they talk, until time is up. */
import { parseArgs } from 'node:util';
import { cannotMove } from '../integration/commands.ts';
import { describeRound, KINDS, type Kind, planRound } from './plan.ts';
import { Log } from './report.ts';
import { playRound } from './round.ts';

const HELP = `Usage: npm run torture -- [--minutes N] [--seed S] [--only KIND] [--resume] [--plain]

Has 24 programs talk to each other in many ways at once, kills and stops them and the fabric, and looks at every byte. Goes on, in
rounds of about a minute, for N minutes (default: 3). Round by round the seed goes up by one from S, or from a random one.

  --only     all programs are of one kind: ${Object.keys(KINDS).join(', ')}
  --resume   goes on with an earlier run, until it has lasted N minutes in all
  --plain    the same without Isthmus: what fails here is no fault of it

Failures are printed as they are found, with the plan of the round and the command that repeats it, and are kept with the counts in
.torture/. The exit code is 1 if there were any.
`;

function optionsOf() {
  try {
    return parseArgs({
      options: {
        minutes: { type: 'string', default: '3' },
        seed: { type: 'string' },
        only: { type: 'string' },
        resume: { type: 'boolean', default: false },
        plain: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${HELP}`);
    process.exit(2);
  }
}

const { help, minutes, seed, only, resume, plain } = optionsOf();
const limitMs = Number(minutes) * 60_000;
const first = seed === undefined ? Math.floor(Math.random() * 2 ** 30) : Number(seed);
const kind = (only ?? null) as Kind | null;
if (help || !(limitMs > 0) || !Number.isSafeInteger(first) || (kind !== null && !(kind in KINDS))) {
  process.stdout.write(HELP);
  process.exit(help ? 0 : 2);
}
const cause = cannotMove();
if (cause !== false && !plain) {
  process.stderr.write(`nothing can move here: ${cause}\n`);
  process.exit(2);
}

const more = `${only === undefined ? '' : ` --only ${only}`}${plain ? ' --plain' : ''}`;
const log = new Log(first, more, resume);
while (log.state.playedMs < limitMs) {
  const round = planRound(log.state.nextSeed, kind);
  log.begin(describeRound(round));
  const failed = (fault: string) => log.failed(fault);
  await playRound(round, { isPlain: plain, counts: log.state.counts, failed });
  log.end();
}
process.exitCode = log.summary() ? 0 : 1;
