/** What only the kernel's layout has: what stands in the DMB, what may not come on TCP, and what a peer may write. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { RemoteDmb } from '../../ism/index.ts';
import { act, connect, DMB_BYTES, type End, look, moved, takeAll } from '../connection.test.helper.ts';
import { PeerFault } from '../errors.ts';
import { KernelLayout } from './layout.ts';
import { CDC_BYTES, CDC_FLAG, decodeCdc, describeCdc, encodeCdc } from './message.ts';

const RING_BYTES = DMB_BYTES - CDC_BYTES;

const headOf = ({ dmb }: End) => describeCdc(decodeCdc(dmb.bytes, 'LE'));

test('the message stands in the head, and the data behind it', async () => {
  const [a, b] = await moved('kernel');
  a.connection.out.write(Buffer.from('hello'));
  assert.equal(b.dmb.bytes.toString('latin1', CDC_BYTES, CDC_BYTES + 5), 'hello');
  assert.equal(b.dmb.bytes.toString('hex', 0, CDC_BYTES), `fe${'00'.repeat(9)}05${'00'.repeat(21)}`);
  look(b);
  assert.equal(String(takeAll(b)), 'hello');
  b.connection.end();
  assert.equal(headOf(a), 'prod 0:0 cons 0:5 flags - state SENDING_DONE');
});

test('for a peer on s390 everything is big-endian', async () => {
  const [a, b] = await connect('kernel');
  const layout = new KernelLayout(a.dmb, a.remote, 'BE');
  const other = new KernelLayout(b.dmb, b.remote, 'BE');
  layout.out.write(Buffer.from('hello'));
  assert.equal(b.dmb.bytes.readUInt32BE(10), 5);
  other.look();
  assert.equal(String(other.in.take(100)), 'hello');
});

test('data is stored before the producer word, that before the flags, and then comes the signal', async () => {
  const [a] = await connect('kernel');
  const order: string[] = [];
  const spy: RemoteDmb = {
    token: a.remote.token,
    generation: a.remote.generation,
    lengthBytes: a.remote.lengthBytes,
    bytes: null,
    move: (offset, data) => void order.push(`move ${data.length} to ${offset}`),
    storeWord: (offset) => void order.push(`word ${offset}`),
    storeLong: (offset) => void order.push(`long ${offset}`),
    signal: () => void order.push('signal'),
  };
  const layout = new KernelLayout(a.dmb, spy);
  layout.out.write(Buffer.alloc(RING_BYTES - 1));
  assert.deepEqual(order, ['move 1 to 0', `move ${RING_BYTES - 1} to 32`, 'long 8', 'long 16', 'signal']);
});

test('there is no way but the ring', async () => {
  const [a] = await moved('kernel');
  const { connection } = a;
  assert.equal(connection.canGoBack, false);
  connection.in.arm();
  connection.in.retract();
  connection.in.neverCut();
  connection.out.back();
  assert.deepEqual([connection.in.state, connection.out.state], ['MOVED', 'MOVED']);
  assert.deepEqual([connection.in.isFromRing, connection.in.isNative, connection.in.isBound], [true, false, true]);
  assert.equal(connection.out.mayCut, false);
  assert.throws(() => connection.out.cut(0), PeerFault);
});

test('a byte on TCP is a fault of the peer, before and after its end', async () => {
  const [a] = await moved('kernel');
  assert.throws(() => a.connection.in.tcpBytes(Buffer.from('x')), PeerFault);
  a.connection.in.tcpEnd();
  a.connection.in.tcpEnd();
  assert.equal(a.connection.in.state, 'REST');
  assert.throws(() => a.connection.in.tcpBytes(Buffer.from('x')), PeerFault);
});

test('bytes go on TCP again only when nobody reads the ring any more', async () => {
  const [closes, closed] = await moved('kernel');
  closes.connection.close(false);
  look(closed);
  closed.connection.out.back();
  assert.equal(closed.connection.out.state, 'TCP');

  const [orphan] = await moved('kernel');
  orphan.connection.in.tcpEnd();
  orphan.connection.out.back();
  assert.equal(orphan.connection.out.state, 'TCP');

  const [ends, reads] = await moved('kernel');
  ends.connection.end();
  look(reads);
  reads.connection.in.tcpEnd();
  reads.connection.out.back();
  assert.equal(reads.connection.out.state, 'MOVED');
});

test('the peer tells its end in the ring: TCP need not', async () => {
  const [a, b] = await moved('kernel');
  assert.equal(b.connection.in.isEndSaid, false);
  a.connection.out.write(Buffer.from('all'));
  a.connection.end();
  look(b);
  assert.equal(b.connection.in.isEndSaid, true);
  assert.equal(String(takeAll(b)), 'all');
});

test('news is what the flags tell of an end, and is told once', async () => {
  const [a, b] = await moved('kernel');
  a.connection.out.write(Buffer.alloc(RING_BYTES)); // WRITE_BLOCKED is no news
  assert.equal(b.connection.look(), false);
  a.connection.end();
  assert.equal(b.connection.look(), true);
  assert.equal(b.connection.look(), false);
});

test('a write sees room that came free meanwhile', async () => {
  const [a, b] = await moved('kernel');
  assert.equal(a.connection.out.write(Buffer.alloc(RING_BYTES)), RING_BYTES);
  look(b);
  takeAll(b);
  assert.ok(a.connection.out.write(Buffer.alloc(RING_BYTES)) > RING_BYTES / 2);
});

test('urgent bytes are passed over, and the window says so', async () => {
  const [a, b] = await moved('kernel');
  // As a kernel that was told to send MSG_OOB.
  const urgent = { producer: { wrap: 0, count: 4 }, consumer: { wrap: 0, count: 0 } };
  const flags = CDC_FLAG.URGENT_PENDING | CDC_FLAG.URGENT_PRESENT;
  a.remote.move(CDC_BYTES, Buffer.from('abc!'));
  a.remote.move(0, encodeCdc({ ...urgent, flags }, 'LE'));
  look(b);
  assert.deepEqual([b.connection.in.unread, b.connection.in.canTake], [3, true]);
  assert.equal(String(takeAll(b)), 'abc');
  assert.equal(b.connection.in.canTake, false);
  assert.equal(headOf(a), 'prod 0:0 cons 0:4 flags - state -');
});

for (const [what, message] of [
  ['more bytes than the ring holds', { producer: { wrap: 1, count: 1 } }],
  ['a place outside of the ring', { producer: { wrap: 0, count: RING_BYTES } }],
  ['a round that was left out', { producer: { wrap: 2, count: 0 } }],
  ['more read than was written', { consumer: { wrap: 0, count: 1 } }],
] as const) {
  test(`a peer that says ${what} is at fault, each time it is read`, async () => {
    const [a, b] = await moved('kernel');
    const start = { wrap: 0, count: 0 };
    b.remote.move(0, encodeCdc({ producer: start, consumer: start, flags: 0, ...message }, 'LE'));
    assert.throws(() => a.connection.look(), PeerFault);
    assert.throws(() => a.connection.look(), PeerFault);
    assert.throws(() => a.connection.out.write(Buffer.alloc(2 * RING_BYTES)), PeerFault);
    assert.equal(a.connection.in.canTake, false);
  });
}

test('whatever a peer writes into its head: a fault of the peer or bytes of its ring, nothing else', async () => {
  const cursor = fc.oneof(
    { weight: 4, arbitrary: fc.constant({ wrap: 0, count: 0 }) },
    { weight: 4, arbitrary: fc.record({ wrap: fc.constant(0), count: fc.integer({ min: 0, max: RING_BYTES }) }) },
    { weight: 1, arbitrary: fc.record({ wrap: fc.nat(3), count: fc.nat(RING_BYTES) }) },
    { weight: 1, arbitrary: fc.record({ wrap: fc.nat(0xffff), count: fc.nat(0xffffffff) }) },
  );
  const message = fc
    .record({ producer: cursor, consumer: cursor, flags: fc.integer({ min: 0, max: 0xffff }) })
    .map((one) => encodeCdc(one, 'LE'));
  const bytes = fc.uint8Array({ minLength: CDC_BYTES, maxLength: CDC_BYTES }).map((array) => Buffer.from(array));
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.tuple(fc.constant('store' as const), fc.oneof(message, bytes)) },
    { weight: 4, arbitrary: fc.tuple(fc.constant('look' as const)) },
    { weight: 3, arbitrary: fc.tuple(fc.constant('take' as const)) },
    { weight: 2, arbitrary: fc.tuple(fc.constant('write' as const), fc.integer({ min: 1, max: 20_000 })) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        ['end'] as const,
        ['back'] as const,
        ['tcpEnd'] as const,
        ['close'] as const,
        ['die'] as const,
      ),
    },
  );
  let faults = 0;
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40, size: 'max' }), async (steps) => {
      const [victim, attacker] = await moved('kernel');
      const { connection } = victim;
      try {
        for (const one of steps) {
          switch (one[0]) {
            case 'store':
              attacker.remote.move(0, one[1]);
              break;
            case 'take':
              taken += connection.in.take(5000)?.length ?? 0;
              break;
            case 'write':
              if (connection.out.isMoved) assert.ok(connection.out.write(Buffer.alloc(one[1])) <= RING_BYTES);
              break;
            default:
              act(connection, one[0]);
          }
        }
      } catch (error) {
        if (!(error instanceof PeerFault)) throw error;
        faults++;
      }
      assert.ok(connection.in.unread <= RING_BYTES && connection.out.unconsumed <= RING_BYTES);
    }),
    { numRuns: 1500 },
  );
  assert.ok(faults > 0 && taken > 0);
});
