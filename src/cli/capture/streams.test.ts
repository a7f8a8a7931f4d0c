import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { vector } from '../../smc/clc/clc.test.helper.ts';
import { Stream } from './streams.ts';

const NAME = '40-v21-loopback-first-contact message';
const PROPOSAL = vector(`${NAME} 1`);
const CONFIRM = vector(`${NAME} 3`);
const BOTH = Buffer.concat([PROPOSAL, CONFIRM]);

function all(stream: Stream): string[] {
  const found: string[] = [];
  for (let bytes = stream.take(); bytes !== null; bytes = stream.take()) found.push(bytes.toString('hex'));
  return found;
}

function add(stream: Stream, base: number, bytes: Buffer, from = 0, to = bytes.length): string[] {
  stream.add((base + from) >>> 0, bytes.subarray(from, to), to - from);
  return all(stream);
}

const begun = (base: number) => {
  const stream = new Stream();
  stream.begin(base);
  return stream;
};
const hexOf = (...messages: Buffer[]) => messages.map((bytes) => bytes.toString('hex'));

/** Pieces that cover all bytes, with overlaps, in any order, some twice. */
function pieces(length: number): fc.Arbitrary<readonly (readonly [from: number, to: number])[]> {
  return fc
    .tuple(fc.array(fc.nat(length), { maxLength: 12 }), fc.array(fc.nat(30), { minLength: 14, maxLength: 14 }))
    .map(([cuts, overlaps]) => {
      const at = [...new Set([0, ...cuts, length])].sort((a, b) => a - b);
      return at.slice(1).map((end, i) => [Math.max(0, (at[i] ?? 0) - (overlaps[i] ?? 0)), end] as const);
    })
    .chain((parts) =>
      fc
        .tuple(fc.shuffledSubarray([...parts], { minLength: parts.length }), fc.shuffledSubarray([...parts]))
        .map(([once, again]) => [...once, ...again]),
    );
}

const bases = fc.oneof(fc.constantFrom(0, 0xffffffff, 0x7fffffff, 0xffffff80), fc.integer({ min: 0, max: 0xffffffff }));

test('segments in any order, doubled and overlapping, give the same messages', () => {
  fc.assert(
    fc.property(bases, pieces(BOTH.length), (base, parts) => {
      const stream = begun(base);
      const found = parts.flatMap(([from, to]) => add(stream, base, BOTH, from, to));
      assert.deepEqual(found, hexOf(PROPOSAL, CONFIRM));
    }),
  );
});

test('and without a SYN, too', () => {
  fc.assert(
    fc.property(bases, pieces(PROPOSAL.length), (base, parts) => {
      const stream = new Stream();
      const found = parts.flatMap(([from, to]) => add(stream, base, PROPOSAL, from, to));
      assert.deepEqual(found, hexOf(PROPOSAL));
    }),
  );
});

test('segments of one byte, without a SYN, backwards', () => {
  const stream = new Stream();
  const found: string[] = [];
  for (let at = PROPOSAL.length - 1; at >= 0; at--) found.push(...add(stream, 7, PROPOSAL, at, at + 1));
  assert.deepEqual(found, hexOf(PROPOSAL));
});

describe('other bytes', () => {
  test('from the beginning', () => {
    const stream = begun(1);
    assert.deepEqual(add(stream, 1, Buffer.from('GET / HTTP/1.1\r\n')), []);
    assert.equal(stream.phase, 'over');
    assert.equal(stream.heldBytes, 0);
    assert.equal(stream.takeRest(), null);
  });

  test('that begin like an eyecatcher', () => {
    const stream = begun(1);
    add(stream, 1, Buffer.from('e2d4c3', 'hex'));
    assert.equal(stream.phase, 'clc');
    add(stream, 4, Buffer.from('00', 'hex'));
    assert.equal(stream.phase, 'over');
  });

  test('behind the messages', () => {
    const stream = begun(1);
    assert.deepEqual(add(stream, 1, Buffer.concat([BOTH, Buffer.from('data')])), hexOf(PROPOSAL, CONFIRM));
    assert.equal(stream.phase, 'over');
  });

  test('without a SYN: given up after a while', () => {
    const stream = new Stream();
    for (let i = 0; i < 10; i++) add(stream, i * 1000, Buffer.alloc(1000, 0x41));
    assert.equal(stream.phase, 'over');
    assert.equal(stream.heldBytes, 0);
  });
});

describe('messages that do not come whole', () => {
  test('the rest was not sent', () => {
    const stream = begun(1);
    assert.deepEqual(add(stream, 1, PROPOSAL, 0, 100), []);
    assert.deepEqual(stream.takeRest(), { bytes: Buffer.from(PROPOSAL.subarray(0, 100)), isCutByCapture: false });
    assert.equal(stream.takeRest(), null);
  });

  test('the rest is not in the capture, for packets were cut', () => {
    const stream = begun(1);
    stream.add(1, PROPOSAL.subarray(0, 50), PROPOSAL.length);
    assert.deepEqual(all(stream), []);
    assert.deepEqual(stream.takeRest(), { bytes: Buffer.from(PROPOSAL.subarray(0, 50)), isCutByCapture: true });
  });

  test('or a packet is missing', () => {
    const stream = begun(1);
    add(stream, 1, PROPOSAL, 0, 50);
    add(stream, 1, PROPOSAL, 60);
    assert.equal(stream.takeRest()?.isCutByCapture, true);
  });

  test('a length that leads nowhere', () => {
    const bytes = Buffer.from(PROPOSAL);
    bytes.writeUInt16BE(3, 5);
    const stream = begun(1);
    assert.deepEqual(add(stream, 1, bytes), hexOf(bytes));
    assert.equal(stream.phase, 'over');
  });

  test('a length of 65535', () => {
    const bytes = Buffer.alloc(200_000, 0x41);
    PROPOSAL.copy(bytes);
    bytes.writeUInt16BE(0xffff, 5);
    const stream = begun(1);
    let found: string[] = [];
    for (let at = 0; at < bytes.length; at += 1000) found = [...found, ...add(stream, 1, bytes, at, at + 1000)];
    assert.deepEqual(found, hexOf(bytes.subarray(0, 0xffff)));
    assert.equal(stream.heldBytes, 0);
  });
});

test('bytes that were there first stay', () => {
  const stream = begun(1);
  add(stream, 1, PROPOSAL, 0, 100);
  assert.deepEqual(add(stream, 1, Buffer.concat([Buffer.alloc(100, 0xff), PROPOSAL.subarray(100)])), hexOf(PROPOSAL));
});

test('whatever comes, no more than a bound is held', () => {
  const stream = begun(0);
  stream.add(0, PROPOSAL.subarray(0, 8), 8);
  for (let i = 0; i < 2000; i++) stream.add(100 + i * 2000, Buffer.alloc(1000), 1000);
  assert.ok(stream.heldBytes <= 2 * 65_536, String(stream.heldBytes));
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.integer(), fc.uint8Array({ maxLength: 50 }), fc.nat(100))), (segments) => {
      const any = new Stream();
      for (const [i, [seq, bytes, more]] of segments.entries()) {
        if (i % 5 === 4) any.begin(seq >>> 0);
        const sent = Buffer.concat([i % 2 === 0 ? PROPOSAL.subarray(0, 8) : Buffer.alloc(0), bytes]);
        any.add(seq >>> 0, sent, sent.length + more);
        all(any);
      }
      any.takeRest();
      assert.equal(any.phase === 'clc', false);
    }),
  );
});
