import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PeerFault } from '../errors.ts';
import { distance, START } from './cursor.ts';
import {
  type Cdc,
  consume,
  openCdc,
  raise,
  readable,
  receive,
  room,
  type Said,
  send,
  unconsumed,
  unread,
} from './engine.ts';
import { CDC_FLAG, type CdcMessage } from './message.ts';

/** Of a DMB of 64 KiB. */
const RING = 65504;
/** Above a tenth of it the peer may be told. */
const LIMIT = 6550;

const at = (count: number, wrap = 0) => ({ wrap, count });
const says = (message: Partial<CdcMessage>): CdcMessage => ({ producer: START, consumer: START, flags: 0, ...message });
const after = (...messages: readonly Partial<CdcMessage>[]): Cdc =>
  messages.reduce<Cdc>((cdc, message) => receive(cdc, says(message)).cdc, openCdc(RING, RING));

// --- Sending ---

test('what fits is moved, in two pieces where the ring ends, and told', () => {
  let { cdc } = send(openCdc(RING, RING), RING - 10);
  cdc = receive(cdc, says({ consumer: at(RING - 10) })).cdc;
  const said = send(cdc, 30);
  assert.deepEqual(said.pieces, [
    { offset: RING - 10, length: 10 },
    { offset: 0, length: 20 },
  ]);
  assert.deepEqual(said.message, { producer: at(20, 1), consumer: START, flags: 0 });
});

test('more than fits, or exactly what fits, is blocked; less is not', () => {
  for (const [waiting, flags] of [
    [RING + 1, CDC_FLAG.WRITE_BLOCKED],
    [RING, CDC_FLAG.WRITE_BLOCKED],
    [RING - 1, 0],
  ] as const) {
    const said = send(openCdc(RING, RING), waiting);
    assert.equal(said.message?.flags, flags, `${waiting} bytes`);
    assert.equal(unconsumed(said.cdc), Math.min(waiting, RING));
  }
});

test('without room nothing happens, not even a message; with room the block is lifted', () => {
  const { cdc } = send(openCdc(RING, RING), RING + 100);
  assert.deepEqual(send(cdc, 100), { cdc, message: null, pieces: [] });
  const freed = receive(cdc, says({ consumer: at(200) })).cdc;
  assert.deepEqual(send(freed, 100).message, { producer: at(100, 1), consumer: START, flags: 0 });
});

test('without bytes nothing happens', () => {
  const cdc = openCdc(RING, RING);
  assert.deepEqual(send(cdc, 0), { cdc, message: null, pieces: [] });
});

test('flags of the state stay, and come with every message', () => {
  const done = raise(openCdc(RING, RING), CDC_FLAG.SENDING_DONE);
  assert.equal(done.message?.flags, CDC_FLAG.SENDING_DONE);
  assert.equal(raise(done.cdc, CDC_FLAG.CLOSED).message?.flags, CDC_FLAG.SENDING_DONE | CDC_FLAG.CLOSED);
});

// --- The window ---

test('a short read is told with the next message only', () => {
  const read = consume(after({ producer: at(100) }), 100);
  assert.equal(read.message, null);
  assert.deepEqual(send(read.cdc, 1).message?.consumer, at(100));
});

for (const [what, peer, length, isTold] of [
  ['a read up to the limit of a full ring', { producer: at(0, 1) }, LIMIT, false],
  ['a read above the limit of a full ring', { producer: at(0, 1) }, LIMIT + 1, true],
  ['a read above the limit when half the ring is free', { producer: at(RING / 2) }, LIMIT + 1, true],
  ['a read above the limit when more than half is free', { producer: at(RING / 2 - 1) }, LIMIT + 1, false],
  [
    'the same for a writer that is blocked',
    { producer: at(RING / 2 - 1), flags: CDC_FLAG.WRITE_BLOCKED },
    LIMIT + 1,
    true,
  ],
  ['a read up to the limit for a blocked one', { producer: at(RING / 2), flags: CDC_FLAG.WRITE_BLOCKED }, LIMIT, false],
  ['one byte for a peer that asks', { producer: at(1), flags: CDC_FLAG.UPDATE_REQUESTED }, 1, true],
  ['anything for a peer that has aborted', { producer: at(0, 1), flags: CDC_FLAG.ABNORMAL_CLOSE }, RING, false],
] as const) {
  test(`${what} is ${isTold ? 'told at once' : 'not told at once'}`, () => {
    const { message } = consume(after(peer), length);
    assert.equal(message !== null, isTold);
    if (message !== null) assert.deepEqual(message.consumer, at(length));
  });
}

test('the smallest ring has a limit of its own', () => {
  const full = receive(openCdc(16352, 16352), says({ producer: at(0, 1) })).cdc;
  assert.equal(consume(full, 2304).message, null);
  assert.notEqual(consume(full, 2305).message, null);
});

test('a block is forgotten once everything was read, and told anew by the next message', () => {
  const blocked = { producer: at(20_000), flags: CDC_FLAG.WRITE_BLOCKED };
  const read = consume(after(blocked), 20_000).cdc;
  assert.equal(read.peerFlags & CDC_FLAG.WRITE_BLOCKED, 0);
  assert.notEqual(consume(after(blocked), 19_999).cdc.peerFlags & CDC_FLAG.WRITE_BLOCKED, 0);
});

test('a request for our cursor is served once', () => {
  const asked = consume(after({ producer: at(10), flags: CDC_FLAG.UPDATE_REQUESTED }), 1);
  assert.notEqual(asked.message, null);
  assert.equal(consume(asked.cdc, 1).message, null);
});

test('state flags of the peer stay, its other flags are those of its last message', () => {
  const cdc = after({ flags: CDC_FLAG.SENDING_DONE | CDC_FLAG.WRITE_BLOCKED }, { flags: CDC_FLAG.CLOSED });
  assert.equal(cdc.peerFlags, CDC_FLAG.SENDING_DONE | CDC_FLAG.CLOSED);
});

// --- Urgent data ---

test('an urgent byte is passed over once all before it was read, and that is told', () => {
  const flags = CDC_FLAG.URGENT_PENDING | CDC_FLAG.URGENT_PRESENT;
  const cdc = after({ producer: at(4), flags }, { producer: at(4) });
  assert.deepEqual([unread(cdc), readable(cdc), cdc.urgentBytes], [3, 3, 0]);
  const read = consume(cdc, 3);
  assert.deepEqual([unread(read.cdc), read.cdc.urgentBytes], [0, 1]);
  assert.deepEqual(read.message?.consumer, at(4));
});

test('an urgent byte alone is passed over when it comes', () => {
  const said = receive(openCdc(RING, RING), says({ producer: at(1), flags: CDC_FLAG.URGENT_PRESENT }));
  assert.deepEqual([unread(said.cdc), said.cdc.urgentBytes], [0, 1]);
  assert.deepEqual(said.message?.consumer, at(1));
});

test('the same message read twice holds one urgent byte', () => {
  const urgent = { producer: at(1), flags: CDC_FLAG.URGENT_PRESENT };
  assert.equal(after(urgent, urgent).urgentBytes, 1);
});

test('bytes behind an urgent one are read after it', () => {
  const cdc = after({ producer: at(4), flags: CDC_FLAG.URGENT_PRESENT }, { producer: at(10) });
  assert.deepEqual([unread(cdc), readable(cdc)], [9, 3]);
  const read = consume(cdc, 3).cdc;
  assert.deepEqual([unread(read), readable(read)], [6, 6]);
});

test('a second urgent byte before the first was passed is a fault of the peer', () => {
  const cdc = after({ producer: at(4), flags: CDC_FLAG.URGENT_PRESENT });
  assert.throws(() => receive(cdc, says({ producer: at(5), flags: CDC_FLAG.URGENT_PRESENT })), PeerFault);
});

// --- Faults ---

test('more than there was told to be room for is a fault of the peer, though the ring would take it', () => {
  const read = consume(after({ producer: at(100) }), 100);
  assert.equal(read.message, null);
  assert.throws(() => receive(read.cdc, says({ producer: at(50, 1) })), PeerFault);
});

test('whatever a peer writes: a fault of the peer, or a value in which everything is in its ring', () => {
  const cursor = fc.oneof(
    { weight: 4, arbitrary: fc.constant(START) },
    { weight: 4, arbitrary: fc.record({ wrap: fc.constant(0), count: fc.nat(RING) }) },
    { weight: 1, arbitrary: fc.record({ wrap: fc.nat(3), count: fc.nat(RING + 3) }) },
    { weight: 1, arbitrary: fc.record({ wrap: fc.nat(0xffff), count: fc.nat(0xffffffff) }) },
  );
  const action = fc.oneof(
    fc.record({ producer: cursor, consumer: cursor, flags: fc.integer({ min: 0, max: 0xffff }) }),
    fc.record({ read: fc.integer({ min: 0, max: RING }) }),
    fc.record({ write: fc.integer({ min: 0, max: 2 * RING }) }),
  );
  let faults = 0;
  let taken = 0;
  fc.assert(
    fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
      let cdc = openCdc(RING, RING);
      for (const one of actions) {
        try {
          if ('read' in one) cdc = consume(cdc, Math.min(one.read, readable(cdc))).cdc;
          else if ('write' in one) cdc = send(cdc, one.write).cdc;
          else cdc = receive(cdc, one).cdc;
          taken += unread(cdc);
        } catch (error) {
          assert.ok(error instanceof PeerFault);
          faults++;
        }
        for (const bytes of [unread(cdc), readable(cdc), unconsumed(cdc), room(cdc)])
          assert.ok(bytes >= 0 && bytes <= RING);
        assert.ok(readable(cdc) <= unread(cdc) && (unread(cdc) === 0) === (readable(cdc) === 0));
        for (const { count } of [cdc.produced, cdc.peerProduced, cdc.consumed, cdc.confirmed, cdc.peerConsumed]) {
          assert.ok(count < RING);
        }
      }
    }),
    { numRuns: 2000 },
  );
  assert.ok(faults > 0 && taken > 0);
});

// --- Two of them ---

/** One end of two that are joined by memory: its messages overwrite each other in the peer's head until the peer looks. */
class End {
  cdc: Cdc;
  head: CdcMessage | null = null;
  isSignalled = false;
  readonly ring: Uint8Array;
  /** Bytes to be sent that wait, and were sent, and were read. */
  waiting = 0;
  sent = 0;
  got = 0;

  constructor(ownRing: number, peerRing: number) {
    this.cdc = openCdc(ownRing, peerRing);
    this.ring = new Uint8Array(ownRing);
  }
}

/** Byte i of a stream. */
const byte = (i: number) => (i * 31 + (i >>> 8)) & 0xff;

function say(from: End, to: End, { cdc, message }: Said): void {
  from.cdc = cdc;
  if (message === null) return;
  to.head = message;
  to.isSignalled = true;
}

function write(from: End, to: End): void {
  const said = send(from.cdc, from.waiting);
  for (const { offset, length } of said.pieces) {
    for (let i = 0; i < length; i++) to.ring[offset + i] = byte(from.sent++);
    from.waiting -= length;
  }
  say(from, to, said);
}

function look(end: End, other: End): void {
  end.isSignalled = false;
  if (end.head !== null) say(end, other, receive(end.cdc, end.head));
  write(end, other); // what waits
}

function read(end: End, other: End, max: number): void {
  const length = Math.min(max, readable(end.cdc));
  for (let i = 0; i < length; i++) {
    assert.equal(end.ring[(end.cdc.consumed.count + i) % end.ring.length], byte(end.got++));
  }
  say(end, other, consume(end.cdc, length));
}

test('two engines deliver every byte once and in order, and whoever is blocked is released', () => {
  const ring = fc.integer({ min: 16352, max: 40_000 });
  const size = fc.oneof(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 60_000 }));
  const action = fc.record({
    by: fc.integer({ min: 0, max: 1 }),
    does: fc.constantFrom('write', 'read', 'look', 'look'),
    size,
  });
  let wrapped = 0;
  let merged = 0;
  fc.assert(
    fc.property(ring, ring, fc.array(action, { maxLength: 80 }), (ringA, ringB, actions) => {
      const ends = [new End(ringA, ringB), new End(ringB, ringA)] as const;
      const wished = [0, 0];
      for (const { by, does, size: bytes } of actions) {
        const [end, other] = by === 0 ? ends : [ends[1], ends[0]];
        if (does === 'write') {
          if (other.isSignalled) merged++;
          wished[by] = (wished[by] ?? 0) + bytes;
          end.waiting += bytes;
          write(end, other);
        } else if (does === 'read') {
          read(end, other, bytes);
        } else {
          look(end, other);
        }
      }
      // From here on nobody looks without a signal: all must come to its end all the same.
      for (let isGoingOn = true; isGoingOn; ) {
        isGoingOn = false;
        for (const [end, other] of [ends, [ends[1], ends[0]]] as const) {
          if (end.isSignalled) look(end, other);
          else if (readable(end.cdc) > 0) read(end, other, 5000);
          else continue;
          isGoingOn = true;
        }
      }
      assert.deepEqual([ends[0].waiting, ends[1].waiting], [0, 0]);
      assert.deepEqual([ends[1].got, ends[0].got], wished);
      for (const end of ends) {
        wrapped += end.cdc.peerProduced.wrap;
        const { ring: bytes, cdc } = end;
        assert.ok(distance(bytes.length, cdc.confirmed, cdc.consumed) <= bytes.length / 2);
      }
    }),
    { numRuns: 300 },
  );
  assert.ok(wrapped > 0 && merged > 0);
});
