import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PeerFault } from '../errors.ts';
import { add, advance, type Cursor, distance, START } from './cursor.ts';

/** A ring, a cursor in it, and a distance of at most one ring. */
const place = fc.integer({ min: 1, max: 1 << 20 }).chain((ring) =>
  fc.record({
    ring: fc.constant(ring),
    cursor: fc.record({ wrap: fc.integer({ min: 0, max: 0xffff }), count: fc.integer({ min: 0, max: ring - 1 }) }),
    bytes: fc.integer({ min: 0, max: ring }),
  }),
);

test('what is added is the distance, and the cursor stays in its ring', () => {
  fc.assert(
    fc.property(place, ({ ring, cursor, bytes }) => {
      const to = add(ring, cursor, bytes);
      assert.ok(to.count < ring && to.wrap <= 0xffff);
      assert.equal(distance(ring, cursor, to), bytes);
      assert.equal(advance(ring, cursor, to, bytes), bytes);
      if (bytes > 0) assert.throws(() => advance(ring, cursor, to, bytes - 1), PeerFault);
    }),
  );
});

test('a full ring is the same place in the next round, also after the last one', () => {
  assert.deepEqual(add(100, { wrap: 3, count: 40 }, 100), { wrap: 4, count: 40 });
  assert.deepEqual(add(100, { wrap: 0xffff, count: 40 }, 60), START);
  assert.equal(distance(100, { wrap: 0xffff, count: 40 }, { wrap: 0, count: 40 }), 100);
});

const AT: Cursor = { wrap: 7, count: 40 };
for (const [what, to] of [
  ['leaves its ring', { wrap: 7, count: 100 }],
  ['goes back', { wrap: 7, count: 39 }],
  ['goes back by a round', { wrap: 6, count: 40 }],
  ['goes round twice', { wrap: 9, count: 0 }],
  ['overtakes itself', { wrap: 8, count: 41 }],
  ['goes further than there is room', { wrap: 7, count: 71 }],
] as const) {
  test(`a cursor that ${what} is a fault of the peer`, () => {
    assert.throws(() => advance(100, AT, to, 30), PeerFault);
  });
}
