import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changesOf, formatChanges } from './compare.ts';
import { column, type Report } from './report.ts';
import type { Better } from './statistics.ts';
import { MAPPED, TCP } from './transports.ts';

/** As many reports as there are values. */
function reports(
  better: Better,
  tcp: readonly number[],
  mapped: readonly (number | null)[],
  costs: readonly number[] = [],
) {
  return tcp.map((base, i) => ({
    comparisons: [
      {
        question: 'rtt',
        placement: { name: 'two', title: 'two CPUs' },
        step: 'round trip',
        point: null,
        figure: 'p50',
        unit: 'µs',
        better,
        transports: [column(TCP, better, [base], [base]), column(MAPPED, better, [base], [mapped[i] ?? null])],
      },
    ],
    answers: costs.slice(i, i + 1).map((value) => ({
      question: 'start',
      title: 'start',
      findings: [{ name: 'CPU', value, unit: 'ms', detail: '' }],
    })),
    gaps: [],
  })) as unknown as Report[];
}

test('slower is what is worse in every run than in every run of the old one', () => {
  const old = reports('lower', [40, 41, 42, 43], [4, 5, 6, 4]);
  const verdicts = (mapped: readonly (number | null)[]) =>
    changesOf(old, reports('lower', [40, 41, 42, 43], mapped)).map(({ verdict, ratio }) => [verdict, ratio]);
  assert.deepEqual(verdicts([8, 10, 12, 8]), [
    ['within the spread', 1],
    ['slower', 0.5],
  ]);
  assert.deepEqual(verdicts([2, 2.5, 3, 2])[1], ['faster', 2]);
  assert.deepEqual(verdicts([8, 10, 6, 8])[1], ['within the spread', 0.5]);
});

test('a rate that falls is slower', () => {
  const [, change] = changesOf(
    reports('higher', [1, 1, 1, 1], [4, 5, 4, 4]),
    reports('higher', [1, 1, 1, 1], [3, 2, 3, 3]),
  );
  assert.equal(change?.verdict, 'slower');
});

test('a run with a gap is left out, and of few runs nothing is said', () => {
  const [, some] = changesOf(reports('lower', [1, 1, 1], [4, null, 4]), reports('lower', [1, 1, 1], [8, 8, null]));
  assert.deepEqual([some?.ratio, some?.verdict], [0.5, 'too few runs']);
  const none = changesOf(reports('lower', [1, 1], [null, null]), reports('lower', [1, 1], [8, 8]));
  assert.deepEqual(
    none.map(({ what }) => what),
    ['TCP, round trip: p50 (two CPUs)'],
  );
});

test('it is said in words, costs too, and that the machine has changed where TCP has', () => {
  const old = reports('lower', [40, 41, 40, 41], [4, 5, 4, 5], [10, 11, 10, 11]);
  const text = formatChanges(changesOf(old, reports('lower', [80, 82, 80, 82], [8, 10, 8, 10], [20, 22, 20, 22])));
  assert.match(text, /^ +old +new +times better\n/);
  assert.match(
    text,
    /Isthmus, mapped, round trip: p50 \(two CPUs\) +µs +4\.50 \(4\.00-5\.00\) +9\.00 \(8\.00-10\.0\) +0\.50x +slower/,
  );
  assert.match(
    text,
    / {2}Isthmus, mapped, round trip: p50 \(two CPUs\): 9\.00 µs instead of 4\.50, 2\.00 times slower\n/,
  );
  assert.match(text, / {2}start: CPU: 21\.0 ms instead of 10\.5, 2\.00 times slower\n/);
  assert.match(text, /Nothing got faster beyond the spread\./);
  assert.match(text, /the machine has changed/);
});

test('where nothing has changed, it says that', () => {
  const same = reports('lower', [40, 41, 42, 43], [4, 5, 4, 5]);
  const text = formatChanges(changesOf(same, same));
  assert.match(text, /Nothing got slower beyond the spread\.\n\nNothing got faster beyond the spread\.\n$/);
  assert.equal(formatChanges([]), 'There is no figure that both have.\n');
});
