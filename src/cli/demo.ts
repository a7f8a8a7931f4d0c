/** `isthmus demo`: programs that know nothing of Isthmus, first as they are, then with their connections in shared memory. */
import { existsSync } from 'node:fs';
import { availableParallelism, constants } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { CurrentPolicy } from '../net/current-policy.ts';
import type { ConnectionInfo } from '../net/info.ts';
import type { Reason } from '../smc/reasons.ts';
import { type Command, EXIT_FAILED, EXIT_OK, fail, formatTable, version } from './command.ts';
import { Interruption, movedOf, type Pair, type Program, ProgramError, Programs, type Way } from './programs.ts';
import { REGISTER } from './run.ts';
import { formatConnections } from './ss.ts';

const HELP = `Usage: isthmus demo [--quick] [--json]

Runs an echo server and an HTTP server with a client each, plain programs in examples/: first as they are, over TCP,
then under isthmus run. Shows their connections as isthmus ss does, and how fast they were both times. The clients
compare every byte.

      --quick   measure for a moment only
      --json    the result as JSON, nothing else
  -h, --help    this text

Exit code: 0 when the programs worked both times and all bytes were right, whether or not connections could move here;
else 1.
`;

const SECONDS = 2;
const QUICK_SECONDS = 1;
/** Warming up and ending, on top of what was asked for. */
const CLIENT_MS = 30_000;

const EXAMPLES = fileURLToPath(new URL('../../../examples/', import.meta.url));

const OPTIONS = { quick: { type: 'boolean' }, json: { type: 'boolean' } } as const;

export const demo: Command = {
  summary: 'show it: plain programs over TCP, then in shared memory',
  help: HELP,
  options: OPTIONS,
  takes: [],
  async main(args) {
    const { values } = parseArgs({
      args: [...args],
      options: OPTIONS,
    });
    const { json = false, quick = false } = values;
    const say = (text: string) => {
      if (!json) process.stdout.write(text);
    };
    const interruption = new Interruption();
    const programs = new Programs((way, { command }) => say(`  $ ${shown(way, command)}\n`), interruption.happens);
    try {
      const outcome = await show(programs, quick ? QUICK_SECONDS : SECONDS, say);
      if (json) process.stdout.write(`${JSON.stringify(outcome, null, 2)}\n`);
      return EXIT_OK;
    } catch (error) {
      if (error === interruption) return 128 + constants.signals[interruption.signal];
      if (!(error instanceof ProgramError)) throw error;
      return fail(error.message, EXIT_FAILED);
    } finally {
      await programs.close();
      interruption.ignore();
    }
  },
};

/** What echo-client.mjs --json prints; times in microseconds. */
interface EchoResult {
  readonly bytes: number;
  readonly p50: number;
  readonly p99: number;
  readonly bytesPerSecond: number;
}

/** What http-client.mjs --json prints. */
interface HttpResult {
  readonly bytes: number;
  readonly requests: number;
  readonly requestsPerSecond: number;
}

interface Half {
  readonly echo: EchoResult;
  readonly http: HttpResult;
  readonly connections: readonly ConnectionInfo[];
}

interface Failure {
  /** What could not be done, in words. */
  readonly step: string;
  readonly reason: Reason;
  /** What the system said, where it said something. */
  readonly detail: string;
}

interface Outcome {
  readonly tcp: Half;
  readonly isthmus: Half;
  /** All ends of all connections of the second half were in shared memory. */
  readonly moved: boolean;
  /** Why not. */
  readonly failures: readonly Failure[];
}

async function show(programs: Programs, seconds: number, say: (text: string) => void): Promise<Outcome> {
  if (!existsSync(EXAMPLES)) throw new ProgramError('the folder examples/ is missing');
  say(`${machine()}\n\nAs they are\n`);
  const tcp = await half(programs, 'plain', seconds, say);
  say('\nThe same programs with Isthmus\n');
  const isthmus = await half(programs, 'run', seconds, say);
  const moved = isthmus.connections.length > 0 && movedOf(isthmus.connections) === isthmus.connections.length;
  const failures = moved ? [] : await whatFailed(isthmus.connections);
  say(`\nTheir connections, as isthmus ss showed them\n`);
  say(
    isthmus.connections.length === 0
      ? '  none: Isthmus could not work in the programs\n'
      : indent(formatConnections(isthmus.connections)),
  );
  say(`\n${formatComparison(tcp, isthmus, movedOf(isthmus.connections) > 0)}`);
  const compared = [tcp.echo, tcp.http, isthmus.echo, isthmus.http].reduce((sum, { bytes }) => sum + bytes, 0);
  say(
    `\nEvery byte that came back was compared with what was sent: ${compared.toLocaleString('en')} bytes, all right.\n`,
  );
  say(moved ? 'All connections of the second half went through shared memory.\n' : formatFailures(failures, isthmus));
  return { tcp, isthmus, moved, failures };
}

async function half(programs: Programs, way: Way, seconds: number, say: (text: string) => void): Promise<Half> {
  const echo = await programs.exchange<EchoResult>(pairOf('echo', seconds), way);
  say(`    ${echo.result.bytes.toLocaleString('en')} bytes came back, all right\n`);
  const http = await programs.exchange<HttpResult>(pairOf('http', seconds), way);
  say(`    ${http.result.requests.toLocaleString('en')} answers, all right\n`);
  return { echo: echo.result, http: http.result, connections: [...echo.connections, ...http.connections] };
}

function pairOf(name: 'echo' | 'http', seconds: number): Pair {
  const program = (end: 'server' | 'client', ...args: string[]): Program => {
    const file = `${name}-${end}.mjs`;
    return { name: file, command: [process.execPath, join(EXAMPLES, file), ...args] };
  };
  return {
    server: program('server'),
    client: (port) => program('client', port, '--seconds', String(seconds), '--json'),
    limitMs: 2000 * seconds + CLIENT_MS,
  };
}

/** As somebody in the checkout would type it. */
function shown(way: Way, [, file = '', ...args]: readonly string[]): string {
  return [...(way === 'plain' ? [] : ['isthmus', 'run']), 'node', `examples/${basename(file)}`, ...args].join(' ');
}

function machine(): string {
  const cpus = availableParallelism();
  return `Isthmus ${version()}, Node.js ${process.version}, ${process.platform} ${process.arch}, ${cpus} CPU${cpus === 1 ? '' : 's'}`;
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, '  ');
}

function formatComparison(tcp: Half, isthmus: Half, anyMoved: boolean): string {
  const shorter = (name: string, pick: (half: Half) => number) =>
    row(name, pick, (value) => `${value.toFixed(1)} us`, pick(tcp) / pick(isthmus));
  const more = (name: string, pick: (half: Half) => number, print: (value: number) => string) =>
    row(name, pick, print, pick(isthmus) / pick(tcp));
  const row = (name: string, pick: (half: Half) => number, print: (value: number) => string, ratio: number) => [
    name,
    print(pick(tcp)),
    print(pick(isthmus)),
    ...(anyMoved ? [ratio.toFixed(2)] : []),
  ];
  const table = formatTable([
    anyMoved ? ['', 'TCP', 'Isthmus', 'Ratio'] : ['', 'As they are', 'Under isthmus run, over TCP'],
    shorter('Round trip of 64 B, p50', (one) => one.echo.p50),
    shorter('Round trip of 64 B, p99', (one) => one.echo.p99),
    more(
      'Stream, there and back',
      (one) => one.echo.bytesPerSecond,
      (value) => `${(value / 1e9).toFixed(2)} GB/s`,
    ),
    more(
      'HTTP, 1 KiB there and back',
      (one) => one.http.requestsPerSecond,
      (value) => `${Math.round(value).toLocaleString('en')} requests/s`,
    ),
  ]);
  if (!anyMoved) return table;
  const oneCpu = 'With one CPU the programs take turns: there is little to gain.\n';
  const about =
    'Ratio: how many times as fast as TCP. Programs gain by what waiting for the network was of their time: a server that computes\n' +
    'gains little, and nothing in its first seconds. isthmus bench measures with more care.\n';
  return `${table}\n${about}${availableParallelism() === 1 ? oneCpu : ''}`;
}

/** Where things come to a halt, by reason; all others belong to the handshake. */
const STEPS: readonly (readonly [string, readonly string[]])[] = [
  ['to call the system', ['PLATFORM', 'KERNEL', 'FFI', 'SYSTEM']],
  ['to get at the sockets of this Node.js', ['INTERNALS']],
  ['to reach the fabric', ['NOFABRIC', 'UNTRUSTED', 'FABRICLOST', 'FABRICBUSY', 'FABRICSILENT']],
  ['to find the other end', ['PEERNOSMC', 'MISMATCH', 'UNPROVEN', 'SHARED', 'NOTLOCAL', 'SELF', 'UNKNOWNUSER']],
  ['to see a connection that is old enough', ['YOUNG', 'NOBYTE']],
];

function stepOf(reason: Reason): string {
  return STEPS.find(([, names]) => names.includes(reason.name))?.[0] ?? 'to agree with the other end';
}

/** Connections tell it themselves; where nothing works they cannot, and we try the same as their programs did. */
async function whatFailed(connections: readonly ConnectionInfo[]): Promise<Failure[]> {
  const reasons = new Map(connections.filter(({ mode }) => mode === 'TCP').map(({ reason }) => [reason.name, reason]));
  if (reasons.size > 0) return [...reasons.values()].map((reason) => ({ step: stepOf(reason), reason, detail: '' }));
  const { Engine } = await import('../net/engine.ts');
  const { never } = await Engine.create(new CurrentPolicy({ ISTHMUS_CONFIG: 'none' }), REGISTER, () => null);
  if (never === null) return [];
  const { testDoorbell } = await import('../os/index.ts');
  const detail = await testDoorbell().then(
    () => '',
    (error: Error) => error.message,
  );
  return [{ step: stepOf(never), reason: never, detail }];
}

function formatFailures(failures: readonly Failure[], { connections }: Half): string {
  const moved = movedOf(connections);
  const head = moved === 0 ? 'No connection' : `Only ${moved} of ${connections.length} ends of connections`;
  const lines = failures.flatMap(({ step, reason, detail }) => [
    ['What failed', step],
    ['Why', `0x${reason.code.toString(16).padStart(8, '0')} ${reason.name}: ${reason.text}`],
    ...(detail === '' ? [] : [['In detail', detail]]),
    ...(reason.hint === '' ? [] : [['What to do', reason.hint]]),
  ]);
  const told = lines.length === 0 ? 'Why cannot be told: no program showed a connection.\n' : formatTable(lines);
  return `${head} went through shared memory.\n${indent(told)}The programs worked all the same, over TCP.\n`;
}
