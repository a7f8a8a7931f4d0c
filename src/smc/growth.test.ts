/** Rings that grow and become short again: over each device. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eventually } from '../testing/index.ts';
import {
  connect,
  DEVICES,
  DMB_BYTES,
  type End,
  type Ground,
  look,
  moved,
  streamOf,
  takeAll,
} from './connection.test.helper.ts';
import { PeerFault } from './errors.ts';
import { HEAD_BYTES, WORD, type WordName } from './head.ts';
import type { Loan } from './layout.ts';

const MAX_BYTES = 16 * DMB_BYTES;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Writes until nothing is taken; how many bytes the stream is long then. */
function fill({ connection }: End, from: number): number {
  let at = from;
  for (let taken = -1; taken !== 0; at += taken) taken = connection.out.write(streamOf(at, 10_000));
  return at;
}

async function grow(a: End, b: End, lengthBytes: number): Promise<void> {
  assert.ok(b.connection.in.isFull);
  assert.ok(b.connection.makeRoom());
  await eventually(`the ring has ${lengthBytes} bytes`, () => {
    look(a, b);
    return b.connection.dmbBytes === lengthBytes;
  });
}

const usageOf = ({ a, b }: Ground) =>
  [a, b]
    .map((device) => device.usage())
    .map(({ dmbs, quarantined, attached, bytes }) => [dmbs, quarantined, attached, bytes]);

async function endAll(ground: Ground, ...ends: readonly End[]): Promise<void> {
  for (const { connection } of ends) connection.release();
  const counts = () => usageOf(ground).flat();
  await eventually('nothing is in use', () => counts().every((count) => count === 0));
  await ground.close();
}

for (const [name, make] of Object.entries(DEVICES)) {
  test(`${name}: one of which nothing is read grows as far as it may, and is the first again when it is idle`, async () => {
    const ground = await make();
    const [a, b] = await moved('isthmus', ground, MAX_BYTES);
    let written = fill(a, 0);
    for (const lengthBytes of [4 * DMB_BYTES, MAX_BYTES]) {
      look(b);
      await grow(a, b, lengthBytes);
      written = fill(a, written);
      assert.equal(written, lengthBytes - HEAD_BYTES);
    }
    look(b);
    assert.ok(b.connection.in.isFull);
    assert.ok(!b.connection.makeRoom(), 'it may not become longer');

    assert.ok(takeAll(b).equals(streamOf(0, written)));
    await eventually('the first ring is in use', () => {
      look(a, b);
      return b.connection.dmbBytes === DMB_BYTES;
    });
    const more = fill(a, written);
    assert.equal(more - written, DMB_BYTES - HEAD_BYTES);
    look(b);
    assert.ok(takeAll(b).equals(streamOf(written, more - written)));
    assert.deepEqual(
      usageOf(ground).map(([dmbs]) => dmbs),
      [1, 1],
    );
    await endAll(ground, a, b);
  });

  test(`${name}: one that is read grows when its writer waits again and again`, async () => {
    const ground = await make();
    const [a, b] = await moved('isthmus', ground, MAX_BYTES);
    let [written, read] = [0, 0];
    await eventually('it has grown', () => {
      written = fill(a, written);
      look(b);
      const bytes = takeAll(b);
      assert.ok(bytes.equals(streamOf(read, bytes.length)));
      read += bytes.length;
      look(a, b);
      return b.connection.dmbBytes > DMB_BYTES;
    });
    await ground.close();
  });

  test(`${name}: a writer that says how much it has gets room for that at once`, async () => {
    for (const isRead of [false, true]) {
      const ground = await make();
      const [a, b] = await moved('isthmus', ground, MAX_BYTES);
      const bytes = streamOf(0, DMB_BYTES);
      const written = a.connection.out.write(bytes, 0, isRead ? 10 * DMB_BYTES : 2 ** 40);
      look(b);
      if (isRead) {
        b.connection.in.take(written);
        b.connection.in.taken();
      } else {
        assert.ok(b.connection.makeRoom());
      }
      await eventually('it has grown', () => {
        look(a, b);
        return b.connection.dmbBytes > DMB_BYTES;
      });
      // Who reads needs it again and again, a long one only while nothing is read.
      assert.equal(b.connection.dmbBytes, isRead ? 4 * DMB_BYTES : MAX_BYTES);
      await endAll(ground, a, b);
    }
  });

  test(`${name}: what is lent of a long ring may be more than fits into the next one`, async () => {
    const ground = await make();
    const [a, b] = await moved('isthmus', ground, MAX_BYTES);
    let written = fill(a, 0);
    look(b);
    await grow(a, b, 4 * DMB_BYTES);
    const from = written + a.connection.out.write(streamOf(written, 1)); // who could write waits no more
    assert.ok(takeAll(b).equals(streamOf(0, written)));
    look(b);
    assert.ok(takeAll(b).equals(streamOf(written, 1)));
    await turn();
    const { count } = a.signals;
    await eventually('the first ring is offered', () => a.signals.count > count);
    written = fill(a, from);
    await eventually('the first ring is in use', () => {
      look(a, b);
      return b.connection.dmbBytes === DMB_BYTES;
    });
    const loans: Loan[] = [];
    for (let loan = b.connection.lend(9000); loan !== null; loan = b.connection.lend(9000)) loans.push(loan);
    look(a, b);
    assert.ok(Buffer.concat(loans.map(({ bytes }) => bytes)).equals(streamOf(from, written - from)));
    for (const { giveBack } of loans) giveBack();
    look(a, b);
    const more = fill(a, written);
    look(b);
    assert.ok(takeAll(b).equals(streamOf(written, more - written)));
    await endAll(ground, a, b);
  });

  // In store mode what is reserved is no place in a ring.
  if (name !== 'host, store')
    test(`${name}: a longer ring that was not used while something was reserved is looked at when it is`, async () => {
      const ground = await make();
      const [a, b] = await moved('isthmus', ground, MAX_BYTES);
      const reserved = a.connection.reserve(100);
      assert.ok(reserved !== null);
      const written = fill(a, 0); // it waits
      look(b);
      assert.ok(b.connection.makeRoom());
      await eventually('the ring was offered and attached', () => {
        look(a);
        return a.device.usage().attached === 2;
      });
      await turn();
      look(a);
      const { count } = a.signals;
      assert.equal(fill(a, written), written, 'the ring before is in use');
      reserved.commit(0);
      await eventually('who writes looks again', () => a.signals.count > count);
      const all = fill(a, written);
      assert.equal(all, 4 * DMB_BYTES - HEAD_BYTES);
      look(b);
      assert.ok(takeAll(b).equals(streamOf(0, all)));
      await endAll(ground, a, b);
    });

  test(`${name}: a device that has no memory is no fault, and nobody waits for it`, async () => {
    const ground = await make();
    const { b: device } = ground;
    const [a, b] = await moved('isthmus', ground, MAX_BYTES);
    fill(a, 0);
    look(b);
    device.registerDmb = () => Promise.reject(new Error('no memory'));
    const { count } = b.signals;
    assert.ok(b.connection.makeRoom());
    await eventually('it is looked again', () => b.signals.count > count);
    assert.ok(!b.connection.makeRoom());
    await ground.close();
  });
}

// --- At random ---

type Act =
  | readonly ['write', number]
  | readonly ['take', number]
  | readonly ['lend', number]
  | readonly ['giveBack', number]
  | readonly ['reserve', number]
  | readonly ['commit', number]
  | readonly ['room' | 'turn' | 'back' | 'retract'];

const upTo = (max: number) => fc.integer({ min: 1, max });
const acts: fc.Arbitrary<Act[]> = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.tuple(fc.constant('write' as const), upTo(60_000)) },
    { weight: 2, arbitrary: fc.tuple(fc.constant('take' as const), upTo(40_000)) },
    fc.tuple(fc.constant('lend' as const), upTo(9000)),
    fc.tuple(fc.constant('giveBack' as const), fc.nat(20)),
    fc.tuple(fc.constant('reserve' as const), upTo(9000)),
    fc.tuple(fc.constant('commit' as const), upTo(9000)),
    { weight: 3, arbitrary: fc.constant(['room'] as const) },
    { weight: 4, arbitrary: fc.constant(['turn'] as const) },
    fc.constant(['back'] as const),
    fc.constant(['retract'] as const),
  ),
  { maxLength: 100, size: 'max' },
);

/** One direction, from a to b; what goes on TCP is handed over at once. */
class Play {
  readonly #a: End;
  readonly #b: End;
  #written = 0;
  #tcpWritten = 0;
  #read = 0;
  readonly #loans: { readonly loan: Loan; readonly at: number }[] = [];
  #reserved: { readonly bytes: Buffer; readonly isNext: boolean; commit(lengthBytes: number): void } | null = null;
  /** How long rings were. */
  readonly lengths = new Set<number>();

  constructor(a: End, b: End) {
    this.#a = a;
    this.#b = b;
  }

  async step([what, n = 0]: readonly [Act[0], number?]): Promise<void> {
    const { connection: a } = this.#a;
    const { connection: b } = this.#b;
    switch (what) {
      case 'write':
        if (a.out.mayCut) a.out.cut(this.#tcpWritten);
        if (a.out.isMoved) this.#written += a.out.write(streamOf(this.#written, n));
        else this.#onTcp(streamOf(this.#written, n % 1000));
        break;
      case 'take':
        this.#took(b.in.take(n));
        b.in.taken();
        break;
      case 'lend': {
        const loan = b.lend(n);
        if (loan !== null) this.#loans.push({ loan, at: this.#took(loan.bytes) });
        break;
      }
      case 'giveBack':
        this.#giveBack(n % Math.max(1, this.#loans.length));
        break;
      case 'reserve':
        this.#reserved ??= a.reserve(n);
        break;
      case 'commit':
        this.#commit(n);
        break;
      case 'room':
        if (b.in.isFull) b.makeRoom();
        break;
      case 'turn':
        await turn();
        look(this.#b, this.#a);
        b.in.arm();
        break;
      case 'back':
        a.out.back();
        break;
      case 'retract':
        b.in.retract();
        break;
      default:
        what satisfies never;
    }
    this.lengths.add(b.dmbBytes);
  }

  /** @returns where it stood in the stream */
  #took(bytes: Buffer | null): number {
    const at = this.#read;
    if (bytes === null) return at;
    assert.ok(bytes.equals(streamOf(at, bytes.length)));
    this.#read += bytes.length;
    return at;
  }

  #onTcp(bytes: Buffer): void {
    this.#written += bytes.length;
    this.#tcpWritten += bytes.length;
    this.#took(this.#b.connection.in.tcpBytes(bytes));
  }

  #giveBack(i: number): void {
    for (const { loan, at } of this.#loans.splice(i, 1)) {
      assert.ok(loan.bytes.equals(streamOf(at, loan.bytes.length)), 'nobody has written there');
      loan.giveBack();
    }
  }

  #commit(n: number): void {
    const reserved = this.#reserved;
    this.#reserved = null;
    if (reserved === null) return;
    const length = reserved.isNext ? Math.min(n, reserved.bytes.length) : 0;
    reserved.bytes.set(streamOf(this.#written, length));
    reserved.commit(length);
    this.#written += length;
  }

  async finish(): Promise<void> {
    this.#commit(0);
    while (this.#loans.length > 0) this.#giveBack(this.#loans.length - 1);
    await eventually('all is read', () => {
      void this.step(['turn']);
      void this.step(['take', 100_000]);
      return this.#read === this.#written;
    });
  }
}

for (const [name, make] of Object.entries(DEVICES)) {
  test(`${name}: whatever grows meanwhile, the stream is what was written, and nothing is left`, async () => {
    const lengths = new Set<number>();
    await fc.assert(
      fc.asyncProperty(acts, async (script) => {
        const ground = await make();
        const [a, b] = await moved('isthmus', ground, MAX_BYTES);
        const play = new Play(a, b);
        for (const act of script) await play.step(act);
        await play.finish();
        for (const length of play.lengths) lengths.add(length);
        await endAll(ground, a, b);
      }),
      { numRuns: name === 'loopback' ? 150 : 40 },
    );
    assert.ok(lengths.size > 1, 'rings have grown');
  });
}

// --- A peer that does not keep to it ---

const hostile = async (words: readonly (readonly [WordName, number])[], maxBytes = DMB_BYTES) => {
  const ends = await moved('isthmus', null, maxBytes);
  const [a, b] = ends;
  for (const [word, value] of words) a.remote.storeWord(4 * WORD[word], value);
  a.remote.storeWord(4 * WORD.NEWS, 1000);
  return { a, b };
};

test('a ring that was not the next to be offered', async () => {
  const { b } = await hostile([['RING', 2]]);
  assert.throws(() => b.connection.look(), PeerFault);
});

test('a second ring before the first was answered', async () => {
  const { a, b } = await hostile([['RING', 1]]);
  b.connection.look();
  a.remote.storeWord(4 * WORD.RING, 2);
  a.remote.storeWord(4 * WORD.NEWS, 1001);
  assert.throws(() => b.connection.look(), PeerFault);
});

test('a ring that nobody registered cannot be used, and the connection goes on', async () => {
  const { a, b } = await hostile([
    ['RING_TOKEN_LOW', 0x1234],
    ['RING', 1],
  ]);
  b.connection.look();
  await eventually('it is refused', () => a.dmb.words[WORD.RING_UNFIT] === 1);
  assert.equal(b.connection.out.write(Buffer.from('on')), 2);
  a.connection.look();
  assert.equal(a.connection.in.take(10)?.toString(), 'on');
});

test('an answer without a question is none', async () => {
  const { b } = await hostile([
    ['RING_USED', 1],
    ['RING_UNFIT', 1],
  ]);
  b.connection.look();
  assert.equal(b.connection.dmbBytes, DMB_BYTES);
});

test('a ring that begins with another cursor than the one before has ended with', async () => {
  const [a, b] = await connect('isthmus', null, DMB_BYTES, MAX_BYTES);
  b.connection.in.arm();
  look(a, b);
  a.connection.out.cut(0);
  look(b);
  fill(a, 0);
  look(b);
  assert.ok(b.connection.makeRoom());
  await turn();
  a.remote.storeWord(4 * WORD.RING_USED, 1); // its PRODUCED is 0
  a.remote.storeWord(4 * WORD.NEWS, 1000);
  assert.throws(() => b.connection.look(), PeerFault);
});

test('who has waited for room, gone back to TCP and is in the ring again waits no more: when it dies, the stream ends', async () => {
  const [a, b] = await moved('isthmus');
  fill(a, 0);
  a.connection.out.back();
  look(b);
  takeAll(b);
  look(a, b);
  assert.equal(b.connection.in.state, 'TCP');
  b.connection.in.arm();
  look(a);
  a.connection.out.cut(0);
  look(b);
  assert.equal(b.connection.in.state, 'MOVED');
  b.connection.in.tcpEnd();
  assert.equal(b.connection.endsWithReset(), false);
});
