import assert from 'node:assert/strict';
import { AsyncResource } from 'node:async_hooks';
import { test } from 'node:test';
import fc from 'fast-check';
import { COUNTER } from '../../src/net/info.ts';
import { type Internals, testInternals } from '../../src/net/internals.ts';
import { Mover } from '../../src/net/mover.ts';
import { socketPair } from '../../src/testing/index.ts';
import { oneLoop } from './pairs.ts';
import { play, type Result, type Script, scripts } from './random.ts';

const internals = testInternals() as Internals;
const context = new AsyncResource('ISTHMUS');
/** So that the schedules are known to do what they are for. */
const seen = { runs: 0, moved: 0, shared: 0 };

/** Plays two scripts against each other; each end begins to move after some time, or never. */
async function playBoth(
  client: Script,
  server: Script,
  starts: readonly (number | null)[],
): Promise<readonly [Result, Result]> {
  const options = { allowHalfOpen: true };
  const pair = await socketPair({ connect: options, listen: options });
  const [ground] = await oneLoop();
  const movers: (Mover | null)[] = [null, null];
  const begin = (i: 0 | 1) => {
    const [socket, role] = i === 0 ? ([pair.client, 'client'] as const) : ([pair.server, 'server'] as const);
    const mover = new Mover(socket, role, ground, internals, context);
    movers[i] = mover;
    mover.start();
  };
  for (const i of [0, 1] as const) {
    const delay = starts[i];
    if (delay === 0) begin(i);
    else if (delay !== null && delay !== undefined) setTimeout(() => begin(i), delay);
  }
  try {
    return await Promise.all([
      play(pair.client, client, 3, 150, () => movers[0] ?? null),
      play(pair.server, server, 150, 3, () => movers[1] ?? null),
    ]);
  } finally {
    seen.runs++;
    if (movers.some((mover) => mover?.movedAtMs)) seen.moved++;
    seen.shared += movers.reduce((sum, mover) => sum + (mover?.carrier?.counters[COUNTER.outShm] ?? 0), 0);
    await pair.close();
  }
}

const start = fc.option(fc.nat(8), { freq: 6 });

test('connections that end in order: every byte arrives, in order, and nothing else happens', async () => {
  await fc.assert(
    fc.asyncProperty(scripts(['end']), scripts(['end']), start, start, async (client, server, first, second) => {
      const [one, other] = await playBoth(client, server, [first, second]);
      assert.equal(one.wrongAt ?? other.wrongAt, null);
      assert.deepEqual([one.received, other.received], [other.written, one.written]);
      assert.deepEqual(
        [one.events, other.events],
        [
          ['end', 'close'],
          ['end', 'close'],
        ],
      );
    }),
    { numRuns: 400 },
  );
});

test('connections that end in any way: what arrives is a beginning of what was sent, and both close', async () => {
  const any = scripts(['end', 'destroy', 'reset']);
  await fc.assert(
    fc.asyncProperty(any, any, start, start, async (client, server, first, second) => {
      const [one, other] = await playBoth(client, server, [first, second]);
      assert.equal(one.wrongAt ?? other.wrongAt, null);
      assert.ok(one.received <= other.written && other.received <= one.written);
      for (const { events } of [one, other]) {
        assert.equal(events.at(-1), 'close');
        const errors = events.filter((event) => event.startsWith('error'));
        assert.ok(
          errors.length <= 1 && errors.every((error) => ['error ECONNRESET', 'error EPIPE'].includes(error)),
          events.join(),
        );
      }
      const lasts = [client.last, server.last];
      if (lasts.every((last) => last === 'end'))
        assert.deepEqual([one.received, other.received], [other.written, one.written]);
    }),
    { numRuns: 400 },
  );
});

test('many of them moved', (t) => {
  t.diagnostic(JSON.stringify(seen));
  assert.ok(seen.moved > seen.runs / 10, JSON.stringify(seen));
});
