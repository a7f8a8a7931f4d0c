/** `isthmus stats`: what running programs have counted, in the manner of `smcd stats`, as JSON with its keys, or for Prometheus. */
import { parseArgs } from 'node:util';
import { DEVICE_COUNTER } from '../devices/host/index.ts';
import { COUNTER } from '../net/info.ts';
import { type Command, EXIT_OK, formatTable, UsageError, verbOf } from './command.ts';
import { FIGURES, type Sample, type Sums, sumOf } from './figures.ts';
import { whyNoProgram } from './processes.ts';
import { checkPid, readPartitions, type Table } from './rows.ts';
import { printableJson } from './text.ts';

const HELP = `Usage: isthmus stats [show | json] [options]

Shows what programs that have Isthmus loaded have counted since they began: the sum of those that run, yours, or
everybody's if you are root. A program that ends takes its figures along. Works while a program is busy.

      --json        { "SMCD": those of the keys of smcd stats json that have a meaning here, "Isthmus": the rest };
                    the same as isthmus stats json
      --prometheus  text for Prometheus, each thread of each process by itself
  -d, --details     by role, by reason, and what was done to wake and to look
  -a, --absolute    as without: there is no reset
  -p, --pid PID     only those of one process
  -h, --help        this text

  SMC connections  of which at least one direction has moved, even if it has moved back since
  TCP fallback     have not moved: those that have ended, and those that are open, as they are now
  Buffer full      writes that had to wait for room in the buffer of the other end

docs/statistics.md says of each figure where it is counted, and of the keys of smc-tools which are left out and why.
`;

const OPTIONS = {
  json: { type: 'boolean' },
  prometheus: { type: 'boolean' },
  details: { type: 'boolean', short: 'd' },
  absolute: { type: 'boolean', short: 'a' },
  pid: { type: 'string', short: 'p' },
} as const;

export const stats: Command = {
  summary: 'show what programs have counted: connections, bytes, wake-ups',
  help: HELP,
  options: OPTIONS,
  takes: ['show', 'json'],
  async main(args) {
    const { values, positionals } = parseArgs({ args: [...args], allowPositionals: true, options: OPTIONS });
    const verb = verbOf('stats', positionals, ['show', 'json', 'reset']);
    if (verb === 'reset')
      throw new UsageError('there is no reset: each program counts from its beginning, and takes its figures along');
    const isJson = values.json === true || verb === 'json';
    if (isJson && values.prometheus) throw new UsageError('--json or --prometheus, not both');
    const { tables, complete } = readPartitions(checkPid(values.pid));
    if (!complete) process.stderr.write('isthmus: there are too many connections, not all were counted\n');
    if (values.prometheus) {
      process.stdout.write(formatPrometheus(tables));
      return EXIT_OK;
    }
    if (tables.length === 0) process.stderr.write(`isthmus: ${whyNoProgram(values.pid)}\n`);
    const sums = sumOf(tables);
    process.stdout.write(isJson ? `${printableJson(jsonOf(sums))}\n` : formatStats(sums, values.details ?? false));
    return EXIT_OK;
  },
};

// --- JSON ---

function jsonOf(sums: Sums) {
  const keys = FIGURES.map(({ keys }) => keys(sums));
  const both = ([client, server]: readonly [number, number]) => ({ client, server });
  const named = (names: object, values: readonly number[]) =>
    Object.fromEntries(Object.keys(names).map((name, i) => [name, values[i] ?? 0]));
  const { inTcp = 0, outTcp = 0 } = named(COUNTER, sums.counters);
  return {
    SMCD: Object.assign({}, ...keys) as Record<string, number>,
    Isthmus: {
      connections: both(sums.connections),
      open: sums.open,
      fallback: Object.fromEntries(fallbackOf(sums)),
      handshakeErrors: both(sums.errors),
      bytesByTcp: { in: inTcp, out: outTcp },
      device: named(DEVICE_COUNTER, sums.device),
    },
  };
}

/** Connections that have not moved, by reason, most frequent first. */
function fallbackOf({ endedOnTcp, openOnTcp }: Sums): [string, number][] {
  const all = new Map(endedOnTcp);
  for (const [name, count] of openOnTcp) all.set(name, (all.get(name) ?? 0) + count);
  return [...all].sort(([, one], [, other]) => other - one);
}

// --- Text ---

const BUFFERS = ['8KB', '16KB', '32KB', '64KB', '128KB', '256KB', '512KB', '>512KB'];

export function formatStats(sums: Sums, details: boolean): string {
  const line = (what: string, value: number | string, more = '') =>
    `  ${what.padEnd(26)} ${String(value).padStart(14)}${more === '' ? '' : ` (${more})`}\n`;
  const total = ([client, server]: readonly [number, number]) => client + server;
  const roles = ([client, server]: readonly [number, number]) => (details ? `client ${client}, server ${server}` : '');
  const counted = (name: keyof typeof COUNTER) => sums.counters[COUNTER[name]] ?? 0;
  const ofDevice = (name: keyof typeof DEVICE_COUNTER) => sums.device[DEVICE_COUNTER[name]] ?? 0;
  const bytes = (value: number) => line('Data transmitted (Bytes)', value, abbreviated(value));
  const moved = total(sums.moved);
  const requests = counted('reads') + counted('writes');
  const fallback = fallbackOf(sums);
  const [largest = 0, beyond = 0] = sums.buffers.slice(BUFFERS.length - 1);
  const buffers = [...sums.buffers.slice(0, BUFFERS.length - 1), largest + beyond];
  const columns = formatTable([
    ['', ...BUFFERS].map((size) => size.padStart(6)),
    ['Bufs', ...buffers.map(abbreviated)].map((cell, i) => (i === 0 ? cell.padEnd(6) : cell.padStart(6))),
  ]);
  return [
    'SMC-D Connections Summary\n',
    line('Total connections handled', total(sums.connections), roles(sums.connections)),
    line('SMC connections', moved, roles(sums.moved)),
    line('Handshake errors', total(sums.errors), roles(sums.errors)),
    line('Avg requests per SMC conn', (moved === 0 ? 0 : requests / moved).toFixed(1)),
    line(
      'TCP fallback',
      fallback.reduce((sum, [, count]) => sum + count, 0),
    ),
    ...(details ? fallback.map(([name, count]) => line(`  ${name}`, count)) : []),
    '\nRX Stats\n',
    bytes(counted('inShm')),
    line('Total requests', counted('reads')),
    line('Buffer usage (Bytes)', sums.bufferBytes, abbreviated(sums.bufferBytes)),
    columns.replace(/^(?=.)/gm, '  '),
    '\nTX Stats\n',
    bytes(counted('outShm')),
    line('Total requests', counted('writes')),
    line('Buffer full (remote)', counted('full'), `${percent(counted('full'), counted('writes'))}%`),
    '\nExtras\n',
    line('Received by TCP (Bytes)', counted('inTcp'), abbreviated(counted('inTcp'))),
    line('Sent by TCP (Bytes)', counted('outTcp'), abbreviated(counted('outTcp'))),
    line('Doorbells', ofDevice('rung')),
    ...(details
      ? [
          line('  signals without one', ofDevice('saved')),
          line('Wake-ups', ofDevice('wakeUps')),
          line('Sleeps', ofDevice('sleeps')),
          line('Looks', ofDevice('looks'), `${percent(ofDevice('found'), ofDevice('looks'))}% found something`),
          line('CPU given away', ofDevice('yields')),
        ]
      : []),
  ].join('');
}

const percent = (part: number, whole: number) => (whole === 0 ? 0 : (part / whole) * 100).toFixed(2);

/** In at most six characters. */
export function abbreviated(value: number): string {
  const units = ['', 'K', 'M', 'G', 'T', 'P', 'E'];
  let rest = value;
  let unit = 0;
  while (rest >= 999.95 && unit < units.length - 1) {
    rest /= 1000;
    unit++;
  }
  return unit === 0 ? String(value) : `${rest.toFixed(1)}${units[unit]}`;
}

// --- Prometheus ---

/** Version 0.0.4 of the text format. By partition: a sum would shrink when one ends, which looks like a restart. */
export function formatPrometheus(tables: readonly Table[]): string {
  const partitions = new Map<string, Table[]>();
  for (const table of tables) {
    const labels = `pid="${table.pid}",thread="${table.thread}"`;
    partitions.set(labels, [...(partitions.get(labels) ?? []), table]);
  }
  const sums = [...partitions].map(([labels, own]) => [labels, sumOf(own)] as const);
  return FIGURES.map(({ metric, type, text, samples }) =>
    [
      `# HELP ${metric} ${text}\n`,
      `# TYPE ${metric} ${type}\n`,
      ...sums.flatMap(([labels, sum]) => samples(sum).map((one) => `${metric}{${labels}${formatSample(one)}\n`)),
    ].join(''),
  ).join('');
}

/** Labels are ours, and need no escapes. */
function formatSample({ labels, value }: Sample): string {
  return `${Object.entries(labels)
    .map(([name, text]) => `,${name}="${text}"`)
    .join('')}} ${value}`;
}
