import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apart, decades, lineChart } from './svg.ts';

test('an axis goes from the power of ten below all values to the one above', () => {
  assert.deepEqual(decades([3, 42, 0.5]), [0.1, 1, 10, 100]);
  assert.deepEqual(decades([10]), [10, 100]);
});

test('labels keep their order and their distance', () => {
  assert.deepEqual(apart([50, 10, 12, 11], 5, 100), [50, 10, 20, 15]);
});

test('labels do not leave the plot', () => {
  assert.deepEqual(apart([10, 99, 98, 100], 5, 100), [10, 95, 90, 100]);
});

const chart = (name: string) =>
  lineChart({
    title: 'a < b & c',
    subtitle: '',
    xTitle: 'x',
    yTitle: 'y',
    textOf: String,
    lines: [
      {
        name,
        kind: 'ours',
        points: [
          { x: 1, median: 10, low: 10, high: 10 },
          { x: 100, median: 1000, low: 100, high: 1000 },
        ],
      },
    ],
  });

test('both axes are logarithmic, and larger is higher', () => {
  const [, low, high] = /<polyline class="c0 ours" points="([\d.]+,[\d.]+) ([\d.]+,[\d.]+)"/.exec(chart('line')) ?? [];
  assert.deepEqual([low, high], ['84,420', '620,66']);
});

test('text is text, whatever it is', () => {
  const svg = chart('<script>');
  assert.ok(!svg.includes('<script>'));
  assert.ok(svg.includes('&lt;script&gt;'));
  assert.ok(svg.includes('<title>a &lt; b &amp; c</title>'));
});

test('there are colours for dark ground', () => {
  assert.match(chart('line'), /@media \(prefers-color-scheme: dark\)/);
});
