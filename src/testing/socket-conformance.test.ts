import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { allSocketScenarios, runSocketScenario, type SocketPair, socketPair } from './socket-conformance.ts';

/** What could be wrong with a carrier, one thing at a time: done to both ends of a plain pair. */
const FAULTS = {
  'one byte in many is lost': (socket) => {
    const push = socket.push;
    socket.push = function (chunk: Buffer | null, ...rest: []) {
      return push.call(this, chunk !== null && chunk.length > 1000 ? chunk.subarray(1) : chunk, ...rest);
    };
  },
  'an end is shown as a reset': (socket) => {
    const push = socket.push;
    socket.push = function (chunk: Buffer | null, ...rest: []) {
      if (chunk !== null) return push.call(this, chunk, ...rest);
      socket.destroy(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET', syscall: 'read' }));
      return false;
    };
  },
  'a reset is shown as an end': (socket) => {
    const destroy = socket.destroy;
    socket.destroy = function (error?: NodeJS.ErrnoException) {
      if (error?.code !== 'ECONNRESET') return destroy.call(this, error);
      this.push(null);
      return this;
    };
  },
  'bytes written are not counted': (socket) => Object.defineProperty(socket, 'bytesWritten', { get: () => 0 }),
  'a paused reader gets bytes': (socket) => {
    socket.pause = () => socket;
  },
  'timeouts do not come': (socket) => {
    socket.setTimeout = () => socket;
  },
} satisfies Record<string, (socket: Socket) => unknown>;

/**
 * Titles of the scenarios that show something else than on plain TCP.
 * @param limitMs of each: one that has no end then differs
 */
async function differences(spoil: (socket: Socket) => unknown, limitMs = 15_000): Promise<string[]> {
  const spoiled = async (options?: Parameters<typeof socketPair>[0]): Promise<SocketPair> => {
    const pair = await socketPair(options);
    for (const socket of [pair.client, pair.server]) {
      socket.on('error', () => {});
      spoil(socket);
    }
    return pair;
  };
  const differs = await Promise.all(
    allSocketScenarios()
      .filter(({ section }) => section !== 'contexts' && section !== 'http') // all at once here, and an exception of one is one's of another
      .map(async ({ title, scenario }) => {
        const plain = await runSocketScenario(scenario, socketPair);
        const ended = runSocketScenario(scenario, spoiled).catch(String);
        const seen = await Promise.race([
          ended,
          new Promise((resolve) => setTimeout(resolve, limitMs, 'no end').unref()),
        ]);
        return JSON.stringify(seen) === JSON.stringify(plain) ? [] : [title];
      }),
  );
  return differs.flat();
}

test('plain TCP shows the same twice', async () => {
  assert.deepEqual(await differences(() => {}, 60_000), []);
});

for (const [what, spoil] of Object.entries(FAULTS)) {
  test(`the suite finds a carrier of which it is true that ${what}`, async (t) => {
    const titles = await differences(spoil);
    t.diagnostic(titles.join(', '));
    assert.ok(titles.length > 0, 'no scenario differs');
  });
}
