import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { capture, find, packetsOf } from './capture.test.helper.ts';
import { CaptureError, MAX_PACKET_BYTES } from './format.ts';
import { CaptureReader } from './reader.ts';

const BYTES = [Buffer.from('first'), Buffer.alloc(0), Buffer.from('the third one')];
const SECOND = 1_700_000_000;

class Writer {
  readonly parts: Buffer[] = [];
  readonly #isLittle: boolean;

  constructor(isLittle: boolean) {
    this.#isLittle = isLittle;
  }

  u16(...values: number[]): this {
    for (const value of values) {
      const part = Buffer.alloc(2);
      if (this.#isLittle) part.writeUInt16LE(value);
      else part.writeUInt16BE(value);
      this.parts.push(part);
    }
    return this;
  }

  u32(...values: number[]): this {
    for (const value of values) {
      const part = Buffer.alloc(4);
      if (this.#isLittle) part.writeUInt32LE(value >>> 0);
      else part.writeUInt32BE(value >>> 0);
      this.parts.push(part);
    }
    return this;
  }

  bytes(bytes: Buffer, multiple = 1): this {
    this.parts.push(bytes, Buffer.alloc((multiple - (bytes.length % multiple)) % multiple));
    return this;
  }

  block(type: number, body: (writer: Writer) => Writer): this {
    const content = body(new Writer(this.#isLittle)).done();
    return this.u32(type, content.length + 12)
      .bytes(content)
      .u32(content.length + 12);
  }

  done(): Buffer {
    return Buffer.concat(this.parts);
  }
}

function pcap(isLittle: boolean, magic: number, fraction: number, linkType = 101): Buffer {
  const writer = new Writer(isLittle).u32(magic).u16(2, 4).u32(0, 0, MAX_PACKET_BYTES, linkType);
  for (const [i, bytes] of BYTES.entries()) {
    writer.u32(SECOND + i, fraction, bytes.length, bytes.length + 10).bytes(bytes);
  }
  return writer.done();
}

const section = (writer: Writer) =>
  writer.block(0x0a0d0d0a, (body) => body.u32(0x1a2b3c4d).u16(1, 0).u32(0xffffffff, 0xffffffff));
const ethernet = (writer: Writer) => writer.block(1, (body) => body.u16(1, 0).u32(0));

/** Interfaces of microseconds, of nanoseconds with an offset, and of 2^-10 seconds; all kinds of blocks. */
function pcapng(isLittle: boolean): Buffer {
  const [one, two, three] = BYTES as [Buffer, Buffer, Buffer];
  return section(new Writer(isLittle))
    .block(1, (body) => body.u16(101, 0).u32(0))
    .block(5, (body) => body.bytes(Buffer.from('statistics'), 4))
    .block(1, (body) =>
      body
        .u16(1, 0)
        .u32(0)
        .u16(2, 3)
        .bytes(Buffer.from('lo0'), 4)
        .u16(9, 1)
        .bytes(Buffer.from([9]), 4)
        .u16(14, 8)
        .bytes(new Writer(isLittle).u32(...(isLittle ? [100, 0] : [0, 100])).done())
        .u16(0, 0),
    )
    .block(1, (body) =>
      body
        .u16(276, 0)
        .u32(4)
        .u16(9, 1)
        .bytes(Buffer.from([0x8a]), 4),
    )
    .block(6, (body) => body.u32(0, 0, 5_000_001, one.length, 99).bytes(one, 4))
    .block(6, (body) => body.u32(1, 1, 7, two.length, 99).bytes(two, 4))
    .block(2, (body) => body.u16(2, 0).u32(0, 1536, three.length, 99).bytes(three, 4).u16(0, 0))
    .block(3, (body) => body.u32(three.length).bytes(three, 4))
    .done();
}

const shown = (bytes: Buffer) =>
  packetsOf(bytes).map((packet) => [packet.timeNs, packet.linkType, packet.bytes.toString()]);

describe('pcap', () => {
  const base = BigInt(SECOND) * 1_000_000_000n;
  const expected = (fractionNs: bigint) =>
    BYTES.map((bytes, i) => [base + BigInt(i) * 1_000_000_000n + fractionNs, 101, bytes.toString()]);
  for (const [order, isLittle] of [['little-endian', true] as const, ['big-endian', false] as const]) {
    test(`${order}, microseconds`, () => {
      assert.deepEqual(shown(pcap(isLittle, 0xa1b2c3d4, 7)), expected(7000n));
    });
    test(`${order}, nanoseconds`, () => {
      assert.deepEqual(shown(pcap(isLittle, 0xa1b23c4d, 7)), expected(7n));
    });
  }

  test('the length of a check sequence is no part of the link type', () => {
    assert.equal(packetsOf(pcap(true, 0xa1b2c3d4, 0, 0x14000001))[0]?.linkType, 1);
  });
});

describe('pcapng', () => {
  for (const [order, isLittle] of [['little-endian', true] as const, ['big-endian', false] as const]) {
    test(order, () => {
      assert.deepEqual(shown(pcapng(isLittle)), [
        [5_000_001_000n, 101, 'first'],
        [100_000_000_000n + 2n ** 32n + 7n, 1, ''],
        [1_500_000_000n, 276, 'the third one'],
        [null, 101, 'the third one'],
      ]);
    });
  }

  test('a section has its own byte order and interfaces', () => {
    const packets = packetsOf(Buffer.concat([pcapng(true), pcapng(false)]));
    assert.deepEqual(
      packets.map(({ linkType }) => linkType),
      [101, 1, 276, 101, 101, 1, 276, 101],
    );
    const astray = Buffer.concat([
      pcapng(true),
      section(new Writer(true))
        .block(3, (body) => body.u32(0))
        .done(),
    ]);
    assert.throws(
      () => packetsOf(astray),
      /a packet of interface 0, which is not there, at byte \d+, behind 4 packets/,
    );
  });

  test('blocks that nobody needs are stepped over, however long they are', () => {
    const long = section(new Writer(true)).block(10, (body) => body.bytes(Buffer.alloc(3_000_000)));
    const bytes = ethernet(long)
      .block(3, (body) => body.u32(2).bytes(Buffer.from('hi'), 4))
      .done();
    const reader = new CaptureReader();
    const found: string[] = [];
    for (let at = 0; at < bytes.length; at += 1000) {
      for (const packet of reader.push(bytes.subarray(at, at + 1000))) found.push(packet.bytes.toString());
    }
    reader.end();
    assert.deepEqual(found, ['hi']);
  });
});

test('chunks of any size give the same packets', () => {
  const [little, ng] = [pcap(true, 0xa1b2c3d4, 1), pcapng(false)];
  fc.assert(
    fc.property(fc.constantFrom(little, ng), fc.array(fc.nat(200)), (bytes, cuts) => {
      const at = [0, ...cuts.map((cut) => cut % bytes.length).sort((a, b) => a - b), bytes.length];
      const chunks = at.slice(1).map((end, i) => bytes.subarray(at[i], end));
      assert.deepEqual(packetsOf(...chunks), packetsOf(bytes));
    }),
  );
});

describe('what is no capture says so', () => {
  const rows: readonly (readonly [string, Buffer, RegExp])[] = [
    ['nothing', Buffer.alloc(0), /^it is empty$/],
    ['two bytes', Buffer.from('hi'), /too short/],
    ['text', Buffer.from('GET / HTTP/1.1\r\n'), /^neither pcap nor pcapng$/],
    ['gzip', Buffer.from('1f8b0800', 'hex'), /gzip: zcat/],
    ['zstd', Buffer.from('28b52ffd', 'hex'), /zstd: zstdcat/],
    ['hex', Buffer.from('e2d4c3d9 01'), /hex: isthmus clc --hex/],
    ['a header cut off', pcap(true, 0xa1b2c3d4, 0).subarray(0, 20), /too short/],
    ['a packet cut off', pcap(true, 0xa1b2c3d4, 0).subarray(0, -1), /^it is cut off, at byte 61, behind 2 packets$/],
    [
      'a packet too long',
      Buffer.concat([pcap(true, 0xa1b2c3d4, 0), Buffer.alloc(16, 0xee)]),
      /^a packet of 4008636142 bytes, at byte 90, behind 3 packets$/,
    ],
    [
      'a block without length',
      Buffer.concat([pcapng(true), Buffer.alloc(12)]),
      /^a block of 0 bytes, at byte \d+, behind 4/,
    ],
    [
      'a section without a byte order',
      new Writer(true).block(0x0a0d0d0a, (body) => body.u32(1, 2)).done(),
      /byte order/,
    ],
  ];
  for (const [name, bytes, pattern] of rows) {
    test(name, () => {
      assert.throws(
        () => packetsOf(bytes),
        (error) => error instanceof CaptureError && error.code === 'ERR_ISTHMUS_CAPTURE' && pattern.test(error.message),
        name,
      );
    });
  }

  test('lengths of a block that differ', () => {
    const bytes = pcapng(true);
    bytes[bytes.length - 4] = 0;
    assert.throws(() => packetsOf(bytes), /two lengths differ/);
  });

  test('a packet that is longer than its block', () => {
    const bytes = ethernet(section(new Writer(true)))
      .block(6, (body) => body.u32(0, 0, 0, 8, 8).u32(0))
      .done();
    assert.throws(() => packetsOf(bytes), /a packet of 8 bytes in a block for 4/);
  });
});

test('packets in front of the damage are given', () => {
  const reader = new CaptureReader();
  const found: string[] = [];
  assert.throws(() => {
    for (const { bytes } of reader.push(Buffer.concat([pcap(true, 0xa1b2c3d4, 0), Buffer.alloc(16, 0xee)]))) {
      found.push(bytes.toString());
    }
  }, CaptureError);
  assert.deepEqual(found, BYTES.map(String));
});

test('a capture with any bytes changed gives messages, or an error of its own', () => {
  const sources = [capture('01-v2-first-contact'), capture('41-v21-loopback-ipv6'), pcapng(true)];
  fc.assert(
    fc.property(
      fc.constantFrom(...sources),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }),
      (source, changes) => {
        const bytes = Buffer.from(source);
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        try {
          find(packetsOf(bytes));
        } catch (error) {
          assert.ok(error instanceof CaptureError, String(error));
        }
      },
    ),
    { numRuns: 1500 },
  );
});
