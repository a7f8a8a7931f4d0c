import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { bytesOf, vector } from './clc.test.helper.ts';
import { decodeFirstContact, describeFirstContact, encodeFirstContact, type FirstContact } from './first-contact.ts';

const LINUX = vector('40-v21-loopback-first-contact message 2').subarray(74, -4);
const linux: FirstContact = { os: 2, release: 1, hostName: '(none)', v21: { featureMask: 1 } };
const full: FirstContact = {
  os: 3,
  release: 2,
  hostName: 'a.b',
  v21: { featureMask: 0xabcd, maxConns: 255, maxLinks: 2, vendorOptions: Buffer.from('IST1') },
};

test('golden vector', () => {
  assert.deepEqual(decodeFirstContact(LINUX), linux);
  assert.deepEqual(encodeFirstContact(linux), LINUX);
});

test('fields that no capture has', () => {
  const bytes = bytesOf('00 32 0000 612e62 20*29 ff 02 abcd 49535431 00*8');
  assert.equal(encodeFirstContact(full).toString('hex'), bytes.toString('hex'));
  assert.deepEqual(decodeFirstContact(bytes), full);
});

test('round trip', () => {
  for (const fce of [linux, full, { ...full, release: 0, v21: null }]) {
    const bytes = encodeFirstContact(fce);
    assert.equal(bytes.length, fce.release === 0 ? 36 : 52);
    assert.deepEqual(decodeFirstContact(bytes), fce);
  }
});

test('truncation: each part is there or not', () => {
  for (let length = 0; length < LINUX.length; length++) {
    const fce = decodeFirstContact(LINUX.subarray(0, length));
    assert.deepEqual(fce, length < 36 ? null : { ...linux, v21: null });
  }
});

test('mutation: a host name that is not ASCII is none', () => {
  const bytes = Buffer.from(LINUX);
  bytes[35] = 0x80;
  assert.deepEqual(decodeFirstContact(bytes), { ...linux, hostName: '' });
});

describe('errors: what can not be encoded', () => {
  for (const [fce, message] of [
    [{ ...linux, hostName: 'x'.repeat(33) }, /32 ASCII characters/],
    [{ ...linux, hostName: 'hôte' }, /32 ASCII characters/],
    [{ ...linux, release: 0 }, /release 0 has no v2.1 part/],
    [{ ...linux, os: 16 }, /4 bits/],
    [{ ...linux, v21: { featureMask: 1, vendorOptions: Buffer.alloc(5) } }, /vendor_exp_options has 4 bytes/],
  ] as const) {
    test(String(message), () => assert.throws(() => encodeFirstContact(fce), { name: 'RangeError', message }));
  }
});

test('description', () => {
  assert.equal(describeFirstContact(full), 'AIX "a.b", release 2, features 0xabcd, vendor 49535431');
  assert.equal(
    describeFirstContact({ os: 9, release: 0, hostName: '\x1b[2J', v21: null }),
    'OS 9 "\\x1b[2J", release 0',
  );
});
