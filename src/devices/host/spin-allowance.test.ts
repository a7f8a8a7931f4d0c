/** How much of the time may be spun. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SpinAllowance } from './spin-allowance.ts';

/** What part of a second is spun where a message comes every so many milliseconds, and wakes who does not spin. */
function spun(everyMs: number): number {
  const allowance = new SpinAllowance();
  const stepMs = 0.01;
  let spunMs = 0;
  let spins = true;
  for (let step = 1; step < 1000 / stepMs; step++) {
    const now = step * stepMs;
    const comes = step % Math.round(everyMs / stepMs) === 0;
    if (spins) {
      spunMs += stepMs;
      allowance.spent(stepMs);
      if (comes) allowance.found();
    }
    spins = allowance.isLeft(now) && (spins || comes);
  }
  return spunMs / 1000;
}

test('who is answered soon may spin all the time', () => {
  for (const everyMs of [0.01, 0.03, 0.1]) assert.ok(spun(everyMs) > 0.99, `every ${everyMs} ms`);
});

test('the longer an answer takes, the less of the time', () => {
  const shares = [0.1, 0.15, 0.2, 0.4, 1].map(spun);
  const expected = [1, 0.7, 0.46, 0.31, 0.25];
  for (const [i, share] of shares.entries()) assert.ok(Math.abs(share - (expected[i] ?? 0)) < 0.03, shares.join(' '));
});

test('a CPU that was away for long is no time spun', () => {
  const allowance = new SpinAllowance();
  assert.ok(allowance.isLeft(100));
  allowance.spent(1000);
  assert.ok(allowance.isLeft(100));
  allowance.spent(1000);
  allowance.spent(1000);
  assert.ok(!allowance.isLeft(100.1));
  assert.ok(allowance.isLeft(105));
});
