import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CDC_BYTES, CDC_FLAG, type CdcMessage, decodeCdc, describeCdc, encodeCdc } from './message.ts';

const PLAIN = { noNullPrototype: true };
const cursor = fc.record(
  { wrap: fc.integer({ min: 0, max: 0xffff }), count: fc.integer({ min: 0, max: 0xffffffff }) },
  PLAIN,
);
const message = fc.record({ producer: cursor, consumer: cursor, flags: fc.integer({ min: 0, max: 0xffff }) }, PLAIN);
const order = fc.constantFrom('LE' as const, 'BE' as const);

test('every field stands where the table says, in both byte orders', () => {
  const one: CdcMessage = {
    producer: { wrap: 0x0102, count: 0x03040506 },
    consumer: { wrap: 0x0708, count: 0x090a0b0c },
    flags: CDC_FLAG.WRITE_BLOCKED | CDC_FLAG.CLOSED,
  };
  assert.equal(
    encodeCdc(one, 'BE').toString('hex'),
    `fe${'00'.repeat(7)}0102030405060000${'0708090a0b0c8040'}${'00'.repeat(8)}`,
  );
  assert.equal(
    encodeCdc(one, 'LE').toString('hex'),
    `fe${'00'.repeat(7)}0201060504030000${'08070c0b0a098040'}${'00'.repeat(8)}`,
  );
  assert.equal(describeCdc(one), 'prod 258:50595078 cons 1800:151653132 flags WRITE_BLOCKED state CLOSED');
});

test('what was encoded is decoded', () => {
  fc.assert(fc.property(message, order, (one, way) => assert.deepEqual(decodeCdc(encodeCdc(one, way), way), one)));
});

test('any bytes are a message, and reserved ones are not looked at', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: CDC_BYTES, maxLength: CDC_BYTES }), order, (bytes, way) => {
      const one = decodeCdc(Buffer.from(bytes), way);
      assert.deepEqual(decodeCdc(encodeCdc(one, way), way), one);
    }),
  );
});
