import assert from 'node:assert/strict';
import { once } from 'node:events';
import { afterEach, test } from 'node:test';
import { LoopbackDevice } from '../../src/devices/loopback/index.ts';
import type { Dmb, DmbRequest } from '../../src/ism/index.ts';
import { WORD, type WordName } from '../../src/smc/head.ts';
import { eventually } from '../../src/testing/index.ts';
import { type MovablePair, movedPair as makeMoved } from '../sockets/pairs.ts';

/** Every DMB that is made, so that a test can write into it as its peer could. */
const dmbs: Dmb[] = [];
const register = LoopbackDevice.prototype.registerDmb;
LoopbackDevice.prototype.registerDmb = async function (request: DmbRequest) {
  const dmb = await register.call(this, request);
  dmbs.push(dmb);
  return dmb;
};

const pairs: MovablePair[] = [];
afterEach(async () => {
  for (const pair of pairs.splice(0)) await pair.close();
});

async function movedPair(): Promise<MovablePair> {
  const pair = await makeMoved('moved at the first byte')();
  pairs.push(pair);
  return pair;
}

for (const [what, words] of [
  ['more bytes than the ring holds', [['PRODUCED', 1 << 20]]],
  ['a cursor that runs backwards', [['CONSUMED', -5]]],
  ['READY out of turn', [['READY', 12]]],
  [
    'BACK that is ahead of the bytes',
    [
      ['BACK_AT', 1000],
      ['BACK', 1],
    ],
  ],
] as const satisfies readonly (readonly [string, readonly (readonly [WordName, number])[]])[]) {
  test(`a peer that writes ${what} resets this connection and no other`, async () => {
    const [good, bad] = [await movedPair(), await movedPair()];
    const [victim] = bad.movers;
    const dmb = dmbs.find(({ clientData }) => clientData === victim);
    assert.ok(dmb);
    for (const [word, value] of [...words, ['NEWS', 99]] as const) Atomics.store(dmb.words, WORD[word], value);
    const failed = once(bad.client, 'error');
    bad.server.on('error', () => {}); // to whoever broke the rules it is no clean end
    victim.look();
    const [error] = (await failed) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'ECONNRESET');
    assert.equal(victim.reason.name, 'PROTOCOL');
    bad.server.resume();
    await eventually('its other end is closed', () => bad.server.closed);
    good.client.write('fine');
    const [chunk] = (await once(good.server, 'data')) as [Buffer];
    assert.equal(String(chunk), 'fine');
  });
}

for (const bytes of [1000, 200_000]) {
  test(`a peer whose cursor is nonsense does not make a write of ${bytes} bytes throw`, async () => {
    const { client, server, movers } = await movedPair();
    const dmb = dmbs.find(({ clientData }) => clientData === movers[0]);
    assert.ok(dmb);
    client.write(Buffer.alloc(16_000)); // the ring is nearly full, and nobody has read yet
    Atomics.store(dmb.words, WORD.CONSUMED, -5);
    const failed = once(client, 'error');
    client.write(Buffer.alloc(bytes));
    client.write(Buffer.alloc(bytes));
    const [error] = (await failed) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'ECONNRESET');
    server.on('error', () => {}).resume();
  });
}

test('a byte on TCP that should not be there resets the connection', async () => {
  const { client, server, movers } = await movedPair();
  const failed = once(server, 'error');
  server.resume();
  // The peer writes on TCP although it has cut.
  const { _handle: handle } = client as unknown as {
    _handle: { writeLatin1String(request: object, text: string): number };
  };
  const { WriteWrap } = (process as unknown as { binding(name: string): { WriteWrap: new () => object } }).binding(
    'stream_wrap',
  );
  handle.writeLatin1String(new WriteWrap(), 'x');
  const [error] = (await failed) as [NodeJS.ErrnoException];
  assert.equal(error.code, 'ECONNRESET');
  assert.equal(movers[1].reason.name, 'PROTOCOL');
});
