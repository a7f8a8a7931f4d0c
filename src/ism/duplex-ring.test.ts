/** Bytes both ways over each device, and peers that lie. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LoopbackFabric } from '../devices/loopback/index.ts';
import { countingClient, DEVICES, DMB_BYTES, streamOf } from '../smc/connection.test.helper.ts';
import { eventually } from '../testing/index.ts';
import type { Device, Dmb, RemoteDmb } from './index.ts';
import { IsmError, RING_HEAD_BYTES, RING_WORD, Ring } from './index.ts';

const RING_BYTES = DMB_BYTES - RING_HEAD_BYTES;

interface End {
  readonly ring: Ring;
  readonly dmb: Dmb;
  /** The peer's. */
  readonly remote: RemoteDmb;
  readonly signals: { count: number };
  give(): Promise<void>;
}

async function ringsOf(a: Device, b: Device, lengthBytes = DMB_BYTES): Promise<readonly [End, End]> {
  const signals: readonly [End['signals'], End['signals']] = [{ count: 0 }, { count: 0 }];
  const dmbs = [
    await a.registerDmb({ peer: b.gid, lengthBytes, client: countingClient(signals[0]) }),
    await b.registerDmb({ peer: a.gid, lengthBytes, client: countingClient(signals[1]) }),
  ] as const;
  const end = async (device: Device, i: 0 | 1): Promise<End> => {
    const dmb = dmbs[i];
    const remote = await device.attachDmb(dmbs[i === 0 ? 1 : 0].token);
    const give = async () => {
      device.detachDmb(remote);
      await device.unregisterDmb(dmb);
    };
    return { ring: new Ring(dmb, remote), dmb, remote, signals: signals[i], give };
  };
  return [await end(a, 0), await end(b, 1)];
}

/** Over loopback, where nothing has to be given back. */
function pair(lengthBytes = DMB_BYTES): Promise<readonly [End, End]> {
  const fabric = new LoopbackFabric();
  return ringsOf(fabric.createDevice(), fabric.createDevice(), lengthBytes);
}

type Act = readonly ['write' | 'reserve' | 'read' | 'peek', number];

const acts: fc.Arbitrary<Act[]> = fc.array(
  fc.tuple(
    fc.constantFrom('write' as const, 'reserve' as const, 'read' as const, 'peek' as const),
    fc.oneof(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: RING_BYTES + 100 })),
  ),
  { maxLength: 150, size: 'max' },
);

/** Each end writes its own stream and reads the other's. @returns how many bytes have gone one way */
function play(ends: readonly [End, End], script: readonly (readonly [0 | 1, Act])[]): number {
  const written = [0, 0];
  const read = [0, 0];
  const at = (counts: number[], i: number) => counts[i] as number;
  const got = (i: 0 | 1, bytes: Uint8Array) => {
    assert.ok(streamOf(at(read, i), bytes.length).equals(bytes), `after ${read[i]} bytes`);
    read[i] = at(read, i) + bytes.length;
  };
  const step = (i: 0 | 1, [what, n]: Act) => {
    const { ring } = ends[i];
    switch (what) {
      case 'write': {
        const { room } = ring;
        const count = ring.write(streamOf(at(written, i) - 3, n + 3), 3);
        assert.equal(count, Math.min(n, room));
        written[i] = at(written, i) + count;
        break;
      }
      case 'reserve': {
        const reserved = ring.reserve(n);
        if (reserved === null) break;
        const length = n >> 1;
        reserved.set(streamOf(at(written, i), length));
        ring.commit(length);
        written[i] = at(written, i) + length;
        break;
      }
      case 'read': {
        const target = new Uint8Array(n);
        got(i, target.subarray(0, ring.read(target)));
        break;
      }
      case 'peek': {
        const bytes = ring.peek().subarray(0, n);
        got(i, bytes);
        ring.advance(bytes.length);
        break;
      }
      default:
        what satisfies never;
    }
  };
  for (const [i, act] of script) step(i, act);
  for (const i of [0, 1] as const) {
    for (let left = at(written, 1 - i) - at(read, i); left > 0; left = at(written, 1 - i) - at(read, i)) {
      step(i, ['read', 1 + (left >> 1)]);
    }
    assert.equal(ends[i].ring.readable, 0);
    assert.equal(ends[i].ring.peek().length, 0);
  }
  for (const { ring } of ends) assert.equal(ring.room, RING_BYTES, 'all room is free again');
  return at(written, 0);
}

for (const [device, makeGround] of Object.entries(DEVICES)) {
  test(`${device}: every byte comes once and in order, both ways, however it is written and read`, async () => {
    const { a, b, close } = await makeGround();
    let total = 0;
    await fc.assert(
      fc.asyncProperty(acts, acts, async (one, other) => {
        const ends = await ringsOf(a, b);
        const script = one.flatMap((act, i) => [[0, act] as const, ...(other[i] ? [[1, other[i]] as const] : [])]);
        total += play(ends, script);
        for (const end of ends) await end.give();
      }),
      { numRuns: 40 },
    );
    assert.ok(total > 4 * RING_BYTES, `only ${total} bytes have passed`);
    await close();
  });

  test(`${device}: a reader that sleeps is signalled, and so is a writer that asked for room`, async () => {
    const { a, b, close } = await makeGround();
    const ends = await ringsOf(a, b);
    const [writer, reader] = ends;
    assert.equal(writer.ring.write(streamOf(0, RING_BYTES + 1)), RING_BYTES);
    writer.ring.signal();
    await eventually('the reader is signalled', () => reader.signals.count > 0);
    assert.equal(writer.ring.askForRoom(), false);
    assert.equal(writer.signals.count, 0);
    reader.ring.read(Buffer.alloc(RING_BYTES));
    await eventually('the writer is signalled', () => writer.signals.count > 0);
    assert.equal(writer.ring.askForRoom(RING_BYTES), true);
    for (const end of ends) await end.give();
    await close();
  });
}

test('a writer that asks for room gets what was read and not yet said', async () => {
  const [writer, reader] = await pair();
  writer.ring.write(Buffer.alloc(100));
  reader.ring.read(Buffer.alloc(100)); // less than a quarter, and it has not looked since
  assert.equal(writer.ring.room, RING_BYTES - 100);
  assert.equal(writer.ring.askForRoom(RING_BYTES), false);
  await eventually('the reader is signalled', () => reader.signals.count > 0);
  assert.equal(reader.ring.readable, 0); // what its handleSignal does
  await eventually('the writer is signalled', () => writer.signals.count > 0);
  assert.equal(writer.ring.room, RING_BYTES);
});

test('a write tells what was read', async () => {
  const [writer, reader] = await pair();
  writer.ring.write(Buffer.alloc(100));
  reader.ring.read(Buffer.alloc(100));
  reader.ring.write(Buffer.alloc(1));
  assert.equal(writer.ring.room, RING_BYTES);
});

test('spinning ends when there is something, and after its time', async () => {
  const [writer, reader] = await pair();
  assert.equal(reader.ring.spinForBytes(1), false);
  assert.equal(writer.ring.spinForRoom(1, RING_BYTES), true);
  writer.ring.write(Buffer.alloc(1));
  assert.equal(reader.ring.spinForBytes(1), true);
  assert.equal(writer.ring.spinForRoom(1, RING_BYTES), false);
});

const range = { code: 'ERR_ISTHMUS_RANGE', fault: 'local' };

test('what a caller cannot do is a RANGE error, and changes nothing', async () => {
  const [writer, reader] = await pair();
  for (const length of [-1, 0.5, Number.NaN, 1]) {
    assert.throws(() => writer.ring.commit(length), range);
    assert.throws(() => reader.ring.advance(length), range);
    if (length !== 1) assert.throws(() => writer.ring.reserve(length), range);
    if (length !== 1) assert.throws(() => writer.ring.write(Buffer.alloc(9), length), range);
  }
  assert.throws(() => writer.ring.write(Buffer.alloc(9), 10), range);
  assert.equal(writer.ring.reserve(RING_BYTES + 1), null);
  assert.equal(writer.ring.reserve(10)?.length, 10);
  assert.throws(() => writer.ring.write(Buffer.alloc(1)), range);
  assert.throws(() => writer.ring.reserve(1), range);
  assert.throws(() => writer.ring.commit(11), range);
  writer.ring.commit(0);
  assert.equal(reader.ring.readable, 0);
  assert.throws(() => new Ring(reader.dmb, { ...reader.remote, lengthBytes: RING_HEAD_BYTES }), range);
});

test('rings of two lengths: each end has the room of the other one', async () => {
  const fabric = new LoopbackFabric();
  const [a, b] = [fabric.createDevice(), fabric.createDevice()];
  const short = await ringsOf(a, b, 1000);
  const long = await ringsOf(a, b, 2000);
  const one = new Ring(short[0].dmb, long[0].remote);
  const other = new Ring(long[1].dmb, short[1].remote);
  assert.deepEqual([one.room, other.room], [2000 - RING_HEAD_BYTES, 1000 - RING_HEAD_BYTES]);
  assert.deepEqual([one.write(Buffer.alloc(5000)), other.readable], [2000 - RING_HEAD_BYTES, 2000 - RING_HEAD_BYTES]);
});

for (const [lie, word, value] of [
  ['more bytes than the ring holds', RING_WORD.PRODUCED, RING_BYTES + 51],
  ['a cursor of bytes that runs backwards', RING_WORD.PRODUCED, 99],
  ['a cursor of bytes from nowhere', RING_WORD.PRODUCED, -1],
  ['more taken than was written', RING_WORD.CONSUMED, 201],
  ['a cursor of what was taken that runs backwards', RING_WORD.CONSUMED, 49],
  ['taken from nowhere', RING_WORD.CONSUMED, -5],
] as const) {
  test(`a peer that says ${lie} is a PROTOCOL error, each time`, async () => {
    const [{ ring }, liar] = await pair();
    liar.ring.write(Buffer.alloc(150));
    ring.read(Buffer.alloc(50));
    assert.equal(ring.readable, 100);
    ring.write(Buffer.alloc(200));
    liar.ring.read(Buffer.alloc(50));
    liar.ring.write(Buffer.alloc(1)); // tells that
    assert.equal(ring.room, RING_BYTES - 150);
    assert.equal(ring.readable, 101);
    liar.remote.storeWord(4 * word, value);
    const broken = (error: unknown) => error instanceof IsmError && error.code === 'ERR_ISTHMUS_PROTOCOL';
    for (const act of word === RING_WORD.PRODUCED
      ? [
          () => ring.readable,
          () => ring.read(Buffer.alloc(9)),
          () => ring.peek(),
          () => ring.advance(1),
          () => ring.spinForBytes(1),
        ]
      : [() => ring.room, () => ring.reserve(1), () => ring.write(Buffer.alloc(RING_BYTES)), () => ring.spinForRoom(1)])
      assert.throws(act, broken);
  });
}

test('whatever a peer writes into the head ends in an error or in a number that can be', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(RING_HEAD_BYTES / 4 - 1), fc.integer()), { maxLength: 20 }),
      async (stores) => {
        const [{ ring }, liar] = await pair(1024);
        ring.write(Buffer.alloc(300));
        for (const [word, value] of stores) {
          liar.remote.storeWord(4 * word, value);
          try {
            assert.ok(ring.read(Buffer.alloc(200)) <= 200);
            assert.ok(ring.write(Buffer.alloc(200)) <= 200);
            assert.ok(ring.room >= 0 && ring.room <= 1024 - RING_HEAD_BYTES);
          } catch (error) {
            assert.equal((error as IsmError).code, 'ERR_ISTHMUS_PROTOCOL');
          }
        }
      },
    ),
  );
});
