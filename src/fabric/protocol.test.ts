import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Gid, parseGid } from '../ism/index.ts';
import {
  decodeMessage,
  decodePacket,
  encodeMessage,
  type FabricMessage,
  MESSAGES,
  type MessageName,
  messagesPerPacket,
} from './protocol.ts';
import { FabricWireError, type FieldTypes, type MessageSchema } from './wire.ts';

const hex = (digits: number) =>
  fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: digits, maxLength: digits });
const FIELDS: { [Type in keyof FieldTypes]: fc.Arbitrary<FieldTypes[Type]> } = {
  u8: fc.integer({ min: 0, max: 0xff }),
  u16: fc.integer({ min: 0, max: 0xffff }),
  u32: fc.integer({ min: 0, max: 0xffffffff }),
  u64: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  gid: fc.tuple(hex(8), hex(4), hex(4), hex(4), hex(12)).map((parts): Gid => parseGid(parts.join('-'))),
  endpoint: fc.record(
    {
      address: fc.oneof(
        fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((bytes) => bytes.join('.')),
        fc
          .tuple(...Array.from({ length: 8 }, () => fc.integer({ min: 1, max: 0xffff })))
          .map((groups) => groups.map((one) => one.toString(16)).join(':')),
      ),
      port: fc.integer({ min: 0, max: 0xffff }),
    },
    { noNullPrototype: true },
  ),
  text: fc.string({ maxLength: 300 }),
};

for (const name of Object.keys(MESSAGES) as MessageName[]) {
  const schema: MessageSchema = MESSAGES[name];
  const fds = [3, 4, 5].slice(0, schema.descriptors);
  const message = fc
    .record(
      Object.fromEntries(
        Object.entries(schema.fields).map(([field, type]) => [field, FIELDS[type] as fc.Arbitrary<unknown>]),
      ),
    )
    .map((fields) => ({ type: name, ...fields }) as unknown as FabricMessage);
  const decode = (bytes: Buffer) => decodeMessage(bytes, fds, schema.from);

  test(`${name}: what is encoded is decoded`, () => {
    fc.assert(fc.property(message, (one) => assert.deepEqual(decode(encodeMessage(one)), one)));
  });

  test(`${name}: cut at any length, or longer, it is refused`, () => {
    fc.assert(
      fc.property(message, (one) => {
        const bytes = encodeMessage(one);
        for (let length = 0; length < bytes.length; length++) {
          assert.throws(() => decode(bytes.subarray(0, length)), FabricWireError);
        }
        assert.throws(() => decode(Buffer.concat([bytes, Buffer.alloc(1)])), FabricWireError);
      }),
      { numRuns: 30 },
    );
  });

  test(`${name}: with any byte changed it is decoded or refused, nothing else`, () => {
    fc.assert(
      fc.property(message, fc.nat(), fc.nat(255), (one, at, value) => {
        const bytes = encodeMessage(one);
        bytes[at % bytes.length] = value;
        try {
          decode(bytes);
        } catch (error) {
          assert.ok(error instanceof FabricWireError);
        }
      }),
    );
  });

  test(`${name}: with another number of descriptors, or from the other side, it is refused`, () => {
    const [one] = fc.sample(message, 1);
    assert.ok(one);
    const bytes = encodeMessage(one);
    assert.throws(() => decodeMessage(bytes, [...fds, 9], schema.from), FabricWireError);
    const other = schema.from === 'fabric' ? 'partition' : 'fabric';
    assert.throws(() => decodeMessage(bytes, fds, other), FabricWireError);
  });
}

test('a packet of version 3 holds several messages, each with its descriptors', () => {
  const messages: FabricMessage[] = [
    { type: 'SHOWN', claim: 1 },
    { type: 'GONE', claim: 2 },
    { type: 'PING' },
    { type: 'SHOWN', claim: 3 },
  ];
  const packet = Buffer.concat(messages.map(encodeMessage));
  const decode = (fds: readonly number[], most: number) => decodePacket(packet, fds, 'partition', most);
  const fds = [[7], [], [], [8]];
  assert.deepEqual(
    decode([7, 8], messagesPerPacket(3)),
    messages.map((message, i) => ({ message, fds: fds[i] })),
  );
  for (const fds of [[], [7], [7, 8, 9]]) assert.throws(() => decode(fds, 4), FabricWireError);
  assert.throws(() => decode([7, 8], 3), FabricWireError, 'one too many');
  assert.throws(() => decode([7, 8], messagesPerPacket(2)), FabricWireError, 'an older version');
});
