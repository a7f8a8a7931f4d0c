/** Bytes that are lent out of a ring, and room that is reserved in one: over each device. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DEVICES, DMB_BYTES, type End, look, moved, streamOf, takeAll } from './connection.test.helper.ts';
import { HEAD_BYTES, WORD } from './head.ts';
import type { Loan } from './layout.ts';

const RING_BYTES = DMB_BYTES - HEAD_BYTES;

function lend({ connection }: End, max = DMB_BYTES): Loan {
  const loan = connection.lend(max);
  assert.ok(loan);
  return loan;
}

type Act =
  | readonly ['write', number]
  | readonly ['reserve', number, number]
  | readonly ['lend', number]
  | readonly ['take', number]
  | readonly ['giveBack', number]
  | readonly ['look'];

const acts: fc.Arbitrary<Act[]> = fc.array(
  fc.oneof(
    fc.tuple(fc.constant('write' as const), fc.integer({ min: 1, max: 20_000 })),
    fc.tuple(
      fc.constant('reserve' as const),
      fc.integer({ min: 1, max: 20_000 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
    ),
    { weight: 3, arbitrary: fc.tuple(fc.constant('lend' as const), fc.integer({ min: 1, max: 9000 })) },
    fc.tuple(fc.constant('take' as const), fc.integer({ min: 1, max: 9000 })),
    { weight: 3, arbitrary: fc.tuple(fc.constant('giveBack' as const), fc.nat(20)) },
    fc.tuple(fc.constant('look' as const)),
  ),
  { maxLength: 120, size: 'max' },
);

/** Plays it; everything that is lent is looked at when it is lent, and again before it is given back. */
function play([a, b]: readonly [End, End], script: readonly Act[]): number {
  let written = 0;
  let read = 0;
  const loans: { readonly loan: Loan; readonly at: number }[] = [];
  const check = ({ loan, at }: { loan: Loan; at: number }) =>
    assert.ok(loan.bytes.equals(streamOf(at, loan.bytes.length)));
  const giveBack = (i: number) => {
    for (const one of loans.splice(i, 1)) {
      check(one);
      one.loan.giveBack();
    }
  };
  const step = ([what, n, part]: Act | readonly [Act[0], number?, number?]) => {
    if (what === 'write') written += a.connection.out.write(streamOf(written, n as number));
    if (what === 'reserve') {
      const reserved = a.connection.reserve(n as number);
      const bytes = streamOf(written, Math.floor((n as number) * (part as number)));
      reserved?.bytes.set(bytes);
      reserved?.commit(bytes.length);
      if (reserved) written += bytes.length;
    }
    if (what === 'lend') {
      const loan = b.connection.lend(n as number);
      if (loan === null) return;
      loans.push({ loan, at: read });
      read += loan.bytes.length;
    }
    if (what === 'take') {
      const taken = b.connection.in.take(n as number);
      b.connection.in.taken();
      if (taken === null) return;
      assert.ok(taken.equals(streamOf(read, taken.length)));
      read += taken.length;
    }
    if (what === 'giveBack') giveBack((n as number) % Math.max(1, loans.length));
    if (what === 'look') look(a, b);
    assert.ok(written - read <= RING_BYTES);
  };
  for (const one of script) step(one);
  while (loans.length > 0) giveBack(loans.length - 1);
  look(a, b);
  read += takeAll(b).length;
  look(a);
  assert.equal(read, written);
  assert.equal(a.connection.out.unconsumed, 0, 'all room is free again');
  return written;
}

for (const [device, makeGround] of Object.entries(DEVICES)) {
  test(`${device}: every byte that is lent or taken is the right one, as long as it is lent`, async () => {
    const ground = await makeGround();
    let total = 0;
    await fc.assert(
      fc.asyncProperty(acts, async (script) => {
        const ends = await moved('isthmus', ground);
        total += play(ends, script);
        for (const { connection } of ends) connection.release();
      }),
      { numRuns: 100 },
    );
    assert.ok(total > 10 * RING_BYTES, `${total} bytes`);
    await ground.close();
  });

  test(`${device}: room comes free up to the oldest loan that is out`, async () => {
    const ground = await makeGround();
    const [a, b] = await moved('isthmus', ground);
    assert.equal(a.connection.out.write(streamOf(0, RING_BYTES)), RING_BYTES);
    look(b);
    const [first, second] = [lend(b, RING_BYTES / 2), lend(b)];
    assert.equal(b.connection.lend(1), null);
    assert.ok(b.connection.in.isFullOfLoans);
    assert.equal(a.connection.out.write(Buffer.of(1)), 0);
    second.giveBack();
    assert.equal(a.connection.out.write(Buffer.of(1)), 0);
    first.giveBack();
    assert.equal(a.connection.out.write(streamOf(0, RING_BYTES)), RING_BYTES);
    assert.ok(!b.connection.in.isFullOfLoans);
    await ground.close();
  });

  test(`${device}: what is lent does not come free by what is taken behind it`, async () => {
    const ground = await makeGround();
    const [a, b] = await moved('isthmus', ground);
    a.connection.out.write(streamOf(0, RING_BYTES));
    look(b);
    const loan = lend(b, 100);
    assert.equal(takeAll(b).length, RING_BYTES - 100);
    assert.equal(a.connection.out.write(Buffer.alloc(RING_BYTES)), 0);
    assert.ok(loan.bytes.equals(streamOf(0, 100)));
    loan.giveBack();
    assert.equal(a.connection.out.write(Buffer.alloc(RING_BYTES)), RING_BYTES);
    await ground.close();
  });

  test(`${device}: a loan outlives the way back and the next way there`, async () => {
    const ground = await makeGround();
    const [a, b] = await moved('isthmus', ground);
    a.connection.out.write(streamOf(0, 5000));
    look(b);
    const loan = lend(b, 1000);
    a.connection.out.back();
    look(b);
    assert.equal(takeAll(b).length, 4000);
    look(b);
    assert.equal(b.connection.in.state, 'TCP');
    b.connection.in.arm();
    look(a);
    a.connection.out.cut(0);
    look(b);
    // Its memory is not used, however much comes.
    assert.equal(a.connection.out.write(Buffer.alloc(2 * RING_BYTES)), RING_BYTES - 5000);
    look(b);
    takeAll(b);
    look(a);
    assert.equal(a.connection.out.write(Buffer.alloc(2 * RING_BYTES)), 0);
    assert.ok(loan.bytes.equals(streamOf(0, 1000)));
    loan.giveBack();
    assert.equal(a.connection.out.write(Buffer.alloc(2 * RING_BYTES)), RING_BYTES);
    await ground.close();
  });

  test(`${device}: memory that is lent or reserved stays until the last view is given back`, async () => {
    const ground = await makeGround();
    const [a, b] = await moved('isthmus', ground);
    const before = { a: a.device.usage(), b: b.device.usage() };
    a.connection.out.write(streamOf(0, 2000));
    look(b);
    const loans = [lend(b, 500), lend(b, 500)];
    const reserved = a.connection.reserve(100);
    assert.equal(reserved === null, device === 'host, store', 'only where it is mapped');
    for (const { connection } of [a, b]) {
      connection.close(false);
      connection.release();
    }
    assert.deepEqual(b.device.usage(), before.b);
    assert.equal(a.device.usage().attached, reserved === null ? before.a.attached - 1 : before.a.attached);
    loans.pop()?.giveBack();
    assert.equal(b.device.usage().attached, before.b.attached);
    assert.ok(loans[0]?.bytes.equals(streamOf(0, 500)));
    loans.pop()?.giveBack();
    assert.equal(b.device.usage().attached, before.b.attached - 1);
    assert.equal(b.device.usage().dmbs, before.b.dmbs - 1);
    assert.notEqual(reserved?.isNext, true);
    reserved?.commit(0);
    assert.equal(a.device.usage().attached, before.a.attached - 1);
    await ground.close();
  });

  for (const [what, produced] of [
    ['more than the room that is not lent', RING_BYTES + 1],
    ['bytes taken back', 500],
  ] as const) {
    test(`${device}: a peer that says it has produced ${what} under a loan breaks a rule`, async () => {
      const ground = await makeGround();
      const [a, b] = await moved('isthmus', ground);
      a.connection.out.write(streamOf(0, 2000));
      look(b);
      const loan = lend(b, 1000);
      a.remote.storeWord(4 * WORD.PRODUCED, produced);
      assert.throws(() => look(b), { fault: 'peer' });
      loan.giveBack();
      await ground.close();
    });
  }
}

test('room is reserved where there is as much in one piece, and nowhere else', async () => {
  const ends = await moved('isthmus');
  const [a, b] = ends;
  assert.equal(a.connection.reserve(RING_BYTES + 1), null);
  const whole = a.connection.reserve(RING_BYTES);
  assert.equal(whole?.bytes.length, RING_BYTES);
  whole?.commit(RING_BYTES - 10);
  assert.equal(a.connection.reserve(11), null);
  look(b);
  takeAll(b);
  look(a);
  assert.equal(a.connection.reserve(11), null, 'the ring ends there');
  const rest = a.connection.reserve(10);
  assert.equal(rest?.isNext, true);
  a.connection.out.write(Buffer.of(1));
  assert.deepEqual([rest?.isNext, rest?.isLost], [false, true]);
  rest?.commit(0);
});

test("in the kernel's layout nothing is lent and nothing reserved", async () => {
  const [a, b] = await moved('kernel');
  a.connection.out.write(streamOf(0, 100));
  look(b);
  assert.equal(b.connection.lend(100), null);
  assert.equal(a.connection.reserve(100), null);
  assert.ok(takeAll(b).equals(streamOf(0, 100)));
});
