import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { altered, vector, vectors } from './clc.test.helper.ts';
import { listClc } from './listing.ts';
import { encodeProposal } from './proposal.ts';

const PROPOSAL = vector('40-v21-loopback-first-contact message 1');
const ACCEPT = vector('40-v21-loopback-first-contact message 2');

function lines(bytes: Buffer): string[] {
  return listClc(bytes).map(({ offset, length, field, hex, meaning }) => {
    return `${offset}+${length} | ${field} | ${hex} | ${meaning}`.trimEnd();
  });
}

describe('golden vectors: the fields as decoded by hand', () => {
  for (const { name, bytes, fields } of vectors) {
    test(name, () => {
      // The tables of the vectors leave out what is zero and means nothing.
      assert.deepEqual(
        lines(bytes).filter((line) => !/ \| 0+ \|$/.test(line)),
        fields,
      );
    });
  }
});

test('version 1, with and without the SMC-D part', () => {
  const part = { offer: 'R' as const, subnet: Buffer.from([10, 0, 0, 0]), prefixLength: 8, ipv6Prefixes: [] };
  const message = { type: 'proposal' as const, version: 1 as const, v1: part, v2: null };
  const fieldAt40 = (bytes: Buffer) => lines(bytes).find((line) => line.startsWith('40+'));
  assert.equal(fieldAt40(encodeProposal(message)), `40+8 | ism gid (v1 / native) | ${'0'.repeat(16)} |`);
  const short = encodeProposal({ ...message, v1: { ...part, withoutSmcdPart: true } });
  assert.equal(fieldAt40(short), '40+4 | outgoing_subnet | 0a000000 | 10.0.0.0');
  assert.equal(lines(short).at(-1), '48+4 | trailer | e2d4c3d9 | SMCR');
});

describe('bad messages are listed as far as they go', () => {
  test('cut', () => {
    assert.deepEqual(lines(PROPOSAL.subarray(0, 84)).slice(-3), [
      '81+1 | ism_gid_cnt | 02 | 2',
      '82+1 | reserved | 00 |',
      '83+1 | release:4 rsvd:3 seid:1 | 10 | release 1, SEID not used',
    ]);
    assert.equal(lines(PROPOSAL.subarray(0, 87)).at(-1), '86+1 | smcd_v2_ext_offset | 00 | cut short: 1 of 2 bytes');
    assert.deepEqual(lines(PROPOSAL.subarray(0, 4)), ['0+4 | eyecatcher | e2d4c3d9 | SMCR (EBCDIC)']);
    assert.deepEqual(lines(Buffer.alloc(0)), []);
  });

  test('counts that promise too much', () => {
    const listed = lines(altered(PROPOSAL, { 80: 'ff' }));
    assert.equal(listed.at(-2), '216+4 | ueid 3 | b0ebffff | cut short: 4 of 32 bytes');
    assert.equal(listed.at(-1), '220+4 | trailer | e2d4c3d9 | SMCR');
  });

  test('more than the fields, and more than the message', () => {
    const listed = lines(Buffer.concat([altered(ACCEPT, { 7: '21', 126: '00000000' }), Buffer.from([0x48, 0x69])]));
    assert.match(listed.at(-3) ?? '', /^74\+52 \| trailing \| 0021.* \|$/);
    assert.equal(listed.at(-2), '126+4 | trailer | 00000000 | no eyecatcher');
    assert.equal(listed.at(-1), '130+2 | behind the message | 4869 |');
  });

  test('something else', () => {
    assert.deepEqual(lines(Buffer.from('GET / HTTP/1.1\r\n')).slice(0, 2), [
      '0+4 | eyecatcher | 47455420 | no eyecatcher',
      '4+1 | type | 2f | unknown',
    ]);
  });

  test('SMC-R', () => {
    assert.match(lines(altered(ACCEPT, { 7: '20' })).at(-2) ?? '', /^8\+118 \| SMC-R \|/);
  });
});
