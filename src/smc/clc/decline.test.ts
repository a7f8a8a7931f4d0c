import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  altered,
  bytesOf,
  checkAny,
  checkMutation,
  checkTruncation,
  decline,
  fieldOf,
  mutated,
  throwsWire,
  vector,
  vectors,
  withLength,
} from './clc.test.helper.ts';
import { type Decline, decodeDecline, describeDecline, encodeDecline } from './decline.ts';
import { declineName, SMC_CLC_DECL } from './decline-codes.ts';

const V1 = vector('20-decline-client-has-no-device message 1');
const V2 = vector('21-decline-server-has-no-device message 2');

const noDevice: Decline = { type: 'decline', version: 2, diagnosis: SMC_CLC_DECL.NOSMCD2DEV, outOfSync: false, os: 2 };

describe('golden vectors', () => {
  test('Decline of v2', () => {
    const bytes = bytesOf('e2d4c3d9 04 002c 20 00*8 03030007 20 00*19 e2d4c3d9');
    assert.deepEqual(decodeDecline(bytes), noDevice);
    assert.deepEqual(encodeDecline(noDevice), bytes);
  });

  test('fields that no capture has', () => {
    const bytes = bytesOf('e2d4c3d9 04 002c 28 01*8 04000000 10 000000 00000001 00000002 00000003 00000004 e2d4c3d9');
    const message: Decline = {
      type: 'decline',
      version: 2,
      diagnosis: SMC_CLC_DECL.SYNCERR,
      outOfSync: true,
      os: 1,
      peerId: Buffer.alloc(8, 1),
      moreDiagnosis: [1, 2, 3, 4],
    };
    assert.deepEqual(decodeDecline(bytes), message);
    assert.equal(encodeDecline(message).toString('hex'), bytes.toString('hex'));
  });

  for (const golden of vectors.filter(({ type }) => type === 'decline')) {
    test(golden.name, () => {
      const message = decodeDecline(golden.bytes);
      assert.equal(message.residue, undefined);
      assert.deepEqual(encodeDecline(message), golden.bytes);
      assert.equal(message.diagnosis, Number(`0x${fieldOf(golden, 'peer_diagnosis')}`));
      assert.ok(golden.fields.some((line) => line.endsWith(` | ${declineName(message.diagnosis)}`)));
      assert.equal(message.os, message.version === 1 ? 0 : 2);
      assert.equal(message.outOfSync, false);
    });
  }
});

describe('round trip', () => {
  test('any message', () => {
    fc.assert(
      fc.property(decline, (message) => {
        const bytes = encodeDecline(message);
        assert.equal(bytes.length, message.version === 1 ? 28 : 44);
        assert.deepEqual(decodeDecline(bytes), message);
        assert.ok(checkAny(bytes));
      }),
    );
  });

  test('reserved bits, a trailer of any kind and a later version are kept', () => {
    const odd = altered(V2, { 7: '37', 20: '2f123456', 40: '00000000' });
    assert.deepEqual({ ...decodeDecline(odd), residue: undefined }, { ...decodeDecline(V2), residue: undefined });
    assert.deepEqual(encodeDecline(decodeDecline(odd)), odd);
  });
});

test('truncation', () => {
  checkTruncation(V1);
  checkTruncation(V2);
});

describe('mutation', () => {
  for (const [what, bytes] of Object.entries({ V1, V2 })) {
    test(`each byte of ${what}`, () => checkMutation(bytes));
    test(`several bytes of ${what}`, () => {
      fc.assert(
        fc.property(mutated(bytes), (copy) => void checkAny(withLength(copy))),
        { numRuns: 1000 },
      );
    });
  }
});

describe('errors', () => {
  test('version 1 too long', () => throwsWire(altered(V2, { 7: '10' }), 'length'));
  test('version 2 too short', () => throwsWire(altered(V1, { 7: '20' }), 'length'));
  test('what can not be encoded', () => {
    const more = [1, 2, 3, 4];
    for (const message of [
      { ...noDevice, version: 1 as const, moreDiagnosis: more },
      { ...noDevice, moreDiagnosis: [1] },
      { ...noDevice, diagnosis: 2 ** 32 },
      { ...noDevice, os: -1 },
      { ...noDevice, peerId: Buffer.alloc(7) },
    ]) {
      assert.throws(() => encodeDecline(message), RangeError);
    }
  });
});

test('description', () => {
  assert.equal(describeDecline(noDevice), 'Decline v2: 0x03030007 NOSMCD2DEV, Linux');
  assert.equal(
    describeDecline({ ...noDevice, diagnosis: 0x12345678, outOfSync: true, os: 0, moreDiagnosis: [1, 0, 0, 0] }),
    'Decline v2: 0x12345678 0x00000001 0x00000000 0x00000000 0x00000000, out of sync',
  );
});
