/** `isthmus bench`: the benchmark in bench/. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { formatMarkdown, type Picture } from '../../bench/markdown.ts';
import { PLACEMENT_NAMES, type PlacementName } from '../../bench/placement.ts';
import { plotsOf } from '../../bench/plots.ts';
import { formatReport, type Report } from '../../bench/report.ts';
import { type BenchOptions, DEFAULT_ROUNDS, QUESTION_NAMES, runBench } from '../../bench/suite.ts';
import { type Command, EXIT_FAILED, EXIT_OK, UsageError } from './command.ts';

const HELP = `Usage: isthmus bench [options]

Compares plain TCP, Unix sockets and Isthmus in one run: all take each measurement one after the other, in a new
order each round, and ratios are made within a round. The short form, unless told otherwise: less than half a minute.

      --full               all questions, all places: about 40 minutes. Some need packages that this one does not bring
                           along (zeromq, ws), and say so where they are missing
      --only NAME[,NAME]   of ${wrapped(QUESTION_NAMES)}
      --place NAME[,NAME]  two: two processes pinned to two CPUs; one: both pinned to one; any: not pinned;
                           inside: both ends in one process
      --rounds N           default: ${DEFAULT_ROUNDS}; in the short form as many as there is time for
      --quick              with --only or --place: in short, in one place
      --json               everything, by round, as JSON
      --markdown FILE      writes a document, with what is not better in words
      --svg FOLDER         writes plots: round trip and throughput over length, round trip over open connections
      --from FILE          measures nothing: a report that --json has made
  -h, --help               this text

  rtt, stream, connect, http, ws    the sockets: round trips, streams, short connections, HTTP and fetch, WebSockets
  peers                             pipes, IPC, zeromq and MessagePort beside them, and what the machine could do at best
  sweep                             over the length of messages and writes
  scale                             ten connections that talk, among up to 10,000
  start, alone, short, idle, memory what it costs: programs that start, connections that do not move, open ones
  clc                               messages of the handshake

Variables of Isthmus (ISTHMUS_BUSY_POLL_US, ISTHMUS_DMB_BYTES ...) hold for what is measured of Isthmus.
Exit code 1 when something could not be measured; the report says why. 2 when called wrongly.
`;

const OPTIONS = {
  full: { type: 'boolean', default: false },
  only: { type: 'string', choices: QUESTION_NAMES },
  place: { type: 'string', choices: PLACEMENT_NAMES },
  rounds: { type: 'string' },
  quick: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  markdown: { type: 'string' },
  svg: { type: 'string' },
  from: { type: 'string' },
} as const;

export const bench: Command = {
  summary: 'measure it: TCP, Unix sockets and shared memory side by side',
  help: HELP,
  options: OPTIONS,
  takes: [],
  async main(args) {
    const { values } = parseArgs({ args: [...args], options: OPTIONS });
    const { json, markdown, svg, from } = values;
    try {
      // Before it takes its time.
      if (svg !== undefined) mkdirSync(svg, { recursive: true });
      if (markdown !== undefined) writeFileSync(markdown, '', { flag: 'a' });
    } catch (error) {
      throw new UsageError((error as Error).message);
    }
    const report = from === undefined ? await runBench(optionsOf(values)) : readReport(from);
    process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report));
    const pictures = svg === undefined ? [] : drawPlots(report, svg);
    if (markdown !== undefined) {
      const linked = pictures.map(({ title, path }) => ({ title, path: relative(dirname(markdown), path) }));
      writeFileSync(markdown, formatMarkdown(report, linked));
    }
    return report.gaps.length === 0 ? EXIT_OK : EXIT_FAILED;
  },
};

function readReport(file: string): Report {
  try {
    const report = JSON.parse(readFileSync(file, 'utf8')) as Report;
    if (!Array.isArray(report.comparisons)) throw new Error(`${file} is no report`);
    return report;
  } catch (error) {
    throw new UsageError(`--from: ${(error as Error).message}`);
  }
}

function drawPlots(report: Report, folder: string): Picture[] {
  return plotsOf(report).map(({ file, title, svg }) => {
    const path = join(folder, file);
    writeFileSync(path, svg);
    return { title, path };
  });
}

/** In lines of a text for help. */
function wrapped(names: readonly string[]): string {
  const half = Math.ceil(names.length / 2);
  return [names.slice(0, half), names.slice(half)].map((some) => some.join(', ')).join(`,\n${' '.repeat(27)}`);
}

interface Values {
  readonly full: boolean;
  readonly only?: string | undefined;
  readonly place?: string | undefined;
  readonly rounds?: string | undefined;
  readonly quick: boolean;
}

function optionsOf(values: Values): BenchOptions {
  const rounds = values.rounds === undefined ? null : Number(values.rounds);
  if (rounds !== null && (!Number.isSafeInteger(rounds) || rounds < 1))
    throw new UsageError('--rounds takes a number from 1 on');
  const only = listOf('--only', values.only, QUESTION_NAMES);
  const placements = listOf('--place', values.place, PLACEMENT_NAMES) as PlacementName[] | null;
  return {
    rounds,
    isQuick: values.quick || (!values.full && only === null && placements === null),
    only,
    placements,
    progress: (text) => process.stderr.write(`${text}\n`),
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
