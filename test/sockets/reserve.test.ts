/** Room that is reserved, filled in place and committed, on connections that go each way there is. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import type { Mover } from '../../src/net/mover.ts';
import { type Reservation, reserveRoom } from '../../src/net/reservation.ts';
import { eventually, socketPair } from '../../src/testing/index.ts';
import { movedPair, oneLoop } from './pairs.ts';
import { WAYS } from './ways.ts';

const IN_PLACE = ['loopback', 'host, mapped'];

const reserveOf = (socket: Socket, mover: Mover | undefined, lengthBytes: number): Reservation | null =>
  reserveRoom(socket, lengthBytes, mover?.carrier ?? null);

function reserved(socket: Socket, mover: Mover | undefined, lengthBytes: number): Reservation {
  const room = reserveOf(socket, mover, lengthBytes);
  assert.ok(room);
  return room;
}

/** Byte i of a stream. */
const streamOf = (from: number, length: number) =>
  Buffer.from(Array.from({ length }, (_, i) => ((from + i) * 31 + ((from + i) >>> 8)) & 0xff));

function readAll(socket: Socket): Buffer[] {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  return chunks;
}

type Act =
  /** Of so many bytes, that part is committed; so much is written meanwhile; so many turns pass before the commit. */
  | readonly ['reserve', number, number, number, number]
  | readonly ['write', number]
  | readonly ['wait', number]
  | readonly ['restore']
  | readonly ['accelerate'];
const acts: fc.Arbitrary<Act[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.tuple(
        fc.constant('reserve' as const),
        fc.integer({ min: 1, max: 20_000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.oneof(fc.constant(0), fc.nat(5000)),
        fc.nat(2),
      ),
    },
    { weight: 3, arbitrary: fc.tuple(fc.constant('write' as const), fc.integer({ min: 1, max: 20_000 })) },
    { weight: 3, arbitrary: fc.tuple(fc.constant('wait' as const), fc.nat(3)) },
    fc.tuple(fc.constant('restore' as const)),
    fc.tuple(fc.constant('accelerate' as const)),
  ),
  { minLength: 1, maxLength: 20 },
);

for (const [way, makePair] of Object.entries(WAYS)) {
  test(`${way}: bytes are in the order of write and commit, each is counted once, and each is called back`, async () => {
    let inPlace = 0;
    await fc.assert(
      fc.asyncProperty(acts, async (script) => {
        const { client, server, movers, close } = await makePair();
        const chunks = readAll(server);
        const before = client.bytesWritten;
        let at = 0;
        let called = 0;
        let calls = 0;
        const next = (length: number) => {
          at += length;
          return streamOf(at - length, length);
        };
        const write = (length: number) => {
          calls++;
          client.write(next(length), () => called++);
        };
        for (const [what, n, part, meanwhile, turns] of script) {
          if (what === 'reserve') {
            const room = reserveOf(client, movers?.[0], n);
            if (room === null) {
              assert.ok(client.writableNeedDrain);
              continue;
            }
            if (room.isShared) inPlace++;
            assert.equal(room.bytes.length, n);
            const length = Math.floor(n * part);
            room.bytes.set(streamOf(at + meanwhile, length));
            for (let i = 0; i < turns; i++) await turn();
            if (meanwhile > 0) write(meanwhile);
            if (length > 0) calls++;
            room.commit(length, length > 0 ? () => called++ : undefined);
            at += length;
          }
          if (what === 'write') write(n);
          if (what === 'wait') for (let i = 0; i < n; i++) await turn();
          if (what === 'restore') await movers?.[1].restore();
          if (what === 'accelerate') for (const mover of movers ?? []) mover.retry();
          assert.equal(client.bytesWritten - before, at);
        }
        client.end();
        await eventually('the end', () => server.readableEnded);
        assert.ok(Buffer.concat(chunks).equals(streamOf(0, at)));
        await eventually('all are called back', () => called === calls);
        assert.equal(client.bytesWritten - before, at);
        await close();
      }),
      { numRuns: 60 },
    );
    if (way !== 'moving meanwhile') assert.equal(inPlace > 0, IN_PLACE.includes(way), `${inPlace} in place`);
  });

  test(`${way}: a reservation says what is wrong`, async () => {
    const { client, server, movers, close } = await makePair();
    const error = { code: 'ERR_ISTHMUS_RESERVE', fault: 'local' };
    const chunks = readAll(server);
    const room = reserved(client, movers?.[0], 10);
    assert.throws(() => reserveOf(client, movers?.[0], 10), error, 'one at a time');
    for (const length of [11, -1, 0.5, Number.NaN]) assert.throws(() => room.commit(length), error);
    room.bytes.set(streamOf(0, 10));
    assert.equal(room.commit(5), true);
    assert.throws(() => room.commit(5), error, 'twice');
    assert.throws(() => room.bytes, error);
    room[Symbol.dispose]();
    const other = reserved(client, movers?.[0], 10);
    other[Symbol.dispose]();
    assert.throws(() => other.commit(0), error);
    assert.equal(client.writableCorked, 0);
    client.write(streamOf(5, 5));
    await eventually('written', () => Buffer.concat(chunks).equals(streamOf(0, 10)));
    client.end();
    assert.throws(() => reserveOf(client, movers?.[0], 10), error, 'it has ended');
    await close();
  });

  for (const what of ['end', 'destroy'] as const) {
    test(`${way}: what is committed after ${what} fails as a write does, and what was written before arrives`, async () => {
      const { client, server, movers, close } = await makePair();
      const codes: (string | undefined)[] = [];
      const seen = async (socket: Socket, write: (called: (error?: Error | null) => void) => boolean) => {
        socket.on('error', (error: NodeJS.ErrnoException) => codes.push(error.code));
        socket[what]();
        codes.push(String(write((error) => codes.push((error as NodeJS.ErrnoException)?.code))));
        await eventually('closed', () => socket.destroyed);
        await turn();
        return codes.splice(0);
      };
      const chunks = readAll(server);
      server.on('error', () => {});
      const room = reserved(client, movers?.[0], 100);
      if (what === 'end') client.write('before');
      const got = await seen(client, (called) => room.commit(50, called));
      if (what === 'end') await eventually('written', () => String(Buffer.concat(chunks)) === 'before');
      await close();
      const plain = await socketPair();
      plain.server.resume();
      const expected = await seen(plain.client, (called) => plain.client.write(Buffer.alloc(50), called));
      assert.deepEqual(got, expected);
      await plain.close();
    });
  }
}

test('what is written while somebody takes the cork out is not taken for what was reserved', async () => {
  const { client, server, movers, close } = await movedPair('moved at the first byte', oneLoop)();
  const chunks = readAll(server);
  const room = reserved(client, movers[0], 100);
  assert.ok(room.isShared);
  client.write('hello');
  client.uncork();
  room.bytes.fill('x', 50);
  assert.throws(() => room.commit(), { code: 'ERR_ISTHMUS_RESERVE' });
  client.end(' there');
  await eventually('the end', () => server.readableEnded);
  assert.equal(String(Buffer.concat(chunks)), 'hello there');
  await close();
});
