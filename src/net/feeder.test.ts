import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Feeder } from './feeder.ts';
import { Records, TLS_RECORD } from './records.ts';

const record = (letter: string) => Buffer.from(`\x17\x03\x03\x00\x01${letter}`, 'latin1');
const chunkOf = (letters: string) => Buffer.concat([...letters].map(record));

function feed(fed: (letter: string) => void = () => {}) {
  const seen: string[] = [];
  const feeder = new Feeder(new Records(TLS_RECORD), {
    isOpen: () => !seen.includes('closed'),
    feed: (part) => {
      seen.push(part.toString('latin1', 5));
      fed(part.toString('latin1', 5));
    },
    end: () => seen.push('end'),
    drained: () => seen.push('drained'),
  });
  feeder.wants = true;
  return { feeder, seen };
}

test('one record a turn, and microtasks in between', async () => {
  const { feeder, seen } = feed((letter) => queueMicrotask(() => seen.push(`after ${letter}`)));
  assert.equal(feeder.take(chunkOf('abc')), false);
  assert.equal(feeder.take(null), false);
  while (!seen.includes('drained')) await turn();
  assert.deepEqual(seen, ['a', 'after a', 'b', 'after b', 'c', 'after c', 'end', 'drained']);
});

test('a listener that throws loses no record', async () => {
  const { feeder, seen } = feed((letter) => {
    if (letter === 'a') throw new Error('of the program');
  });
  assert.throws(() => feeder.take(chunkOf('ab')), /of the program/);
  while (!seen.includes('drained')) await turn();
  assert.deepEqual(seen, ['a', 'b', 'drained']);
});

test('who wants nothing is not asked to go on; who is closed gets nothing', async () => {
  const { feeder, seen } = feed();
  feeder.take(chunkOf('ab'));
  feeder.wants = false;
  for (let i = 0; i < 3; i++) await turn();
  assert.deepEqual(seen, ['a', 'b']);
  assert.equal(feeder.take(chunkOf('c')), true);
  seen.push('closed');
  assert.equal(feeder.take(chunkOf('d')), false);
  assert.deepEqual(seen, ['a', 'b', 'c', 'closed']);
});
