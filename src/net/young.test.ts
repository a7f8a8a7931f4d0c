import assert from 'node:assert/strict';
import { AsyncResource } from 'node:async_hooks';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../testing/index.ts';
import { Nursery } from './young.ts';

const NEVER_MS = 1e6;
const NEVER_BYTES = 1e9;

/** A connection whose client is in a nursery; which sockets have grown up. */
async function nursery(t: TestContext, { lazyBytes = NEVER_BYTES, lazyMs = NEVER_MS }) {
  const grown: Socket[] = [];
  const young = new Nursery(
    () => ({ lazyBytes, lazyMs }),
    ({ socket }) => grown.push(socket),
  );
  const listener = createServer((socket) => socket.resume());
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as { port: number };
  const born = () => {
    const socket = connect(port, '127.0.0.1');
    young.add({ socket, role: 'client', context: new AsyncResource('ISTHMUS') });
    t.after(() => socket.destroy());
    return socket;
  };
  t.after(() => listener.close());
  return { grown, born };
}

test('a connection grows up by age, once', async (t) => {
  const { grown, born } = await nursery(t, { lazyMs: 40 });
  const before = performance.now();
  const socket = born();
  await eventually('grown', () => grown.length > 0);
  assert.ok(performance.now() - before >= 39);
  await sleep(60);
  assert.deepEqual(grown, [socket]);
});

test('bytes make it grow up sooner', async (t) => {
  const { grown, born } = await nursery(t, { lazyBytes: 1000 });
  const [few, many] = [born(), born()];
  few.write(Buffer.alloc(999));
  many.write(Buffer.alloc(1000));
  await eventually('grown', () => grown.length > 0);
  await sleep(60);
  assert.deepEqual(grown, [many]);
});

test('one that ends before does not grow up', async (t) => {
  const { grown, born } = await nursery(t, { lazyMs: 60 });
  const [short, long] = [born(), born()];
  await once(short, 'connect');
  short.destroy();
  await eventually('grown', () => grown.length > 0);
  assert.deepEqual(grown, [long]);
});

test('one that is still connecting waits', async (t) => {
  const { grown, born } = await nursery(t, { lazyMs: 0 });
  const socket = born();
  let wasConnected = false;
  socket.on('connect', () => {
    wasConnected = grown.length === 0;
  });
  await eventually('grown', () => grown.length > 0);
  assert.ok(wasConnected);
});
