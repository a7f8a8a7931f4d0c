import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { altered, checkAny, throwsWire, vector, vectors } from './clc.test.helper.ts';
import { decodeDecline } from './decline.ts';
import { ClcWireError, clcLength, decodeClc, encodeClc } from './index.ts';

const MESSAGE = vector('40-v21-loopback-first-contact message 1');

test('the first 8 bytes say how long the message is', () => {
  for (const { type, length, bytes } of vectors) {
    assert.equal(clcLength(bytes.subarray(0, 8)), length);
    assert.equal(decodeClc(bytes).type, type);
    assert.deepEqual(encodeClc(decodeClc(bytes)), bytes);
  }
});

test('a message does not change with the buffer it was read from', () => {
  for (const { bytes } of vectors) {
    const copy = new Uint8Array(bytes);
    const message = decodeClc(copy);
    copy.fill(0xff);
    assert.deepEqual(encodeClc(message), bytes);
  }
});

test('bytes that are no message at all', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => !checkAny(Buffer.from(bytes))));
  const begin = MESSAGE.subarray(0, 4);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 140 }), (bytes) => void checkAny(Buffer.concat([begin, bytes]))),
    { numRuns: 1000 },
  );
});

describe('errors', () => {
  const cases: [what: string, field: string, bytes: Buffer][] = [
    ['nothing', 'header', Buffer.alloc(0)],
    ['7 bytes', 'header', MESSAGE.subarray(0, 7)],
    ['another protocol', 'eyecatcher', Buffer.from('GET / HTTP/1.1\r\n')],
    ['type 0', 'type', altered(MESSAGE, { 4: '00' })],
    ['type 5', 'type', altered(MESSAGE, { 4: '05' })],
    ['version 0', 'version', altered(MESSAGE, { 7: '06' })],
    ['shorter than any Proposal', 'length', altered(MESSAGE, { 5: '0033' })],
    ['length 0', 'length', altered(MESSAGE, { 5: '0000' })],
    ['less than the length says', 'length', MESSAGE.subarray(0, 223)],
    ['more than the length says', 'length', Buffer.concat([MESSAGE, Buffer.alloc(1)])],
  ];
  for (const [what, field, bytes] of cases) test(what, () => throwsWire(bytes, field));

  test('a message of another type', () => {
    assert.throws(() => decodeDecline(MESSAGE), { name: 'ClcWireError', field: 'type' });
  });

  test('say what was where', () => {
    assert.throws(
      () => decodeClc(altered(MESSAGE, { 50: '0005' })),
      (error) => {
        assert.ok(error instanceof ClcWireError);
        const { code, fault, messageType, field, offset, expected, got, message } = error;
        assert.deepEqual(
          { code, fault, messageType, field, offset, expected, got, message },
          {
            code: 'ERR_ISTHMUS_CLC',
            fault: 'peer',
            messageType: 'proposal',
            field: 'v2_ext_offset',
            offset: 50,
            expected: 28,
            got: 5,
            message: 'CLC proposal: v2_ext_offset at 50: expected 28, got 5',
          },
        );
        return true;
      },
    );
  });
});
