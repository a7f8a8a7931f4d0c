import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { CHID_LOOPBACK, type Eid, gidFromBytes, parseChid, parseGid } from '../../ism/index.ts';
import {
  altered,
  bytesOf,
  checkAny,
  checkMutation,
  checkTruncation,
  fieldOf,
  mutated,
  proposal,
  throwsWire,
  vector,
  vectors,
  withLength,
} from './clc.test.helper.ts';
import {
  decodeProposal,
  describeProposal,
  encodeProposal,
  MAX_PROPOSAL_BYTES,
  type Proposal,
  type ProposalV1,
  proposedDevices,
} from './proposal.ts';
import type { ProposalV2 } from './proposal-v2.ts';

const LOOPBACK = vector('40-v21-loopback-first-contact message 1');
const BOTH_VERSIONS = vector('11-v1-and-v2-proposal-ipv6 message 1');

const gid = parseGid('01234567-89ab-4def-8899-aabbccddeeff');
const device = { gid, chid: CHID_LOOPBACK };
const isthmus: Proposal = {
  type: 'proposal',
  version: 2,
  v1: null,
  v2: {
    offer: 'D',
    release: 1,
    featureMask: 1,
    userEids: ['ISTHMUS.TEST' as Eid],
    smcd: { seid: null, devices: [device] },
  },
};
const isthmusBytes = bytesOf(`e2d4c3d9 01 00e0 26 00*43 1c 00*28 01 02 00 10 00*3 40 00*19 01 00*12
  495354484d55532e54455354 20*20 00*48 0123456789ab4def ffff 8899aabbccddeeff ffff e2d4c3d9`);
const v1: ProposalV1 = { offer: 'D', subnet: Buffer.from([10, 0, 0, 0]), prefixLength: 24, ipv6Prefixes: [] };
const ipv6Prefix = { prefix: Buffer.alloc(16, 0xfd), length: 64 };

function v2(changes: Partial<ProposalV2>): Proposal {
  assert.ok(isthmus.v2);
  return { ...isthmus, v2: { ...isthmus.v2, ...changes } };
}

const withoutSmcdPart: Proposal = {
  type: 'proposal',
  version: 1,
  v1: { ...v1, offer: 'R', withoutSmcdPart: true },
  v2: null,
};
const largest: Proposal = {
  ...v2({
    offer: 'both',
    userEids: Array.from({ length: 8 }, (_, i) => `EID${i}` as Eid),
    smcd: { seid: 'SEID' as Eid, devices: [device, device, device, device] },
  }),
  v1: { ...v1, ipv6Prefixes: Array.from({ length: 8 }, () => ipv6Prefix) },
};

describe('golden vectors', () => {
  test('what Isthmus sends', () => {
    assert.equal(encodeProposal(isthmus).toString('hex'), isthmusBytes.toString('hex'));
    assert.deepEqual(decodeProposal(isthmusBytes), isthmus);
    assert.equal(
      describeProposal(isthmus),
      `Proposal, v2 SMC-D, release 1, features 0x0001, EID ISTHMUS.TEST, device ${gid} CHID ffff`,
    );
  });

  test('Linux with v1 and v2 over IPv6', () => {
    const message: Proposal = {
      type: 'proposal',
      version: 2,
      v1: {
        offer: 'D',
        subnet: Buffer.alloc(4),
        prefixLength: 0,
        ipv6Prefixes: [{ prefix: bytesOf('fd00 00*14'), length: 64 }],
      },
      v2: {
        offer: 'D',
        release: 1,
        featureMask: 1,
        userEids: [],
        smcd: { seid: 'IBM-SYSZ-ISMSEID0000000000008561' as Eid, devices: [] },
      },
      nativeDevice: { gid: parseGid('22220000-0000-0002-0000-000000000000'), chid: parseChid(0) },
    };
    assert.deepEqual(decodeProposal(BOTH_VERSIONS), message);
    assert.deepEqual(encodeProposal(message), BOTH_VERSIONS);
    assert.match(describeProposal(message), /^Proposal, v1 SMC-D, fd00::\/64, native device 22220000-.*SEID IBM-SYSZ/);
  });

  for (const golden of vectors.filter(({ type }) => type === 'proposal')) {
    test(golden.name, () => {
      const message = decodeProposal(golden.bytes);
      assert.equal(message.residue, undefined);
      assert.deepEqual(encodeProposal(message), golden.bytes);
      assert.equal(message.v1?.prefixLength, message.v1 ? Number(`0x${fieldOf(golden, 'prefix_len')}`) : undefined);
      assert.equal(message.v2 === null, fieldOf(golden, 'eid_cnt') === undefined);
      const eids = golden.fields.filter((line) => / \| ueid \d \| /.test(line)).map((line) => line.split(' | ')[2]);
      assert.deepEqual(
        (message.v2?.userEids ?? []).map((eid) => Buffer.from(eid.padEnd(32)).toString('hex')),
        eids,
      );
      const list = message.v2?.smcd?.devices ?? [];
      assert.equal(list[0]?.gid.replaceAll('-', '').slice(0, 16), fieldOf(golden, 'gid 0'));
      const second = list[0]?.gid.replaceAll('-', '').slice(16);
      assert.equal(second, list[0] && (fieldOf(golden, 'gid 1') ?? '0'.repeat(16)));
    });
  }
});

describe('round trip', () => {
  test('any message', () => {
    fc.assert(
      fc.property(proposal, (message) => {
        const bytes = encodeProposal(message);
        assert.deepEqual(decodeProposal(bytes), message);
        assert.ok(bytes.length <= MAX_PROPOSAL_BYTES);
        assert.ok(checkAny(bytes));
      }),
    );
  });

  test('reserved bits are kept, and not in the way of what is meaningful', () => {
    const odd = altered(LOOPBACK, {
      0: 'e2d4c3c4',
      60: 'ff'.repeat(20),
      82: 'ff1eff',
      108: 'ff',
      184: '01',
      220: 'e2d4c3c4',
    });
    const { residue, ...message } = decodeProposal(odd);
    assert.ok(residue);
    assert.deepEqual(message, decodeProposal(altered(LOOPBACK, { 83: '10' })));
    assert.deepEqual(encodeProposal({ ...message, residue }), odd);
    assert.throws(() => encodeProposal({ ...isthmus, v2: null, residue }), /residue of 224 bytes in a message of 84/);
  });

  test('lengths', () => {
    const base: Proposal = { type: 'proposal', version: 2, v1, v2: null };
    const cases: [Proposal, number][] = [
      [withoutSmcdPart, 52],
      [{ ...withoutSmcdPart, v1: { ...v1, offer: 'R', withoutSmcdPart: true, ipv6Prefixes: [ipv6Prefix] } }, 52 + 17],
      [{ ...base, v1: { ...v1, offer: 'R' } }, 92],
      [{ ...base, v1: { ...v1, ipv6Prefixes: [ipv6Prefix, ipv6Prefix] } }, 92 + 2 * 17],
      [{ ...base, v1: null }, 84],
      [{ ...v2({ userEids: [] }), v1 }, 180 + 20],
      [v2({ userEids: [], smcd: { seid: null, devices: [] } }), 172],
      [v2({ userEids: [] }), 192],
      [isthmus, 224],
      [{ ...v2({ offer: 'R', smcd: null }), v1: { ...v1, ipv6Prefixes: [ipv6Prefix] } }, 132 + 17 + 32],
      [largest, MAX_PROPOSAL_BYTES],
    ];
    for (const [message, length] of cases) {
      const bytes = encodeProposal(message);
      assert.equal(bytes.length, length);
      assert.deepEqual(decodeProposal(bytes), message);
    }
  });

  test('vendor options and SMC-R parts are carried', () => {
    const message: Proposal = {
      ...v2({ offer: 'both', roceV2: { gid: Buffer.alloc(16, 7), maxConns: 32, maxLinks: 2 } }),
      v1: { ...v1, offer: 'both' },
      nativeDevice: { gid: parseGid('11223344-5566-7788-0000-000000000000'), chid: parseChid(0x7c1) },
      vendor: { oui: bytesOf('010203'), options: bytesOf('0405060708') },
      roce: { peerId: Buffer.alloc(8, 1), gid: Buffer.alloc(16, 2), mac: Buffer.alloc(6, 3) },
    };
    const bytes = bytesOf(`e2d4c3d9 01 00e8 2f 01*8 02*16 03*6 0028 1122334455667788 07c1 0024 010203 0405060708 00*20
      0a000000 18 0000 00 01 02 00 10 0000 0040 07*16 20 02 0001 00*12 495354484d55532e54455354 20*20 00*48
      0123456789ab4def ffff 8899aabbccddeeff ffff e2d4c3d9`);
    assert.equal(encodeProposal(message).toString('hex'), bytes.toString('hex'));
    assert.deepEqual(decodeProposal(bytes), message);
    assert.match(describeProposal(message), /, v1 SMC-R and SMC-D, 10.0.0.0\/24, native.* vendor 010203 0405060708$/);
  });
});

describe('device list', () => {
  const hardware = { gid: parseGid('00000000-0000-0042-0000-000000000000'), chid: parseChid(0x7c1) };
  const other = (half: string) => bytesOf(`${half.repeat(8)} ff00`);
  const list = (message: Proposal) => message.v2?.smcd?.devices;
  const withEntries = (...entries: Buffer[]) => {
    const bytes = Buffer.concat([LOOPBACK.subarray(0, 200), ...entries, LOOPBACK.subarray(-4)]);
    return withLength(altered(bytes, { 81: `0${entries.length}` }));
  };

  test('hardware and emulated devices', () => {
    const message = v2({ smcd: { seid: null, devices: [hardware, device, hardware] } });
    assert.deepEqual(decodeProposal(encodeProposal(message)), message);
  });

  test('an emulated entry without its second half is skipped, and kept', () => {
    const first = LOOPBACK.subarray(200, 210);
    const second = LOOPBACK.subarray(210, 220);
    const loopback = { gid: gidFromBytes(bytesOf('ca2c43c3ddbc43a9 a92df268f203b0eb')), chid: CHID_LOOPBACK };
    const pair = { gid: gidFromBytes(bytesOf('11*8 22*8')), chid: parseChid(0xff00) };
    for (const [entries, devices] of [
      [[first], []],
      [[first, second, first], [loopback]],
      [[first, other('11'), other('22')], [pair]],
      [[other('11'), first, second], [loopback]],
      [[first, bytesOf('0000000000000042 07c1')], [hardware]],
    ] as const) {
      const bytes = withEntries(...entries);
      const message = decodeProposal(bytes);
      assert.deepEqual(list(message), devices);
      assert.deepEqual(encodeProposal(message), bytes);
    }
  });

  test('candidates: the native device first, if it has a CHID', () => {
    assert.deepEqual(proposedDevices(isthmus), [device]);
    assert.deepEqual(proposedDevices({ ...isthmus, v1, nativeDevice: hardware }), [hardware, device]);
    assert.deepEqual(proposedDevices({ ...isthmus, v1, nativeDevice: { ...hardware, chid: parseChid(0) } }), [device]);
    assert.deepEqual(proposedDevices({ ...isthmus, v2: null }), []);
  });
});

describe('truncation', () => {
  for (const [what, bytes] of Object.entries({ LOOPBACK, BOTH_VERSIONS, largest: encodeProposal(largest) })) {
    test(what, () => checkTruncation(bytes));
  }
});

describe('mutation', () => {
  for (const [what, bytes] of Object.entries({ LOOPBACK, BOTH_VERSIONS })) {
    test(`each byte of ${what}`, () => checkMutation(bytes));
    test(`several bytes of ${what}`, () => {
      fc.assert(
        fc.property(mutated(bytes), (copy) => void checkAny(withLength(copy))),
        { numRuns: 2000 },
      );
    });
  }
});

describe('errors', () => {
  const version1 = withLength(altered(vector('07-v1-first-contact message 1'), { 7: '11' }));
  const cases: [what: string, field: string, bytes: Buffer][] = [
    ['version 1 without an offer', 'typev1', altered(version1, { 7: '12' })],
    ['prefix part too far away', 'iparea_offset', altered(BOTH_VERSIONS, { 38: '0029' })],
    [
      'prefix part behind the message',
      'iparea_offset',
      altered(encodeProposal({ ...isthmus, v2: null }), { 38: '0028' }),
    ],
    ['prefix part in the trailer', 'iparea_offset', altered(encodeProposal({ ...isthmus, v2: null }), { 38: '0021' })],
    ['prefix part in the SMC-D part', 'iparea_offset', altered(BOTH_VERSIONS, { 38: '0020' })],
    ['SMC-D in v1 without its part', 'iparea_offset', altered(version1, { 38: '0000', 47: '00' })],
    ['nine IPv6 prefixes', 'ipv6_prefixes_cnt', altered(BOTH_VERSIONS, { 87: '09' })],
    ['more in the GID than a count of prefixes, without v1', 'ipv6_prefixes_cnt', altered(LOOPBACK, { 47: '09' })],
    ['v2 extension elsewhere', 'v2_ext_offset', altered(LOOPBACK, { 50: '001d' })],
    ['nine EIDs', 'eid_cnt', altered(LOOPBACK, { 80: '09' })],
    ['more EIDs than there are', 'length', altered(LOOPBACK, { 80: '08' })],
    ['nine list entries', 'ism_gid_cnt', altered(LOOPBACK, { 81: '09' })],
    ['less in the list than there is', 'length', altered(LOOPBACK, { 81: '01' })],
    ['more IPv6 prefixes than there are', 'length', altered(version1, { 87: '08' })],
    ['no trailer', 'trailer', altered(LOOPBACK, { 220: '00' })],
  ];
  for (const [what, field, bytes] of cases) test(what, () => throwsWire(bytes, field));

  test('what can not be encoded', () => {
    const wrong: [Proposal, RegExp][] = [
      [{ ...isthmus, version: 1, v1 }, /version 1 offers v1/],
      [{ ...isthmus, version: 1, v2: null }, /version 1 offers v1/],
      [{ ...withoutSmcdPart, version: 2 }, /leave out the SMC-D part/],
      [{ ...withoutSmcdPart, v1: { ...v1, withoutSmcdPart: true } }, /leave out the SMC-D part/],
      [{ ...withoutSmcdPart, nativeDevice: device }, /leave out the SMC-D part/],
      [{ ...withoutSmcdPart, vendor: { oui: Buffer.alloc(3), options: Buffer.alloc(5) } }, /leave out the SMC-D part/],
      [{ ...isthmus, v1: { ...v1, subnet: Buffer.alloc(16) } }, /outgoing_subnet has 4 bytes/],
      [{ ...isthmus, v1: { ...v1, ipv6Prefixes: Array.from({ length: 9 }, () => ipv6Prefix) } }, /ipv6_prefixes_cnt/],
      [v2({ offer: 'R' }), /without an offer/],
      [v2({ release: 16 }), /release has 4 bits/],
      [v2({ release: 1.5 }), /release has 4 bits/],
      [v2({ userEids: ['X'.repeat(33) as Eid] }), /user EID has 32 bytes/],
      [v2({ userEids: Array.from({ length: 9 }, () => 'X' as Eid) }), /eid_cnt: at most 8/],
      [v2({ smcd: { seid: null, devices: [device, device, device, device, device] } }), /ism_gid_cnt: at most 8/],
      [v2({ smcd: { seid: null, devices: [{ gid, chid: parseChid(1) }] } }), /only 64 bits/],
      [v2({ smcd: null, misplacedSmcd: Buffer.alloc(50) }), /extension of 50 bytes/],
      [
        { ...isthmus, nativeDevice: { gid: parseGid('ffffffff-ffff-ffff-0000-000000000000'), chid: parseChid(1) } },
        /ipv6_prefixes_cnt/,
      ],
    ];
    for (const [message, expected] of wrong)
      assert.throws(() => encodeProposal(message), { name: 'RangeError', message: expected });
  });
});

describe('what Linux does with variants of a good Proposal (kernel-answers.md)', () => {
  const wider = Buffer.concat([LOOPBACK.subarray(0, 220), Buffer.alloc(8), LOOPBACK.subarray(-4)]);
  const taken: [string, Record<number, string>][] = [
    ['eyecatcher SMCD', { 0: 'e2d4c3c4' }],
    ['trailer SMCD', { 220: 'e2d4c3c4' }],
    ['version 3', { 7: '36' }],
    ['release 2', { 83: '20' }],
    ['release 15', { 83: 'f0' }],
    ['feature mask 0', { 106: '0000' }],
    ['feature mask ffff', { 106: 'ffff' }],
    ['CHIDs of the two entries differ', { 218: 'fffe' }],
    ['all reserved bytes ff', { 60: 'ff'.repeat(20), 82: 'ff1effff', 108: 'ff'.repeat(12), 184: 'ff'.repeat(16) }],
  ];
  for (const [what, changes] of taken) test(`taken: ${what}`, () => assert.ok(checkAny(altered(LOOPBACK, changes))));

  for (const offset of ['0000', 'ffff']) {
    test(`declined, not refused: smcd_v2_ext_offset ${offset}`, () => {
      const bytes = altered(LOOPBACK, { 86: offset });
      const message = decodeProposal(bytes);
      assert.equal(message.v2?.smcd, null);
      assert.deepEqual(message.v2.misplacedSmcd, LOOPBACK.subarray(152, 220));
      assert.deepEqual(encodeProposal(message), bytes);
    });
  }

  const refused: [string, Record<number, string>][] = [
    ['trailer garbage', { 220: '12345678' }],
    ['ism_gid_cnt 9', { 81: '09' }],
    ['ism_gid_cnt 255', { 81: 'ff' }],
    ['eid_cnt 9', { 80: '09' }],
    ['iparea_offset 40 with typev1 none', { 38: '0028' }],
    ['iparea_offset 41', { 38: '0029' }],
    ['iparea_offset ffff', { 38: 'ffff' }],
    ['v2_ext_offset 0', { 50: '0000' }],
    ['v2_ext_offset ffff', { 50: 'ffff' }],
    ['version 1 with typev1 none', { 7: '16' }],
    ['both types none', { 7: '2a' }],
    ['typev2 R only', { 7: '22' }],
    ['version 0', { 7: '06' }],
    ['length 0', { 5: '0000' }],
    ['length 8', { 5: '0008' }],
    ['length 4 too small', { 5: '00dc' }],
    ['type 2', { 4: '02' }],
    ['type 9', { 4: '09' }],
  ];
  for (const [what, changes] of refused)
    test(`refused: ${what}`, () => assert.ok(!checkAny(altered(LOOPBACK, changes))));
  test('refused: 8 bytes too many before the trailer', () => throwsWire(withLength(wider), 'length'));
});
