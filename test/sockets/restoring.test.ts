/** Ways back that begin while a direction is on its way there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import './own-fabric.ts';
import { movedPair, twoPartitions } from './pairs.ts';

test('restore is settled, though the words of the way back had come before the bytes of TCP that they are about', async () => {
  const makePair = movedPair('moved at the first byte', twoPartitions('store'));
  for (let round = 0; round < 12; round++) {
    const { client, server, movers, close } = await makePair();
    server.resume();
    client.write(Buffer.alloc(33_000));
    for (let i = 0; i < 3; i++) await turn();
    await movers[1].restore();
    for (const mover of movers) mover.retry();
    client.write('x');
    for (let i = 0; i < round % 4; i++) await turn();
    await movers[1].restore();
    assert.ok(!movers[1].isMoved);
    await close();
  }
});
