/** Programs that write more than a ring holds before they read: what the buffers of TCP would take, and what happens where they could not. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import type { Connection } from '../../src/smc/connection.ts';
import { eventually } from '../../src/testing/index.ts';
import './own-fabric.ts';
import { type Grounds, movedPair, oneLoop, onePartition, SMALL_FOREVER, twoPartitions } from './pairs.ts';

const GROWING: Readonly<Record<string, Grounds>> = {
  loopback: oneLoop,
  'host, mapped': twoPartitions('mapped'),
  'host, store': twoPartitions('store'),
};

const BYTES = 2_500_000;

/** Both write before they read. @param seen is asked then */
async function crossed(grounds: Grounds, seen: (connections: readonly Connection[]) => Promise<void>): Promise<void> {
  const { client, server, movers, close } = await movedPair('moved at the first byte', grounds)();
  const sockets = [client, server];
  const sent = sockets.map((_, i) => Buffer.alloc(BYTES, `${i} is who wrote this.`));
  for (const socket of sockets) socket.pause();
  await Promise.all(sockets.map((socket, i) => new Promise((resolve) => socket.write(sent[i] as Buffer, resolve))));
  await seen(movers.map(({ connection }) => connection as Connection));
  const got = await Promise.all(sockets.map(read));
  assert.ok(got[1]?.equals(sent[0] as Buffer) && got[0]?.equals(sent[1] as Buffer));
  await eventually('both are moved again', () => movers.every((mover) => mover.isWhollyMoved));
  await close();
}

async function read(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes >= BYTES) break;
  }
  return Buffer.concat(chunks);
}

for (const [way, grounds] of Object.entries(GROWING)) {
  test(`${way}: two that both write megabytes before they read get room in their rings`, () =>
    crossed(grounds, async (connections) => {
      for (const { out } of connections) assert.equal(out.state, 'MOVED');
      await eventually('both have grown', () => connections.every(({ dmbBytes }) => dmbBytes > BYTES));
    }));
}

test('where rings may not grow, a write goes by TCP, and the connection moves again', () =>
  crossed(onePartition(SMALL_FOREVER), async (connections) => {
    assert.ok(connections.some(({ out }) => out.state !== 'MOVED'));
    assert.ok(connections.every(({ dmbBytes }) => dmbBytes === SMALL_FOREVER.dmbBytes));
  }));
