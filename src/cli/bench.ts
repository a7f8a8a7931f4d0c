/** `isthmus bench`: the benchmark in bench/. */
import { parseArgs } from 'node:util';
import { PLACEMENT_NAMES, type PlacementName } from '../../bench/placement.ts';
import { formatReport } from '../../bench/report.ts';
import { type BenchOptions, QUESTION_NAMES, runBench } from '../../bench/suite.ts';
import { type Command, EXIT_FAILED, EXIT_OK, UsageError } from './command.ts';

const DEFAULT_ROUNDS = 3;

const HELP = `Usage: isthmus bench [options]

Compares plain TCP, Unix sockets and Isthmus in one run: all take each measurement one after the other, in a new
order each round, and ratios are made within a round. Takes about eight minutes.

      --only NAME[,NAME]   of ${QUESTION_NAMES.join(', ')}
      --place NAME[,NAME]  two: two processes pinned to two CPUs; one: both pinned to one; any: not pinned;
                           inside: both ends in one process
      --rounds N           default: ${DEFAULT_ROUNDS}
      --quick              some of it: less than half a minute
      --json               everything, by round, as JSON
  -h, --help               this text

Variables of Isthmus (ISTHMUS_BUSY_POLL_US, ISTHMUS_DMB_BYTES ...) hold for what is measured of Isthmus.
Exit code 1 when something could not be measured; the report says why. 2 when called wrongly.
`;

const OPTIONS = {
  only: { type: 'string', choices: QUESTION_NAMES },
  place: { type: 'string', choices: PLACEMENT_NAMES },
  rounds: { type: 'string', default: String(DEFAULT_ROUNDS) },
  quick: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
} as const;

export const bench: Command = {
  summary: 'measure it: TCP, Unix sockets and shared memory side by side',
  help: HELP,
  options: OPTIONS,
  takes: [],
  async main(args) {
    const { json, ...options } = optionsOf(args);
    const report = await runBench(options);
    process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report));
    return report.gaps.length === 0 ? EXIT_OK : EXIT_FAILED;
  },
};

function optionsOf(args: readonly string[]): BenchOptions & { readonly json: boolean } {
  const { values } = parseArgs({
    args: [...args],
    options: OPTIONS,
  });
  const rounds = Number(values.rounds);
  if (!Number.isSafeInteger(rounds) || rounds < 1) throw new UsageError('--rounds takes a number from 1 on');
  return {
    rounds,
    isQuick: values.quick,
    only: listOf('--only', values.only, QUESTION_NAMES),
    placements: listOf('--place', values.place, PLACEMENT_NAMES) as PlacementName[] | null,
    progress: (text) => process.stderr.write(`${text}\n`),
    json: values.json,
  };
}

/** Null = not given. */
function listOf(option: string, text: string | undefined, known: readonly string[]): string[] | null {
  if (text === undefined) return null;
  const names = text.split(',');
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new UsageError(`${option}: '${unknown}' is none of ${known.join(', ')}`);
  return names;
}
