/** What holds for a connection whatever its layout, and whatever its device. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eventually } from '../testing/index.ts';
import { DEVICES, DMB_BYTES, type End, look, moved, streamOf, takeAll } from './connection.test.helper.ts';
import { LAYOUTS, type LayoutName } from './layout.ts';
import { CLOSE, type CloseState, STATE_NAMES } from './states.ts';

test('every state of closing has a row for every event, and a name', () => {
  const events = new Set(Object.keys(CLOSE.INIT));
  for (const [state, rows] of Object.entries(CLOSE)) {
    assert.deepEqual(new Set(Object.keys(rows)), events, state);
    assert.ok(STATE_NAMES[state as keyof typeof STATE_NAMES]);
  }
});

function assertStates([a, b]: readonly [End, End], ofA: CloseState, ofB: CloseState): void {
  assert.deepEqual([a.connection.state, b.connection.state], [ofA, ofB]);
}

/** Byte i of a stream. */
/** Puts all of it into the ring, while the other end takes. */
function pass(from: End, to: End, bytes: Buffer): Buffer {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    at += from.connection.out.write(bytes, at);
    look(to);
    chunks.push(takeAll(to));
    look(from);
  }
  return Buffer.concat(chunks);
}

// --- Data, over each device ---

for (const [device, makeGround] of Object.entries(DEVICES)) {
  for (const layout of LAYOUTS) {
    const on = `${layout} over ${device}`;

    test(`${on}: bytes go both ways, round and round the rings`, async () => {
      const ground = await makeGround();
      const ends = await moved(layout, ground);
      const sent = [0, 0];
      for (let round = 0; round < 60; round++) {
        const from = (round & 1) as 0 | 1;
        const to = (from ^ 1) as 0 | 1;
        const bytes = streamOf(sent[from] as number, (round * 7919 + 1) % 25_000);
        assert.ok(pass(ends[from], ends[to], bytes).equals(bytes));
        sent[from] = (sent[from] as number) + bytes.length;
      }
      for (const i of [0, 1] as const) {
        assert.ok((sent[i] as number) > 10 * DMB_BYTES);
        assert.equal(ends[i].connection.out.ringTotal, sent[i]);
        assert.equal(ends[i].connection.in.ringTotal, sent[i ^ 1]);
      }
      await ground.close();
    });

    test(`${on}: a writer that finds no room is signalled when there is room again`, async () => {
      const ground = await makeGround();
      const [a, b] = await moved(layout, ground);
      const bytes = streamOf(0, 3 * DMB_BYTES);
      let written = a.connection.out.write(bytes);
      assert.ok(written < DMB_BYTES && written > DMB_BYTES - 200);
      assert.equal(a.connection.out.write(bytes, written), 0);
      await eventually('the reader is signalled', () => b.signals.count > 0);
      const chunks: Buffer[] = [];
      for (const end = Date.now() + 20_000; written < bytes.length; ) {
        assert.ok(Date.now() < end, 'the writer is not released');
        const before = a.signals.count;
        look(b);
        chunks.push(takeAll(b));
        await eventually('the writer is signalled', () => a.signals.count > before);
        look(a);
        written += a.connection.out.write(bytes, written);
      }
      look(b);
      chunks.push(takeAll(b));
      assert.ok(Buffer.concat(chunks).equals(bytes));
      await ground.close();
    });

    test(`${on}: of chunks that are written together the peer is told once, of long ones soon`, async () => {
      const ground = await makeGround();
      const [a, b] = await moved(layout, ground);
      const before = b.signals.count;
      a.connection.out.write(Buffer.from('a few '), 0, 10);
      a.connection.out.write(Buffer.from('words '), 0, 4);
      look(b);
      assert.equal(takeAll(b).length, 0);
      a.connection.out.write(Buffer.from('more'));
      look(b);
      assert.equal(String(takeAll(b)), 'a few words more');
      await eventually('the reader is signalled', () => b.signals.count > before);
      assert.equal(b.signals.count, before + 1);

      // Also before an end.
      a.connection.out.write(Buffer.from('the last'), 0, 1);
      a.connection.end();
      look(b);
      assert.equal(String(takeAll(b)), 'the last');
      await ground.close();
    });

    test(`${on}: a chunk that does not fit tells of those before it`, async () => {
      const ground = await makeGround();
      const [a, b] = await moved(layout, ground);
      const bytes = streamOf(0, DMB_BYTES);
      assert.equal(a.connection.out.write(bytes.subarray(0, 100), 0, DMB_BYTES - 100), 100);
      const written = 100 + a.connection.out.write(bytes.subarray(100));
      assert.ok(written > 100 && written < DMB_BYTES);
      look(b);
      assert.ok(takeAll(b).equals(bytes.subarray(0, written)));
      assert.equal(a.connection.out.ringTotal, written);
      await ground.close();
    });

    test(`${on}: the peer's partition dies, and what it wrote before is read`, async () => {
      const ground = await makeGround();
      const [a, b] = await moved(layout, ground);
      a.connection.out.write(Buffer.from('never read'));
      b.connection.out.write(Buffer.from('last words'));
      ground.kill();
      look(a);
      assert.equal(String(takeAll(a)), 'last words');
      a.connection.in.tcpEnd();
      assert.equal(a.connection.saidGoodbye, false);
      assert.equal(a.connection.endsWithReset(), true);
      a.connection.die();
      assert.equal(a.connection.state, 'PEERABORTWAIT');
      a.connection.out.write(Buffer.from('harmless'));
      a.connection.close(false);
      assert.equal(a.connection.state, 'CLOSED');
      a.connection.release();
      a.connection.release();
      await ground.close();
    });
  }
}

for (const [device, makeGround] of Object.entries(DEVICES)) {
  for (const layout of LAYOUTS) {
    test(`${layout} over ${device}: a peer that dies while it waits for room: what it wrote is read, and it is no clean end`, async () => {
      const ground = await makeGround();
      const [a, b] = await moved(layout, ground);
      const bytes = streamOf(0, 2 * DMB_BYTES);
      const written = b.connection.out.write(bytes);
      ground.kill();
      look(a);
      a.connection.in.tcpEnd();
      assert.ok(takeAll(a).equals(bytes.subarray(0, written)));
      assert.equal(a.connection.endsWithReset(), true);
      a.connection.close(false);
      a.connection.release();
      await ground.close();
    });
  }
}

test('of a long chunk the peer is told piece by piece, and a write ends also where the peer makes room all the time', async () => {
  const lengthBytes = 256 * 1024;
  const ends = await moved('isthmus', null, lengthBytes, lengthBytes);
  const [a, b] = ends;
  const got: Buffer[] = [];
  a.remote.signal = () => {
    look(b);
    got.push(takeAll(b));
  };
  const bytes = streamOf(0, 5 * lengthBytes);
  assert.equal(a.connection.out.write(bytes.subarray(0, 15_000), 0, 140_000), 15_000);
  assert.equal(a.connection.out.write(bytes.subarray(15_000, 155_000)), 140_000);
  assert.deepEqual(
    got.map(({ length }) => length),
    [15_000 + 65_536, 65_536, 140_000 - 2 * 65_536],
  );
  const written = 155_000 + a.connection.out.write(bytes, 155_000);
  assert.ok(written > 155_000 + lengthBytes / 2 && written <= 155_000 + 2 * lengthBytes, `${written}`);
  assert.ok(Buffer.concat(got).equals(bytes.subarray(0, written)));
});

test('two ends deliver every byte in order, whatever is written, taken and looked at when', async () => {
  const action = fc.record({
    by: fc.constantFrom(0 as const, 1 as const),
    does: fc.constantFrom('write', 'take', 'look'),
    size: fc.integer({ min: 1, max: 20_000 }),
    pieces: fc.integer({ min: 1, max: 4 }),
  });
  for (const layout of LAYOUTS) {
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
        const ends = await moved(layout);
        const sent = [0, 0];
        const got = [0, 0];
        const take = (by: 0 | 1, max: number) => {
          const chunk = ends[by].connection.in.take(max);
          ends[by].connection.in.taken();
          if (chunk === null) return;
          const expected: Buffer = streamOf(got[by] as number, chunk.length);
          assert.ok(chunk.equals(expected));
          got[by] = (got[by] as number) + chunk.length;
        };
        const write = (by: 0 | 1, size: number, pieces: number) => {
          const all = streamOf(sent[by] as number, size);
          const length = Math.ceil(size / pieces);
          for (let at = 0; at < size; at += length) {
            const piece = all.subarray(at, at + length);
            const written = ends[by].connection.out.write(piece, 0, size - at - piece.length);
            sent[by] = (sent[by] as number) + written;
            if (written < piece.length) break;
          }
        };
        for (const { by, does, size, pieces } of actions) {
          if (does === 'write') write(by, size, pieces);
          else if (does === 'take') take(by, size);
          else look(ends[by]);
        }
        look(...ends);
        for (const by of [0, 1] as const) while (ends[by].connection.in.canTake) take(by, 3000);
        assert.deepEqual(got, [sent[1], sent[0]]);
      }),
      { numRuns: 100 },
    );
  }
});

// --- The end ---

for (const layout of LAYOUTS) {
  test(`${layout}: active and passive close`, async () => {
    const ends = await moved(layout);
    const [a, b] = ends;
    a.connection.close(false);
    assertStates(ends, 'PEERCLOSEWAIT1', 'ACTIVE');
    look(b);
    assertStates(ends, 'PEERCLOSEWAIT1', 'APPCLOSEWAIT1');
    assert.deepEqual([a.connection.peerReads, b.connection.peerReads], [true, false]);
    b.connection.close(false);
    assertStates(ends, 'PEERCLOSEWAIT1', 'CLOSED');
    look(a);
    assertStates(ends, 'CLOSED', 'CLOSED');
    assert.deepEqual([a.connection.endsWithReset(), b.connection.endsWithReset()], [false, false]);
  });

  test(`${layout}: half close, and data the other way after it`, async () => {
    const ends = await moved(layout);
    const [a, b] = ends;
    a.connection.out.write(Buffer.from('question'));
    a.connection.end();
    assert.equal(a.connection.out.isMoved, false);
    look(b);
    assertStates(ends, 'PEERCLOSEWAIT1', 'APPCLOSEWAIT1');
    assert.equal(b.connection.saidGoodbye, true);
    assert.equal(String(takeAll(b)), 'question');
    b.connection.out.write(Buffer.from('answer'));
    look(a);
    assertStates(ends, 'PEERCLOSEWAIT1', 'APPCLOSEWAIT1');
    assert.equal(String(takeAll(a)), 'answer');
    b.connection.close(false);
    look(a);
    assertStates(ends, 'APPFINCLOSEWAIT', 'PEERFINCLOSEWAIT');
    a.connection.close(false);
    look(b);
    assertStates(ends, 'CLOSED', 'CLOSED');
  });

  test(`${layout}: half close from either side, then close`, async () => {
    const ends = await moved(layout);
    const [a, b] = ends;
    a.connection.end();
    look(b);
    b.connection.end();
    look(a);
    assertStates(ends, 'PEERCLOSEWAIT2', 'APPCLOSEWAIT2');
    a.connection.close(false);
    look(b);
    assertStates(ends, 'PEERCLOSEWAIT2', 'APPCLOSEWAIT2');
    b.connection.close(false);
    look(a);
    assertStates(ends, 'CLOSED', 'CLOSED');
  });

  test(`${layout}: both finish sending at once`, async () => {
    const ends = await moved(layout);
    for (const { connection } of ends) connection.end();
    look(...ends);
    assertStates(ends, 'PEERCLOSEWAIT2', 'PEERCLOSEWAIT2');
    for (const { connection } of ends) connection.close(false);
    look(...ends);
    assertStates(ends, 'CLOSED', 'CLOSED');
  });

  test(`${layout}: both close at once`, async () => {
    const ends = await moved(layout);
    for (const { connection } of ends) connection.close(false);
    assertStates(ends, 'PEERCLOSEWAIT1', 'PEERCLOSEWAIT1');
    look(...ends);
    assertStates(ends, 'CLOSED', 'CLOSED');
  });

  test(`${layout}: what was written before the close is read after it`, async () => {
    const ends = await moved(layout);
    const [a, b] = ends;
    a.connection.out.write(Buffer.from('the rest'));
    a.connection.close(false);
    look(b);
    assert.equal(b.connection.state, 'APPCLOSEWAIT1');
    assert.equal(String(takeAll(b)), 'the rest');
    assert.equal(b.connection.endsWithReset(), false);
  });

  test(`${layout}: closing again says nothing again`, async () => {
    const ends = await moved(layout);
    const [a, b] = ends;
    a.connection.close(false);
    a.connection.close(true);
    look(b);
    assertStates(ends, 'PEERCLOSEWAIT1', 'APPCLOSEWAIT1');
    assert.equal(b.connection.endsWithReset(), false);
  });

  test(`${layout}: the link group is terminated on both sides`, async () => {
    const ends = await moved(layout);
    const [a, b] = ends;
    for (const { connection } of ends) connection.die();
    assertStates(ends, 'PEERABORTWAIT', 'PEERABORTWAIT');
    look(a);
    assertStates(ends, 'CLOSED', 'PEERABORTWAIT');
    b.connection.close(false);
    assertStates(ends, 'CLOSED', 'CLOSED');
  });

  test(`${layout}: the link group is terminated, and the peer hears of it here`, async () => {
    const ends = await moved(layout);
    const [a, b] = ends;
    a.connection.die();
    look(b);
    assertStates(ends, 'PEERABORTWAIT', 'PROCESSABORT');
    assert.equal(b.connection.endsWithReset(), true);
    b.connection.close(false);
    look(a);
    assertStates(ends, 'CLOSED', 'CLOSED');
  });

  test(`${layout}: our own device has gone`, async () => {
    const ends = await moved(layout);
    const [a, b] = ends;
    await a.device.close();
    assert.ok(a.connection.out.write(Buffer.from('nobody reads it')) > 0);
    a.connection.die();
    look(a, b);
    assertStates(ends, 'PEERABORTWAIT', 'ACTIVE');
    assert.equal(b.connection.in.canTake, false);
    a.connection.close(true);
    a.connection.release();
    assertStates(ends, 'CLOSED', 'ACTIVE');
  });

  test(`${layout}: a peer that dies without a goodbye ends the stream, if it had taken all`, async () => {
    const [a, b] = await moved(layout);
    assert.equal(a.connection.endsWithReset(), false);
    a.connection.out.write(Buffer.alloc(10));
    assert.equal(a.connection.endsWithReset(), true);
    look(b);
    assert.equal(takeAll(b).length, 10);
    b.connection.out.write(Buffer.from('with it goes how far b has read'));
    look(a);
    assert.equal(a.connection.endsWithReset(), false);
  });
}

// --- Aborts, in every state ---

type Step = `${'a' | 'b'} ${'end' | 'close'}`;

/** How `a` comes into a state, and the states of both after either of them aborts there. */
const ABORTS: readonly {
  readonly steps: readonly Step[];
  readonly state: CloseState;
  readonly afterB: CloseState;
  readonly afterA: readonly [CloseState, CloseState];
  /** The state of `a` when it has aborted and b has closed. */
  readonly last?: CloseState;
}[] = [
  { steps: [], state: 'ACTIVE', afterB: 'PROCESSABORT', afterA: ['PEERCLOSEWAIT1', 'PROCESSABORT'] },
  { steps: ['a end'], state: 'PEERCLOSEWAIT1', afterB: 'PROCESSABORT', afterA: ['PEERCLOSEWAIT1', 'PROCESSABORT'] },
  { steps: ['a close'], state: 'PEERCLOSEWAIT1', afterB: 'CLOSED', afterA: ['PEERCLOSEWAIT1', 'APPCLOSEWAIT1'] },
  {
    steps: ['a end', 'b end'],
    state: 'PEERCLOSEWAIT2',
    afterB: 'PROCESSABORT',
    afterA: ['PEERCLOSEWAIT2', 'CLOSED'],
    last: 'PEERCLOSEWAIT2', // b had finished when the abort came, and has no more to say; as in Linux
  },
  {
    steps: ['a end', 'b end', 'a close'],
    state: 'PEERCLOSEWAIT2',
    afterB: 'CLOSED',
    afterA: ['PEERCLOSEWAIT2', 'APPCLOSEWAIT2'],
  },
  { steps: ['b end'], state: 'APPCLOSEWAIT1', afterB: 'PROCESSABORT', afterA: ['PEERFINCLOSEWAIT', 'PROCESSABORT'] },
  { steps: ['b end', 'a end'], state: 'APPCLOSEWAIT2', afterB: 'CLOSED', afterA: ['PEERFINCLOSEWAIT', 'PROCESSABORT'] },
  { steps: ['a end', 'b close'], state: 'APPFINCLOSEWAIT', afterB: 'PROCESSABORT', afterA: ['CLOSED', 'CLOSED'] },
  {
    steps: ['b end', 'a close'],
    state: 'PEERFINCLOSEWAIT',
    afterB: 'CLOSED',
    afterA: ['PEERFINCLOSEWAIT', 'APPFINCLOSEWAIT'],
  },
];

async function bring(layout: LayoutName, steps: readonly Step[]): Promise<readonly [End, End]> {
  const ends = await moved(layout);
  for (const step of steps) {
    const { connection } = step.startsWith('a') ? ends[0] : ends[1];
    if (step.endsWith('end')) connection.end();
    else connection.close(false);
    look(...ends);
  }
  return ends;
}

for (const layout of LAYOUTS) {
  for (const { steps, state, afterB, afterA, last = 'CLOSED' } of ABORTS) {
    const there = `in ${state} after ${steps.join(', ') || 'nothing'}`;

    test(`${layout}: the peer aborts ${there}`, async () => {
      const [a, b] = await bring(layout, steps);
      assert.equal(a.connection.state, state);
      // An end that has closed can abort only with its link group.
      if (steps.includes('b close')) b.connection.die();
      else b.connection.close(true);
      look(a);
      assert.equal(a.connection.state, afterB);
      assert.equal(a.connection.endsWithReset(), true);
      a.connection.close(false);
      assert.equal(a.connection.state, 'CLOSED');
    });

    test(`${layout}: we abort ${there}`, async () => {
      const ends = await bring(layout, steps);
      ends[0].connection.close(true);
      look(...ends);
      assertStates(ends, ...afterA);
      ends[1].connection.close(false);
      look(...ends);
      assertStates(ends, last, 'CLOSED');
    });
  }
}
