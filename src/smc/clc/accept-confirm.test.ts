import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { CHID_LOOPBACK, type Eid, parseChid, parseGid, parseToken } from '../../ism/index.ts';
import {
  type AcceptConfirm,
  type AcceptConfirmR,
  type AcceptConfirmV1,
  type AcceptConfirmV2,
  decodeAcceptConfirm,
  describeAcceptConfirm,
  dmbeSizeBytes,
  encodeAcceptConfirm,
} from './accept-confirm.ts';
import {
  acceptConfirm,
  altered,
  bytesOf,
  checkAny,
  checkMutation,
  checkTruncation,
  fieldOf,
  mutated,
  throwsWire,
  vector,
  vectors,
  withLength,
} from './clc.test.helper.ts';
import { FEATURE_EMULATED_ISM, OS_LINUX, RELEASE_V21 } from './first-contact.ts';

const FIRST = vector('40-v21-loopback-first-contact message 2');
const REUSE = vector('02-v2-link-group-reuse message 3');
const V1 = vector('07-v1-first-contact message 2');

const accept: AcceptConfirmV2 = {
  type: 'accept',
  mode: 'D',
  version: 2,
  firstContact: true,
  gid: parseGid('01234567-89ab-4def-8899-aabbccddeeff'),
  token: parseToken(0x1122334455667788n),
  dmbeIndex: 0,
  dmbeSize: 2,
  linkId: 0x00010000,
  chid: CHID_LOOPBACK,
  eid: 'ISTHMUS.TEST' as Eid,
  fce: { os: OS_LINUX, release: RELEASE_V21, hostName: 'hostA', v21: { featureMask: FEATURE_EMULATED_ISM } },
};
const acceptBytes = bytesOf(`e2d4c3c4 02 0082 29 0123456789ab4def 1122334455667788 00 20 0000 00010000 ffff
  495354484d55532e54455354 20*20 8899aabbccddeeff 00 21 0000 686f737441 20*27 0000 0001 00*12 e2d4c3c4`);
const { chid: _, eid: __, fce: ___, ...common } = accept;
const acceptV1: AcceptConfirmV1 = { ...common, version: 1, gid: parseGid('01234567-89ab-4def-0000-000000000000') };
const acceptR: AcceptConfirmR = {
  type: 'accept',
  mode: 'R',
  version: 2,
  firstContact: false,
  payload: Buffer.alloc(96, 7),
};

describe('golden vectors', () => {
  test('Accept of v2.1 with first contact', () => {
    assert.equal(encodeAcceptConfirm(accept).toString('hex'), acceptBytes.toString('hex'));
    assert.deepEqual(decodeAcceptConfirm(acceptBytes), accept);
  });

  test('the description has no token', () => {
    assert.equal(
      describeAcceptConfirm(accept),
      'Accept v2 SMC-D, first contact, device 01234567-89ab-4def-8899-aabbccddeeff, CHID ffff, EID ISTHMUS.TEST, ' +
        'DMB of 65536 bytes, link group 00010000, Linux "hostA", release 1, features 0x0001',
    );
    assert.match(describeAcceptConfirm(acceptV1), /^Accept v1 SMC-D, first contact, device .*, DMB of 65536 bytes/);
    assert.equal(describeAcceptConfirm({ ...acceptR, type: 'confirm' }), 'Confirm v2 SMC-R');
  });

  for (const golden of vectors.filter(({ type }) => type === 'accept' || type === 'confirm')) {
    test(golden.name, () => {
      const message = decodeAcceptConfirm(golden.bytes);
      assert.equal(message.residue, undefined);
      assert.deepEqual(encodeAcceptConfirm(message), golden.bytes);
      assert.ok(message.mode === 'D');
      assert.equal(message.type, golden.type);
      const gid = (fieldOf(golden, 'gid') ?? '') + (fieldOf(golden, 'gid_ext') ?? '0'.repeat(16));
      assert.equal(message.gid.replaceAll('-', ''), gid);
      assert.equal(message.token, BigInt(`0x${fieldOf(golden, 'dmb token')}`));
      assert.equal(message.linkId, Number(`0x${fieldOf(golden, 'linkid')}`));
      const size = golden.fields.find((line) => line.includes('dmbe_size'));
      assert.ok(size?.endsWith(`-> ${dmbeSizeBytes(message.dmbeSize)} bytes`));
      if (message.version === 1) return;
      const eid = Buffer.from(message.eid.padEnd(32)).toString('hex');
      assert.equal(eid, fieldOf(golden, 'negotiated eid'));
      assert.equal(message.chid, Number(`0x${fieldOf(golden, 'chid') ?? 0}`));
      assert.equal(message.firstContact, message.fce !== null);
      const fce = { os: 2, release: 1, hostName: '(none)', v21: { featureMask: 1 } };
      assert.deepEqual(message.fce, message.firstContact ? fce : null);
    });
  }
});

describe('round trip', () => {
  test('any message', () => {
    fc.assert(
      fc.property(acceptConfirm, (message) => {
        const bytes = encodeAcceptConfirm(message);
        assert.deepEqual(decodeAcceptConfirm(bytes), message);
        assert.ok(checkAny(bytes));
      }),
    );
  });

  test('reserved bits and what does not count are kept', () => {
    const odd = altered(REUSE, { 0: 'e2d4c3d9', 7: '75', 25: '2f', 26: 'ffff', 32: '07c1', 66: 'ff'.repeat(8) });
    const message = decodeAcceptConfirm(odd);
    assert.ok(message.version === 2 && message.mode === 'D');
    assert.equal(message.gid, '22220000-0000-0002-0000-000000000000', 'a hardware GID has 64 bits');
    assert.deepEqual(encodeAcceptConfirm(message), odd);
  });

  test('lengths', () => {
    const release0 = { os: 2, release: 0, hostName: '', v21: null };
    const cases: [AcceptConfirm, number][] = [
      [acceptV1, 48],
      [{ ...accept, firstContact: false, fce: null }, 78],
      [{ ...accept, fce: release0 }, 114],
      [accept, 130],
      [{ ...accept, trailing: Buffer.alloc(8) }, 138],
      [{ ...acceptR, version: 1, payload: Buffer.alloc(56) }, 68],
      [acceptR, 108],
      [{ ...acceptR, payload: Buffer.alloc(100) }, 112],
    ];
    for (const [message, length] of cases) {
      const bytes = encodeAcceptConfirm(message);
      assert.equal(bytes.length, length);
      assert.deepEqual(decodeAcceptConfirm(bytes), message);
    }
  });
});

describe('a first contact extension that is not all there', () => {
  const cutTo = (length: number) => {
    const message = decodeAcceptConfirm(withLength(Buffer.concat([FIRST.subarray(0, length - 4), FIRST.subarray(-4)])));
    assert.ok(message.mode === 'D' && message.version === 2 && message.firstContact);
    return message;
  };

  test('none', () => {
    assert.equal(cutTo(78).fce, null);
    assert.equal(cutTo(78).trailing, undefined);
    assert.equal(cutTo(113).fce, null);
    assert.equal(cutTo(113).trailing?.length, 35);
  });

  test('the part of v2 only', () => {
    assert.deepEqual(cutTo(114).fce, { os: 2, release: 1, hostName: '(none)', v21: null });
    assert.equal(cutTo(129).trailing?.length, 15);
  });

  test('with release 0 the bytes of v2.1 are none', () => {
    const message = decodeAcceptConfirm(altered(FIRST, { 75: '20' }));
    assert.ok(message.mode === 'D' && message.version === 2);
    assert.equal(message.fce?.v21, null);
    assert.equal(message.trailing?.length, 16);
  });

  test('without the flag there is no extension, whatever the length', () => {
    const message = decodeAcceptConfirm(altered(FIRST, { 7: '21' }));
    assert.ok(message.mode === 'D' && message.version === 2);
    assert.equal(message.fce, null);
    assert.equal(message.trailing?.length, 52);
  });
});

describe('truncation', () => {
  for (const [what, bytes] of Object.entries({ FIRST, REUSE, V1, R: encodeAcceptConfirm(acceptR) })) {
    test(what, () => checkTruncation(bytes));
  }
});

describe('mutation', () => {
  for (const [what, bytes] of Object.entries({ FIRST, REUSE, V1, R: encodeAcceptConfirm(acceptR) })) {
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
  const cases: [what: string, field: string, bytes: Buffer][] = [
    ['neither SMC-D nor SMC-R', 'typev1', altered(FIRST, { 7: '2a' })],
    ['both', 'typev1', altered(FIRST, { 7: '2b' })],
    ['version 1 too long', 'length', altered(FIRST, { 7: '19' })],
    ['version 2 too short', 'length', altered(V1, { 7: '21' })],
    ['SMC-R of version 1 too long', 'length', altered(FIRST, { 7: '18' })],
    ['SMC-R of version 2 too short', 'length', altered(REUSE, { 7: '20' })],
    ['no trailer', 'trailer', altered(FIRST, { 129: '00' })],
  ];
  for (const [what, field, bytes] of cases) test(what, () => throwsWire(bytes, field));

  test('what can not be encoded', () => {
    const wrong: [AcceptConfirm, RegExp][] = [
      [{ ...accept, firstContact: false }, /belongs to a first contact/],
      [{ ...accept, chid: parseChid(0x7c1) }, /only 64 bits/],
      [{ ...acceptV1, gid: accept.gid }, /only 64 bits/],
      [{ ...accept, dmbeSize: 16 }, /dmbe_size has 4 bits/],
      [{ ...accept, dmbeIndex: 256 }, /out of range/],
      [{ ...accept, eid: 'X'.repeat(33) as Eid }, /eid has 32 bytes/],
      [{ ...acceptR, payload: Buffer.alloc(95) }, /payload of 95 bytes/],
      [{ ...acceptR, version: 1 }, /payload of 96 bytes/],
    ];
    for (const [message, expected] of wrong) {
      assert.throws(() => encodeAcceptConfirm(message), { name: 'RangeError', message: expected });
    }
  });
});
