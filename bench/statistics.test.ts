import assert from 'node:assert/strict';
import { test } from 'node:test';
import { median, quantile, ratiosByRound, shuffled, spreadOf, timesBetter } from './statistics.ts';

test('a quantile lies between its neighbours', () => {
  const sorted = [1, 2, 3, 4, 5];
  assert.equal(quantile(sorted, 0), 1);
  assert.equal(quantile(sorted, 0.5), 3);
  assert.equal(quantile(sorted, 1), 5);
  assert.equal(quantile([10, 20], 0.25), 12.5);
  assert.equal(quantile([7], 0.99), 7);
});

test('a median needs no order and changes none', () => {
  const values = [9, 1, 10, 2];
  assert.equal(median(values), 5.5);
  assert.deepEqual(values, [9, 1, 10, 2]);
});

test('a spread has its ends, and there is none of nothing', () => {
  assert.deepEqual(spreadOf([3, 1, 2]), { median: 2, low: 1, high: 3 });
  assert.equal(spreadOf([]), null);
});

test('above 1 is better, for times and for rates', () => {
  assert.equal(timesBetter('lower', 20, 2), 10);
  assert.equal(timesBetter('higher', 20, 2), 0.1);
});

test('ratios are made within a round, and a round with a gap is left out', () => {
  assert.deepEqual(ratiosByRound('lower', [10, null, 30, 40], [5, 5, null, 10]), [2, 4]);
  assert.deepEqual(ratiosByRound('higher', [10], [30, 40]), [3]);
});

test('shuffled has the same members', () => {
  assert.deepEqual(shuffled([1, 2, 3, 4]).sort(), [1, 2, 3, 4]);
  assert.deepEqual(
    shuffled([1, 2, 3], () => 0),
    [2, 3, 1],
  );
});
