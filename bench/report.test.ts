/** What a report says, from figures that nobody has measured. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatMarkdown } from './markdown.ts';
import { plotsOf } from './plots.ts';
import { type ComparisonRow, column, formatReport, type Report } from './report.ts';
import { shortfallsOf } from './shortfalls.ts';
import type { Better } from './statistics.ts';
import { gridsOf } from './tables.ts';
import { IPC_JSON, MAPPED, PIPES, RING, STORE, TCP, type Transport, UNIX, ZEROMQ } from './transports.ts';

type Values = readonly (readonly [Transport, ...(number | null)[]])[];

/** @param values of each transport, by round; TCP first */
function row(step: string, better: Better, values: Values, more: Partial<ComparisonRow> = {}): ComparisonRow {
  const [, ...base] = values[0] ?? [];
  return {
    question: 'question',
    placement: { name: 'two', title: 'two processes' },
    step,
    point: null,
    figure: 'p50',
    unit: 'µs',
    better,
    transports: values.map(([transport, ...own]) => column(transport, better, base as number[], own)),
    ...more,
  };
}

const point = (at: number) => ({ point: { plot: 'round trip', at } }) as const;

const SWEEP = [
  row(
    'round trip 64 B',
    'lower',
    [
      [TCP, 40, 44],
      [UNIX, 30, 30],
      [MAPPED, 4, 4],
    ],
    point(64),
  ),
  row(
    'round trip 1 KiB',
    'lower',
    [
      [TCP, 50, 50],
      [UNIX, 40, 40],
      [MAPPED, 60, 49],
    ],
    point(1024),
  ),
];

const REPORT: Report = {
  machine: {
    cpu: 'CPU',
    cpus: 2,
    isVirtual: false,
    memoryGiB: 8,
    kernel: '6.1',
    node: 'v20',
    versions: { isthmus: '0.1.0' },
    load: [0, 0],
    stealPercent: 0,
    othersPercent: 0,
    settings: [],
  },
  startedAt: '2026-01-01T00:00:00Z',
  seconds: 60,
  rounds: 2,
  comparisons: SWEEP,
  answers: [
    {
      question: 'start',
      title: 'start of a program',
      findings: [{ name: 'more CPU', value: 12, unit: 'ms', detail: 'a | b' }],
    },
  ],
  gaps: ['zeromq: the package zeromq is not installed'],
};

test('what is behind TCP is said in words, with its spread', () => {
  const [first, ...more] = shortfallsOf(SWEEP).tcp;
  assert.equal(
    first,
    'round trip 1 KiB, p50: Isthmus, mapped 54.5 µs, TCP 50.0: 0.93 times as good, but not in every round (two processes)',
  );
  assert.deepEqual(more, []);
  const slow = row('stream', 'higher', [
    [TCP, 2],
    [MAPPED, 1],
    [STORE, 3],
  ]);
  assert.match(
    shortfallsOf([slow]).tcp.join(),
    /^stream, p50: Isthmus, mapped 1.00 µs, TCP 2.00: 0.50 times as good \(/,
  );
});

test('what is ahead of Isthmus is said in words, but for the limits of the machine', () => {
  const values: Values = [
    [TCP, 9],
    [MAPPED, 4],
    [STORE, 2],
    [UNIX, 3],
    [PIPES, 5],
    [ZEROMQ, 2],
    [RING, 1],
    [IPC_JSON, null],
  ];
  assert.deepEqual(shortfallsOf([row('round trip', 'lower', values)]).others, [
    'round trip, p50: Isthmus, mapped 4.00 µs, zeromq, ipc:// 2.00 (2.00 times as good), Unix socket 3.00 (1.33 times as good) (two processes)',
  ]);
});

test('few transports are columns, many are lines, and many steps over one axis are medians only', () => {
  const many: Values = [
    [TCP, 9],
    [UNIX, 8],
    [MAPPED, 4],
    [PIPES, 5],
    [ZEROMQ, 2],
  ];
  assert.deepEqual(
    gridsOf(SWEEP).map(({ names, columns, isBrief }) => [names.length, columns.length, isBrief]),
    [[2, 3, false]],
  );
  const cpu = { figure: 'CPU' };
  const [one, other] = gridsOf([row('a', 'lower', many), row('a', 'lower', many, cpu), row('b', 'lower', many)]);
  assert.deepEqual([one?.title, one?.names.length, one?.columns.length], ['a', 5, 2]);
  assert.deepEqual([other?.title, other?.columns.length], ['b', 1]);
  const sweep = [row('a', 'lower', many, point(1)), row('a', 'lower', many, cpu), row('b', 'lower', many, point(2))];
  assert.deepEqual(
    gridsOf(sweep).map(({ names, isBrief }) => [names.length, isBrief]),
    [[2, true]],
  );
});

test('the text has every transport, finding and gap', () => {
  const text = formatReport(REPORT);
  assert.match(text, /round trip 64 B: p50, µs +42\.0 +30\.0 +1\.40x +\(1\.33-1\.47\) +4\.00 +10\.5x/);
  assert.match(text, /more CPU +12\.0 +ms/);
  assert.match(text, /not measured:\n {2}zeromq: the package/);
});

test('the document has plots, shortfalls, tables, findings and gaps', () => {
  const text = formatMarkdown(REPORT, [{ title: 'Round trip', path: 'round-trip.svg' }]);
  assert.match(text, /!\[Round trip\]\(round-trip\.svg\)/);
  assert.match(text, /## What is not better\n\nIsthmus was behind TCP in:\n\n- round trip 1 KiB/);
  assert.match(text, /\| round trip 64 B: p50, µs \| 42\.0 \| 30\.0 1\.40x \(1\.33-1\.47\) \| 4\.00 10\.5x/);
  assert.match(text, /\| more CPU \| 12\.0 ms \| a \\\| b \|/);
  assert.match(text, /## Not measured\n\n- zeromq/);
});

test('where nothing is behind, the document says that', () => {
  const text = formatMarkdown({ ...REPORT, comparisons: SWEEP.slice(0, 1) }, []);
  assert.match(text, /In no figure was Isthmus behind TCP\.\n\nIn no figure was anything else ahead of Isthmus\./);
});

test('a plot has a line for each transport that has a value', () => {
  const none = row(
    'round trip 4 KiB',
    'lower',
    [
      [TCP, 60],
      [UNIX, null],
      [MAPPED, 5],
    ],
    point(4096),
  );
  const [plot, ...more] = plotsOf({ ...REPORT, comparisons: [...SWEEP, none, row('other', 'lower', [[TCP, 1]])] });
  assert.equal(more.length, 0);
  assert.equal(plot?.file, 'round-trip.svg');
  assert.equal(plot?.svg.match(/<polyline/g)?.length, 3);
  assert.equal(plot?.svg.match(/<circle/g)?.length, 8);
  for (const text of ['TCP', 'Unix socket', 'Isthmus, mapped', '64 B', '1 KiB', '4 KiB', 'p50, µs'])
    assert.ok(plot?.svg.includes(`>${text}</text>`), text);
});
