/** Ways back that begin while a direction is on its way there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { eventually } from '../../src/testing/index.ts';
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

test('a program that has paused keeps its buffer of onread, though what comes next comes by TCP', async () => {
  const buffer = Buffer.alloc(100);
  let isPaused = false;
  let got = '';
  const callback = (length: number): boolean => {
    got += buffer.toString('latin1', 0, length);
    return !isPaused;
  };
  const makePair = movedPair('moved at the first byte', twoPartitions('mapped'));
  const { client, server, movers, close } = await makePair({ connect: { onread: { buffer, callback } } });
  got = '';
  isPaused = true;
  server.write('first');
  await eventually('the program has the first bytes', () => got === 'first');
  server.write(' through the ring');
  const restored = movers[1].restore();
  await eventually('the server is on TCP', () => movers[1].connection?.out.isMoved === false);
  server.write(' and TCP');
  server.end();
  await delay(50);
  assert.equal(buffer.toString('latin1', 0, 5), 'first');
  isPaused = false;
  client.resume();
  await eventually('all has come', () => got === 'first through the ring and TCP');
  await restored;
  await close();
});
