import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readIdleMs } from './start.ts';

test('ISTHMUS_FABRIC_IDLE_MS: what makes no sense is passed over with a warning; empty is not set', () => {
  const read = (text: string | undefined) => {
    const warnings: string[] = [];
    const value = readIdleMs({ ISTHMUS_FABRIC_IDLE_MS: text }, (one) => warnings.push(one));
    return [value, ...warnings];
  };
  assert.deepEqual(read(undefined), [60_000]);
  assert.deepEqual(read(''), [60_000]);
  assert.deepEqual(read('300'), [300]);
  for (const text of ['abc', ' ', '0', '-1', '1.5', 'Infinity', '2147483648'])
    assert.deepEqual(read(text), [
      60_000,
      `ISTHMUS_FABRIC_IDLE_MS=${text} is no whole number from 1 to 2147483647; 60000 is used`,
    ]);
});
