import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { eidFromBytes, parseChid } from '../../ism/index.ts';
import { type AcceptConfirm, decodeAcceptConfirm } from './accept-confirm.ts';
import { type ClcCheck, type ClcContext, type ClcReader, checkClc, linuxVerdict } from './checks.ts';
import { altered, mutated, vector, vectors, withLength } from './clc.test.helper.ts';
import { declineReason } from './decline-codes.ts';
import { listClc } from './listing.ts';
import { decodeClc } from './message.ts';
import { decodeProposal } from './proposal.ts';

const NAME = '40-v21-loopback-first-contact message';
const PROPOSAL = vector(`${NAME} 1`);
const ACCEPT = vector(`${NAME} 2`);
const CONFIRM = vector(`${NAME} 3`);
const UEID = PROPOSAL.subarray(120, 152);
const DECLINE = vector('43-v21-loopback-decline-no-ueid message 2');
const V1_DECLINE = vector('20-decline-client-has-no-device message 1');

/** Where the vectors were captured: one loopback device that reaches itself only, one UEID, the DMBs of both ends. */
const [own] = decodeProposal(PROPOSAL).v2?.smcd?.devices ?? [];
const tokens = [ACCEPT, CONFIRM].map(tokenOf);
const LINUX: ClcReader = {
  ueids: [eidFromBytes(UEID)],
  seid: null,
  reaches: ({ gid, chid }) => gid === own?.gid && chid === own.chid,
  hasDmb: (token) => tokens.includes(token),
};

function tokenOf(bytes: Buffer) {
  const message = decodeAcceptConfirm(bytes);
  assert.ok(message.mode === 'D');
  return message.token;
}

function textOf(checks: readonly ClcCheck[]): string {
  const verdict = linuxVerdict(checks);
  if (verdict === null) return 'goes on';
  return verdict.does === 'declines' ? `declines ${declineReason(verdict.code)?.name}` : verdict.does;
}

const cut = (bytes: Buffer, offset: number, length: number) =>
  withLength(Buffer.concat([bytes.subarray(0, offset), bytes.subarray(offset + length)]));
const inserted = (bytes: Buffer, offset: number, more: Buffer) =>
  withLength(Buffer.concat([bytes.subarray(0, offset), more, bytes.subarray(offset)]));
const behind = (bytes: Buffer, more: number) => Buffer.concat([bytes, Buffer.alloc(more, 0x48)]);
const text = (value: string) => Buffer.from(value.padEnd(32), 'latin1').toString('hex');
const ones = (bytes: Buffer, ...ranges: readonly (readonly [offset: number, length: number])[]) =>
  altered(bytes, Object.fromEntries(ranges.map(([offset, length]) => [offset, 'ff'.repeat(length)])));

/** What a running Linux 7.2 answered, row by row. "Closes" is FIN or RST. */
const SERVER: Record<string, readonly [bytes: Buffer, verdict: string]> = {
  good: [PROPOSAL, 'goes on'],
  'good, with data behind it': [behind(PROPOSAL, 64), 'goes on'],
  'eyecatcher SMCD': [altered(PROPOSAL, { 0: 'e2d4c3c4' }), 'goes on'],
  'trailer SMCD': [altered(PROPOSAL, { 220: 'e2d4c3c4' }), 'goes on'],
  'version 3': [altered(PROPOSAL, { 7: '36' }), 'goes on'],
  'release 2': [altered(PROPOSAL, { 83: '20' }), 'goes on'],
  'release 15': [altered(PROPOSAL, { 83: 'f0' }), 'goes on'],
  'release 0': [altered(PROPOSAL, { 83: '00' }), 'goes on'],
  'feature mask 0': [altered(PROPOSAL, { 106: '0000' }), 'goes on'],
  'feature mask ffff': [altered(PROPOSAL, { 106: 'ffff' }), 'goes on'],
  'all reserved bytes ff': [ones(PROPOSAL, [60, 20], [82, 1], [84, 2], [108, 12], [184, 16]), 'goes on'],
  'matching UEID second': [
    altered(inserted(PROPOSAL, 120, Buffer.from(text('SOMETHING.ELSE'), 'hex')), { 80: '02', 86: '0060' }),
    'goes on',
  ],
  'gid off by one bit': [altered(PROPOSAL, { 200: 'cb' }), 'declines NOSMCD2DEV'],
  'gid_ext off by one bit': [altered(PROPOSAL, { 210: 'a8' }), 'declines NOSMCD2DEV'],
  'CHID fffe': [altered(PROPOSAL, { 208: 'fffe', 218: 'fffe' }), 'declines NOSMCD2DEV'],
  'CHID 07c1': [altered(PROPOSAL, { 208: '07c1', 218: '07c1' }), 'declines NOSMCD2DEV'],
  'CHIDs of the entries differ': [altered(PROPOSAL, { 218: 'fffe' }), 'declines NOSMCD2DEV'],
  'one entry only': [altered(cut(PROPOSAL, 210, 10), { 81: '01' }), 'declines NOSMCD2DEV'],
  'no entry': [altered(cut(PROPOSAL, 200, 20), { 81: '00' }), 'declines NOSMCD2DEV'],
  'unknown UEID': [altered(PROPOSAL, { 120: text('ISTHMUS.TEST.B') }), 'declines NOSMCDDEV'],
  'UEID in lower case': [altered(PROPOSAL, { 120: text('isthmus.test.a') }), 'declines NOSMCDDEV'],
  'no UEID, SEID flag 0': [altered(cut(PROPOSAL, 120, 32), { 80: '00', 86: '0020' }), 'declines NOUEID'],
  'smcd_v2_ext_offset 0': [altered(PROPOSAL, { 86: '0000' }), 'declines NOV2DEXT'],
  'smcd_v2_ext_offset ffff': [altered(PROPOSAL, { 86: 'ffff' }), 'declines NOV2DEXT'],
  'both R and D, max_conns 0': [altered(PROPOSAL, { 7: '2e' }), 'declines MAXCONNERR'],
  'a Decline instead': [DECLINE, 'goes on'],
  'trailer garbage': [altered(PROPOSAL, { 220: '01020304' }), 'closes'],
  '8 bytes too many': [inserted(PROPOSAL, 220, Buffer.alloc(8)), 'closes'],
  'ism_gid_cnt 9': [altered(PROPOSAL, { 81: '09' }), 'closes'],
  'ism_gid_cnt 255': [altered(PROPOSAL, { 81: 'ff' }), 'closes'],
  'eid_cnt 9': [altered(PROPOSAL, { 80: '09' }), 'closes'],
  'iparea_offset 40': [altered(PROPOSAL, { 38: '0028' }), 'closes'],
  'iparea_offset 41': [altered(PROPOSAL, { 38: '0029' }), 'closes'],
  'iparea_offset ffff': [altered(PROPOSAL, { 38: 'ffff' }), 'closes'],
  'v2_ext_offset 0': [altered(PROPOSAL, { 50: '0000' }), 'closes'],
  'v2_ext_offset ffff': [altered(PROPOSAL, { 50: 'ffff' }), 'closes'],
  'version 1 with typev1 none': [altered(PROPOSAL, { 7: '16' }), 'closes'],
  'both types none': [altered(PROPOSAL, { 7: '2a' }), 'closes'],
  'typev2 R only': [altered(PROPOSAL, { 7: '22' }), 'closes'],
  'version 0': [altered(PROPOSAL, { 7: '06' }), 'closes'],
  'length 0': [altered(PROPOSAL, { 5: '0000' }), 'closes'],
  'length 8': [altered(PROPOSAL, { 5: '0008' }), 'closes'],
  'length 4 too small': [altered(PROPOSAL, { 5: '00dc' }), 'closes'],
  'type 2': [altered(PROPOSAL, { 4: '02' }), 'closes'],
  'type 9': [altered(PROPOSAL, { 4: '09' }), 'closes'],
  '4 bytes of something else first': [Buffer.concat([Buffer.from('GET '), PROPOSAL]), 'closes'],
  '64 bytes of something else first': [Buffer.concat([Buffer.alloc(64, 0x20), PROPOSAL]), 'closes'],
  'half a proposal': [PROPOSAL.subarray(0, 112), 'waits'],
  nothing: [Buffer.alloc(0), 'waits'],
};

const AFTER_ACCEPT: typeof SERVER = {
  good: [CONFIRM, 'goes on'],
  'good, with data behind it': [behind(CONFIRM, 64), 'goes on'],
  'eyecatcher SMCR': [altered(CONFIRM, { 0: 'e2d4c3d9' }), 'goes on'],
  'trailer SMCR': [altered(CONFIRM, { 126: 'e2d4c3d9' }), 'goes on'],
  'without first contact bit, 130 bytes': [altered(CONFIRM, { 7: '21' }), 'goes on'],
  'without first contact, 78 bytes': [altered(cut(CONFIRM, 74, 52), { 7: '21' }), 'goes on'],
  'version 1': [altered(cut(CONFIRM, 44, 82), { 7: '19' }), 'goes on'],
  'type bits SMC-R': [altered(CONFIRM, { 7: '28' }), 'goes on'],
  'another gid': [altered(CONFIRM, { 8: '0102030405060708' }), 'goes on'],
  'another gid_ext': [altered(CONFIRM, { 66: '0102030405060708' }), 'goes on'],
  'another chid': [altered(CONFIRM, { 32: '07c1' }), 'goes on'],
  'another eid': [altered(CONFIRM, { 34: text('ISTHMUS.TEST.B') }), 'goes on'],
  'dmbe_size 15': [altered(CONFIRM, { 25: 'f0' }), 'goes on'],
  'dmbe_idx 9': [altered(CONFIRM, { 24: '09' }), 'goes on'],
  'feature mask 0': [altered(CONFIRM, { 112: '0000' }), 'goes on'],
  'unknown token': [altered(CONFIRM, { 16: '0102030405060708' }), 'closes'],
  'release 0': [altered(CONFIRM, { 75: '20' }), 'declines RELEASEERR'],
  'trailer garbage': [altered(CONFIRM, { 126: '01020304' }), 'closes'],
  'length 131': [altered(CONFIRM, { 5: '0083' }), 'waits'],
  'Decline v2': [altered(DECLINE, { 16: '01010000' }), 'goes on'],
  'Decline v1': [altered(V1_DECLINE, { 16: '01010000' }), 'goes on'],
  'Decline, out of sync': [altered(DECLINE, { 7: '28', 16: '04000000' }), 'goes on'],
  'a second proposal': [PROPOSAL, 'closes'],
  'other data': [Buffer.from('GET / HTTP/1.1\r\n\r\n'), 'closes'],
};

const CLIENT: typeof SERVER = {
  good: [ACCEPT, 'goes on'],
  'good, with data behind it': [behind(ACCEPT, 64), 'goes on'],
  'without first contact': [altered(cut(ACCEPT, 74, 52), { 7: '21' }), 'goes on'],
  'release 0, 114 bytes': [altered(cut(ACCEPT, 110, 16), { 75: '20' }), 'goes on'],
  'release 2': [altered(ACCEPT, { 75: '22' }), 'goes on'],
  'another gid': [altered(ACCEPT, { 8: '0102030405060708' }), 'goes on'],
  'another gid_ext': [altered(ACCEPT, { 66: '0102030405060708' }), 'goes on'],
  'an eid that was not offered': [altered(ACCEPT, { 34: text('ISTHMUS.TEST.B') }), 'goes on'],
  'dmbe_size 15': [altered(ACCEPT, { 25: 'f0' }), 'goes on'],
  'trailer SMCR': [altered(ACCEPT, { 126: 'e2d4c3d9' }), 'goes on'],
  '8 bytes more': [inserted(ACCEPT, 126, Buffer.alloc(8)), 'goes on'],
  'unknown token': [altered(ACCEPT, { 16: '0102030405060708' }), 'declines MEM'],
  'version 1 though only v2 was offered': [altered(cut(ACCEPT, 44, 82), { 7: '19' }), 'declines MODEUNSUPP'],
  'type SMC-R': [altered(ACCEPT, { 7: '28' }), 'declines MODEUNSUPP'],
  'CHID that was not offered': [altered(ACCEPT, { 32: '07c1' }), 'closes'],
  'trailer garbage': [altered(ACCEPT, { 126: '01020304' }), 'closes'],
  'Confirm instead': [CONFIRM, 'closes'],
  'other data': [Buffer.from('HTTP/1.1 200 OK\r\n\r\n'), 'closes'],
  'Decline v2': [DECLINE, 'goes on'],
  'Decline v1': [V1_DECLINE, 'goes on'],
  nothing: [Buffer.alloc(0), 'waits'],
};

const proposal = decodeProposal(PROPOSAL);
const accept = decodeAcceptConfirm(ACCEPT);
const TABLES: readonly (readonly [string, typeof SERVER, ClcContext])[] = [
  ['Linux is the server, proposals', SERVER, { expected: 'proposal', reader: LINUX }],
  ['Linux is the server, after its Accept', AFTER_ACCEPT, { expected: 'confirm', proposal, accept, reader: LINUX }],
  ['Linux is the client, answers to its proposal', CLIENT, { expected: 'accept', proposal, reader: LINUX }],
];
for (const [title, rows, context] of TABLES) {
  describe(`as a running kernel answered: ${title}`, () => {
    for (const [name, [bytes, verdict]] of Object.entries(rows)) {
      test(name, () => {
        const checks = checkClc(bytes, context);
        assert.equal(textOf(checks), verdict, JSON.stringify(checks.find(({ passed }) => !passed)));
      });
    }
  });
}

describe('messages of Linux pass every check, with the conversation known', () => {
  let context: ClcContext = {};
  for (const { name, type, bytes } of vectors) {
    const before: ClcContext = name.endsWith('message 1') ? { expected: 'proposal' } : context;
    const message = decodeClc(bytes);
    if (message.type === 'proposal') context = { expected: 'accept', proposal: message };
    if (message.type === 'accept') context = { ...context, expected: 'confirm', accept: message };
    test(`${name}, ${type}`, () => {
      const failed = checkClc(bytes, before).filter(({ passed }) => !passed);
      // This host had no EID, and got the answer that is predicted.
      const expected = name.startsWith('43-') && type === 'proposal' ? 'declines NOUEID' : 'goes on';
      assert.equal(failed.length, expected === 'goes on' ? 0 : 1, JSON.stringify(failed));
      assert.equal(textOf(failed), expected);
    });
  }
});

/** Fields that only a careful reader objects to. */
function objections(bytes: Buffer, context: ClcContext = {}): string[] {
  const checks = checkClc(bytes, context);
  assert.equal(linuxVerdict(checks), null, 'Linux goes on');
  return checks.filter(({ passed }) => !passed).map(({ field, by }) => (by === 'Linux' ? `Linux: ${field}` : field));
}

describe('careful readers object where Linux does not look', () => {
  const rows: Record<string, readonly [Buffer, ClcContext, ...string[]]> = {
    'another eyecatcher': [altered(PROPOSAL, { 0: 'e2d4c3c4' }), {}, 'eyecatcher'],
    'another trailer': [altered(ACCEPT, { 126: 'e2d4c3d9' }), {}, 'trailer'],
    'no trailer in a Decline': [altered(DECLINE, { 40: '00000000' }), {}, 'trailer'],
    'version 3': [altered(PROPOSAL, { 7: '36' }), {}, 'version:4 typev2:2 typev1:2'],
    'reserved bytes': [ones(PROPOSAL, [60, 1], [82, 1]), {}, 'reserved', 'reserved'],
    'a reserved bit of a byte': [altered(PROPOSAL, { 83: '12' }), {}, 'release:4 rsvd:3 seid:1'],
    'low bits of dmbe_size': [altered(ACCEPT, { 25: '21' }), {}, 'dmbe_size:4 rsvd:4'],
    'release 2 offered': [altered(PROPOSAL, { 83: '20' }), {}, 'release:4 rsvd:3 seid:1'],
    'unknown features': [altered(PROPOSAL, { 106: '8001' }), {}, 'feature_mask'],
    'an emulated device without the feature': [altered(PROPOSAL, { 106: '0000' }), {}, 'feature_mask'],
    'a UEID in lower case': [altered(PROPOSAL, { 120: text('isthmus') }), {}, 'ueid 0'],
    'a UEID with a NUL': [altered(PROPOSAL, { 121: '00' }), {}, 'ueid 0'],
    'a UEID twice': [altered(inserted(PROPOSAL, 152, UEID), { 80: '02', 86: '0060' }), {}, 'ueid 1'],
    'a SEID that is not offered': [altered(PROPOSAL, { 152: '49' }), {}, 'system_eid'],
    'an extension that is not where its offset says': [altered(PROPOSAL, { 86: '0041' }), {}, 'smcd_v2_ext_offset'],
    'half an emulated device': [altered(cut(PROPOSAL, 210, 10), { 81: '01' }), {}, 'ism_gid_cnt', 'gid 0'],
    'two halves of different CHIDs': [altered(PROPOSAL, { 218: 'fffe' }), {}, 'ism_gid_cnt', 'gid 0', 'gid 1'],
    'a DMB of 512 MiB': [altered(ACCEPT, { 25: 'f0' }), {}, 'dmbe_size:4 rsvd:4'],
    'no GID': [altered(ACCEPT, { 8: '00'.repeat(8), 66: '00'.repeat(8) }), {}, 'gid'],
    'a second half of a hardware GID': [altered(ACCEPT, { 32: '07c1' }), {}, 'gid_ext'],
    'an EID that is none': [altered(ACCEPT, { 34: '00'.repeat(32) }), {}, 'negotiated eid'],
    'a host name with a NUL': [altered(ACCEPT, { 85: '00' }), {}, 'hostname'],
    'a host name that is not ASCII': [altered(ACCEPT, { 78: 'c3a9' }), {}, 'hostname'],
    'first contact without its extension': [cut(ACCEPT, 74, 52), {}, 'length'],
    'half an extension': [cut(ACCEPT, 110, 16), {}, 'length', 'os_type:4 release:4'],
    'bytes behind the extension': [inserted(ACCEPT, 126, Buffer.alloc(8)), {}, 'trailing'],
    'an extension without first contact': [altered(ACCEPT, { 7: '21' }), {}, 'trailing'],
    'an EID that was not offered': [altered(ACCEPT, { 34: text('ISTHMUS') }), { proposal }, 'negotiated eid'],
    'a release that was not offered': [
      ACCEPT,
      { proposal: decodeProposal(altered(PROPOSAL, { 83: '00' })) },
      'os_type:4 release:4',
    ],
    'a device that was not offered': [altered(CONFIRM, { 8: '01' }), { proposal, accept }, 'gid'],
    'another CHID': [altered(CONFIRM, { 32: 'fffe' }), { accept }, 'chid'],
    'another EID': [altered(CONFIRM, { 34: text('ISTHMUS') }), { accept }, 'negotiated eid'],
    'no first contact any more': [
      altered(cut(CONFIRM, 74, 52), { 7: '21' }),
      { accept },
      'version:4 fc:1 rsvd:1 type:2',
    ],
    'more features than agreed': [altered(CONFIRM, { 112: '0003' }), { accept }, 'feature_mask', 'feature_mask'],
    'a code that Linux does not have': [altered(DECLINE, { 16: '12345678' }), {}, 'peer_diagnosis'],
    'a code that is not for the wire': [altered(DECLINE, { 16: '05000000' }), {}, 'peer_diagnosis'],
    'out of sync for another reason': [altered(DECLINE, { 7: '28' }), {}, 'version:4 sync:2 rsvd:2'],
    'SYNCERR without the bit': [altered(DECLINE, { 16: '04000000' }), {}, 'version:4 sync:2 rsvd:2'],
    'host bits in a prefix': [altered(vector('07-v1-first-contact message 1'), { 83: '01' }), {}, 'outgoing_subnet'],
    'a prefix longer than the address': [
      altered(vector('07-v1-first-contact message 1'), { 84: '21' }),
      {},
      'prefix_len',
    ],
  };
  for (const [name, [bytes, context, ...fields]] of Object.entries(rows)) {
    test(name, () => assert.deepEqual(objections(bytes, context).sort(), fields.sort()));
  }
});

test('where decode is stricter than Linux, that is said', () => {
  const shortened = cut(vector('07-v1-first-contact message 1'), 60, 20);
  assert.deepEqual(objections(altered(shortened, { 7: '11', 38: '0014' })), ['length']);
});

test('v2 alone is left out when v1 is offered, too', () => {
  const both = altered(vector('10-v1-and-v2-proposal message 1'), { 94: '0000' });
  const failed = checkClc(both).filter(({ passed, by }) => !passed && by === 'Linux');
  assert.deepEqual(
    failed.map(({ field, linux }) => [field, linux]),
    [['smcd_v2_ext_offset', { does: 'goes on', without: 'SMC-D v2' }]],
  );
});

test('the byte that counts prefixes is looked at even without v1', () => {
  const checks = checkClc(altered(PROPOSAL, { 47: '09' }));
  const { field, offset, got, expected, linux } = checks.at(-1) as ClcCheck;
  assert.deepEqual([field, offset, got, linux], ['ipv6_prefixes_cnt', 47, '9', { does: 'closes' }]);
  assert.match(expected, /although v1 is not offered/);
});

test('a SEID is enough for a host that has the same', () => {
  const first = vector('01-v2-first-contact message 1');
  const { v2 } = decodeProposal(first);
  const host = (seid: ClcReader['seid']): ClcReader => ({
    ueids: [],
    seid,
    reaches: ({ chid }) => chid === parseChid(0),
  });
  assert.equal(textOf(checkClc(first, { reader: host(v2?.smcd?.seid ?? null) })), 'goes on');
  assert.equal(textOf(checkClc(first, { reader: host(null) })), 'declines NOSMCDDEV');
});

test('a check of careful readers is where its field is', () => {
  for (const { bytes } of vectors) {
    const fields = listClc(bytes);
    for (const { by, field, offset } of checkClc(bytes)) {
      if (by === 'Linux') continue;
      assert.ok(
        fields.some((listed) => listed.field === field && listed.offset === offset),
        `${field} at ${offset}`,
      );
    }
  }
});

test('checks follow each other as the bytes are read, and end where Linux ends', () => {
  const names = (bytes: Buffer) => checkClc(bytes).map(({ field, by }) => (by === 'Linux' ? field : '-'));
  const all = names(PROPOSAL);
  const order = ['header', 'version', 'type', 'length', 'eyecatcher', 'iparea_offset', 'ipv6_prefixes_cnt'];
  assert.deepEqual(all.slice(0, order.length), order);
  assert.ok(all.includes('-'));
  assert.equal(names(altered(PROPOSAL, { 81: '09' })).at(-1), 'ism_gid_cnt');
});

test('any bytes are checked, whatever was said before', () => {
  const contexts: fc.Arbitrary<ClcContext> = fc.record(
    {
      expected: fc.constantFrom('proposal' as const, 'accept' as const, 'confirm' as const),
      proposal: fc
        .constantFrom(...vectors.filter(({ type }) => type === 'proposal'))
        .map(({ bytes }) => decodeProposal(bytes)),
      accept: fc
        .constantFrom(...vectors.filter(({ type }) => type === 'accept'))
        .map(({ bytes }): AcceptConfirm => decodeAcceptConfirm(bytes)),
      reader: fc.constant(LINUX),
    },
    { requiredKeys: [] },
  );
  const bytes = fc.oneof(
    fc.constantFrom(...vectors).chain(({ bytes }) => mutated(bytes)),
    fc.constantFrom(...vectors).chain(({ bytes }) => fc.nat(bytes.length).map((length) => bytes.subarray(0, length))),
    fc.uint8Array({ maxLength: 700 }).map((some) => Buffer.concat([Buffer.from('e2d4c3d9', 'hex'), some])),
  );
  fc.assert(
    fc.property(bytes, contexts, (some, context) => {
      for (const { expected, got, offset } of checkClc(some, context)) {
        assert.match(expected + got, /^[ -~]*$/);
        assert.ok(offset >= 0);
      }
    }),
    { numRuns: 2000 },
  );
});
