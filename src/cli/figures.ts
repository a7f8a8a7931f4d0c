/**
 * What `isthmus stats` shows: sums over partitions, and each figure once, with its unit, where it is counted, and what it is called by
 * smc-tools and Prometheus.
 */
import { DEVICE_COUNTER } from '../devices/host/index.ts';
import { COUNTER } from '../net/info.ts';
import { BUFFER_SIZES, OTHER_CODE, TOTAL } from '../net/statistics.ts';
import { REASONS, reasonOfCode } from '../smc/reasons.ts';
import type { Table } from './rows.ts';

/** Of all partitions of one or more programs. */
export interface Sums {
  /** Of clients, of servers. */
  readonly connections: [number, number];
  readonly moved: [number, number];
  readonly errors: [number, number];
  /** Open ones, by mode. */
  readonly open: { smcd: number; tcp: number };
  /** That have never moved, by the name of the reason. */
  readonly endedOnTcp: Map<string, number>;
  readonly openOnTcp: Map<string, number>;
  /** As COUNTER: of ended and of open connections. */
  readonly counters: number[];
  /** As DEVICE_COUNTER. */
  readonly device: number[];
  /** Buffers by length. */
  readonly buffers: number[];
  /** Of open connections. */
  bufferBytes: number;
}

export function sumOf(tables: readonly Table[]): Sums {
  const sums: Sums = {
    connections: [0, 0],
    moved: [0, 0],
    errors: [0, 0],
    open: { smcd: 0, tcp: 0 },
    endedOnTcp: new Map(),
    openOnTcp: new Map(),
    counters: Object.values(COUNTER).map(() => 0),
    device: Object.values(DEVICE_COUNTER).map(() => 0),
    buffers: Array.from({ length: BUFFER_SIZES }, () => 0),
    bufferBytes: 0,
  };
  for (const { totals: found, rows } of tables) {
    const { totals = [], fallbacks = [] } = found ?? {};
    add(sums.connections, totals, TOTAL.connections);
    add(sums.moved, totals, TOTAL.moved);
    add(sums.errors, totals, TOTAL.errors);
    add(sums.counters, totals, TOTAL.ended);
    add(sums.device, totals, TOTAL.device);
    add(sums.buffers, totals, TOTAL.buffers);
    for (const [code, connections] of fallbacks) more(sums.endedOnTcp, nameOf(code), connections);
    for (const { info, counters } of rows) {
      add(sums.counters, counters, 0);
      sums.open[info.mode === 'SMC-D' ? 'smcd' : 'tcp']++;
      sums.bufferBytes += info.dmbBytes ?? 0;
      if (info.movedAtMs === null) more(sums.openOnTcp, nameOf(info.reason.code), 1);
    }
  }
  return sums;
}

function add(sum: number[], numbers: readonly number[], from: number): void {
  for (const i of sum.keys()) sum[i] = (sum[i] ?? 0) + (numbers[from + i] ?? 0);
}

function more(counts: Map<string, number>, name: string, by: number): void {
  counts.set(name, (counts.get(name) ?? 0) + by);
}

/** One of the names in docs/reasons.md, whatever code a program writes. */
function nameOf(code: number): string {
  const { name } = reasonOfCode(code);
  return code !== OTHER_CODE && Object.hasOwn(REASONS, name) ? name : 'OTHER';
}

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Figure {
  /** What it is, in a sentence; HELP of Prometheus. */
  readonly text: string;
  readonly unit:
    | 'connections'
    | 'handshakes'
    | 'bytes'
    | 'buffers'
    | 'calls'
    | 'chunks'
    | 'signals'
    | 'looks'
    | 'times';
  /** File that counts it. */
  readonly where: string;
  /** What the value is in the JSON of smc-tools. */
  readonly keys: (sums: Sums) => Readonly<Record<string, number>>;
  readonly metric: string;
  readonly type: 'counter' | 'gauge';
  readonly samples: (sums: Sums) => readonly Sample[];
}

const SIZES = ['8K', '16K', '32K', '64K', '128K', '256K', '512K', '1024K', 'G_1024K'];
const KIB = [8, 16, 32, 64, 128, 256, 512, 1024];

const byRole = ([client, server]: readonly [number, number]): Sample[] => [
  { labels: { role: 'client' }, value: client },
  { labels: { role: 'server' }, value: server },
];
const byReason = (counts: ReadonlyMap<string, number>): Sample[] =>
  [...counts].map(([reason, value]) => ({ labels: { reason }, value }));
const one = (value: number): Sample[] => [{ labels: {}, value }];
const none = () => ({});
const counter = (sums: Sums, name: keyof typeof COUNTER): number => sums.counters[COUNTER[name]] ?? 0;
const device = (sums: Sums, name: keyof typeof DEVICE_COUNTER): number => sums.device[DEVICE_COUNTER[name]] ?? 0;

export const FIGURES: readonly Figure[] = [
  {
    text: 'Connections that Isthmus has looked at.',
    unit: 'connections',
    where: 'src/net/engine.ts',
    keys: none,
    metric: 'isthmus_connections_total',
    type: 'counter',
    samples: (sums) => byRole(sums.connections),
  },
  {
    text: 'Connections of which at least one direction has moved to shared memory.',
    unit: 'connections',
    where: 'src/net/engine.ts',
    keys: ({ moved: [client, server] }) => ({ SMC_CLNT_V2_SUCC_CNT: client, SMC_SRV_V2_SUCC_CNT: server }),
    metric: 'isthmus_smc_connections_total',
    type: 'counter',
    samples: (sums) => byRole(sums.moved),
  },
  {
    text: 'Connections that have ended and never moved, by reason.',
    unit: 'connections',
    where: 'src/net/engine.ts',
    keys: none,
    metric: 'isthmus_fallback_total',
    type: 'counter',
    samples: (sums) => byReason(sums.endedOnTcp),
  },
  {
    text: 'Open connections, by what their bytes go through now.',
    unit: 'connections',
    where: 'src/net/table.ts',
    keys: none,
    metric: 'isthmus_open_connections',
    type: 'gauge',
    samples: ({ open }) => [
      { labels: { mode: 'SMC-D' }, value: open.smcd },
      { labels: { mode: 'TCP' }, value: open.tcp },
    ],
  },
  {
    text: 'Open connections that have not moved, by reason.',
    unit: 'connections',
    where: 'src/net/table.ts',
    keys: none,
    metric: 'isthmus_open_fallback',
    type: 'gauge',
    samples: (sums) => byReason(sums.openOnTcp),
  },
  {
    text: 'Handshakes in which the other end broke the protocol or did not answer.',
    unit: 'handshakes',
    where: 'src/net/partition.ts',
    keys: none,
    metric: 'isthmus_handshake_errors_total',
    type: 'counter',
    samples: (sums) => byRole(sums.errors),
  },
  {
    text: 'Bytes of the programs, by direction and way.',
    unit: 'bytes',
    where: 'src/net/traffic.ts',
    keys: (sums) => ({ SMC_RX_BYTES: counter(sums, 'inShm'), SMC_TX_BYTES: counter(sums, 'outShm') }),
    metric: 'isthmus_bytes_total',
    type: 'counter',
    samples: (sums) => [
      { labels: { direction: 'in', way: 'memory' }, value: counter(sums, 'inShm') },
      { labels: { direction: 'in', way: 'tcp' }, value: counter(sums, 'inTcp') },
      { labels: { direction: 'out', way: 'memory' }, value: counter(sums, 'outShm') },
      { labels: { direction: 'out', way: 'tcp' }, value: counter(sums, 'outTcp') },
    ],
  },
  {
    text: 'Chunks that were taken from memory.',
    unit: 'chunks',
    where: 'src/net/carrier.ts',
    keys: (sums) => ({ SMC_RX_CNT: counter(sums, 'reads') }),
    metric: 'isthmus_reads_total',
    type: 'counter',
    samples: (sums) => one(counter(sums, 'reads')),
  },
  {
    text: 'Writes to memory, several that Node.js hands on together as one.',
    unit: 'calls',
    where: 'src/net/sending.ts',
    keys: (sums) => ({ SMC_TX_CNT: counter(sums, 'writes') }),
    metric: 'isthmus_writes_total',
    type: 'counter',
    samples: (sums) => one(counter(sums, 'writes')),
  },
  {
    text: 'Writes that had to wait, since the buffer of the other end was full.',
    unit: 'calls',
    where: 'src/net/sending.ts',
    keys: (sums) => ({ SMC_INT_TX_BUF_FULL_PEER_CNT: counter(sums, 'full') }),
    metric: 'isthmus_buffer_full_total',
    type: 'counter',
    samples: (sums) => one(counter(sums, 'full')),
  },
  {
    text: 'Buffers that were registered for what connections receive, by length: the first of each, not those they grow to.',
    unit: 'buffers',
    where: 'src/net/partition.ts',
    keys: ({ buffers }) => Object.fromEntries(ofSizes('SMC_INT_RX_BUF').map((key, i) => [key, buffers[i] ?? 0])),
    metric: 'isthmus_buffers_total',
    type: 'counter',
    samples: ({ buffers }) =>
      buffers.map((value, i) => ({ labels: { up_to: KIB[i] === undefined ? '+Inf' : String(KIB[i] * 1024) }, value })),
  },
  {
    text: 'Length of the buffers for what open connections receive.',
    unit: 'bytes',
    where: 'src/net/table.ts',
    keys: (sums) => ({ SMC_RX_RMB_USAGE: sums.bufferBytes }),
    metric: 'isthmus_buffer_bytes',
    type: 'gauge',
    samples: (sums) => one(sums.bufferBytes),
  },
  {
    text: 'Signals to other partitions: rung were those for which it had to be woken, saved those that it sees by itself.',
    unit: 'signals',
    where: 'src/devices/host/pair.ts',
    keys: none,
    metric: 'isthmus_doorbells_total',
    type: 'counter',
    samples: (sums) => [
      { labels: { kind: 'rung' }, value: device(sums, 'rung') },
      { labels: { kind: 'saved' }, value: device(sums, 'saved') },
    ],
  },
  {
    text: 'Times the program was woken by a doorbell.',
    unit: 'times',
    where: 'src/devices/host/polling.ts',
    keys: none,
    metric: 'isthmus_wakeups_total',
    type: 'counter',
    samples: (sums) => one(device(sums, 'wakeUps')),
  },
  {
    text: 'Times it said that it sleeps, and is to be woken.',
    unit: 'times',
    where: 'src/devices/host/polling.ts',
    keys: none,
    metric: 'isthmus_sleeps_total',
    type: 'counter',
    samples: (sums) => one(device(sums, 'sleeps')),
  },
  {
    text: 'Looks for something new while it was awake.',
    unit: 'looks',
    where: 'src/devices/host/polling.ts',
    keys: none,
    metric: 'isthmus_looks_total',
    type: 'counter',
    samples: (sums) => one(device(sums, 'looks')),
  },
  {
    text: 'Those of the looks that found something.',
    unit: 'looks',
    where: 'src/devices/host/polling.ts',
    keys: none,
    metric: 'isthmus_looks_found_total',
    type: 'counter',
    samples: (sums) => one(device(sums, 'found')),
  },
  {
    text: 'Times the CPU was given away, to a partition that runs on the same one.',
    unit: 'times',
    where: 'src/devices/host/polling.ts',
    keys: none,
    metric: 'isthmus_yields_total',
    type: 'counter',
    samples: (sums) => one(device(sums, 'yields')),
  },
];

const ofSizes = (prefix: string) => SIZES.map((size) => `${prefix}_${size}`);

/** Keys of smc-tools that have no meaning here, and why. */
export const MISSING_KEYS: readonly (readonly [keys: readonly string[], why: string])[] = [
  [
    [
      ...ofSizes('SMC_INT_TX_BUF'),
      'SMC_INT_TX_BUF_SIZE_SM_CNT',
      'SMC_INT_TX_BUF_FULL_CNT',
      'SMC_INT_TX_BUF_REUSE_CNT',
      'SMC_INT_TX_BUF_ALLOC_CNT',
      'SMC_INT_TX_BUF_DGRADE_CNT',
      'SMC_TX_RMB_USAGE',
    ],
    'there is no buffer for sending: a write goes into the buffer of the other end',
  ],
  [
    [...ofSizes('SMC_USR_TX_BUF'), ...ofSizes('SMC_USR_RX_BUF')],
    'how long each read and write is would have to be looked at for each of them',
  ],
  [
    ['SMC_INT_TX_BUF_SIZE_SM_PEER_CNT'],
    'a write that is longer than the buffer waits, and is counted in SMC_INT_TX_BUF_FULL_PEER_CNT',
  ],
  [
    [
      'SMC_INT_RX_BUF_SIZE_SM_PEER_CNT',
      'SMC_INT_RX_BUF_SIZE_SM_CNT',
      'SMC_INT_RX_BUF_FULL_PEER_CNT',
      'SMC_INT_RX_BUF_FULL_CNT',
    ],
    'a program of Node.js does not say how much it wants to read',
  ],
  [
    ['SMC_INT_RX_BUF_REUSE_CNT', 'SMC_INT_RX_BUF_ALLOC_CNT', 'SMC_INT_RX_BUF_DGRADE_CNT'],
    'each connection registers a buffer of its own, of the length that is set',
  ],
  [['SMC_CLNT_V1_SUCC_CNT', 'SMC_SRV_V1_SUCC_CNT'], 'Isthmus speaks version 2'],
  [
    ['SMC_SENDPAGE_CNT', 'SMC_URG_DATA_CNT', 'SMC_SPLICE_CNT', 'SMC_CORK_CNT', 'SMC_NDLY_CNT'],
    'Node.js has no such call on a socket, or it has no effect on shared memory',
  ],
];
