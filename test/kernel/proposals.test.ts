/** The kernel is the server: what it answers to Proposals, good ones and others, and what our decoder makes of the same bytes. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { CHID_LOOPBACK, type Eid, type Gid, parseChid } from '../../src/ism/index.ts';
import { ClcWireError, decodeClc, encodeClc, type ProposalSmcdV2, SMC_CLC_DECL } from '../../src/smc/index.ts';
import { hosts } from '../handshake/ends.ts';
import {
  answer,
  assertOutcome,
  type Cut,
  decline,
  flipped,
  inWords,
  isAccept,
  patched,
  pieces,
  proposal,
  UEID,
  widened,
} from './clc.ts';
import { KERNEL_PORT, Kernel, noKernel } from './kernel.ts';
import { type Differs, expectedOfUs, nameForUs, Us } from './us.ts';

/** Where things stand in a Proposal for one emulated device and one UEID. */
const AT = {
  length: 5,
  flags: 7,
  iparea: 38,
  v2Extension: 50,
  vendor: 52,
  eidCount: 80,
  gidCount: 81,
  smcdExtension: 86,
  featureMask: 106,
  reserved: 108,
  reservedSmcd: 184,
  entries: 200,
  secondChid: 218,
  trailer: -4,
};
const ENTRY_BYTES = 10;
/** Version 2; SMC-D in v2 and nothing in v1 would be 0x26. */
const FLAGS = { version0: '06', version1: '16', version3: '36', nothing: '2a', both: '2e', onlyR: '22' };

interface Row {
  readonly name: string;
  /** What we say instead of a good Proposal. */
  readonly bytes: (gid: Gid) => Buffer;
  readonly cut?: Cut;
  /** Bytes of a program, in the same segment. */
  readonly behind?: Buffer;
  /** After an Accept the row ends. 'TCP' with the diagnosis of our Decline. */
  readonly outcome: string;
  /** Of our own handshake, where it is not the same on purpose. */
  readonly ours?: Differs;
}

const good = (gid: Gid) => encodeClc(proposal(gid));
const patch = (at: number, hex: string) => (gid: Gid) => patched(good(gid), at, hex);
const eids =
  (...names: string[]) =>
  (gid: Gid) =>
    encodeClc(proposal(gid, { userEids: names as Eid[] }));
const release = (number: number) => (gid: Gid) => encodeClc(proposal(gid, { release: number }));
const devices = (smcd: Partial<ProposalSmcdV2>) => (gid: Gid) =>
  encodeClc(proposal(gid, { smcd: { seid: null, devices: [], ...smcd } }));
const chid = (number: number) => (gid: Gid) => devices({ devices: [{ gid, chid: parseChid(number) }] })(gid);
/** The first ones of the two entries that make up the device. */
const entries = (count: number) => (gid: Gid) =>
  devices({ entries: good(gid).subarray(AT.entries, AT.entries + count * ENTRY_BYTES) })(gid);
const otherGid = (at: number) => (gid: Gid) =>
  devices({ devices: [{ gid: flipped(gid, at), chid: CHID_LOOPBACK }] })(gid);

const ROWS: readonly Row[] = [
  { name: 'a good one', bytes: good, outcome: 'Accept 130' },
  { name: 'in segments of one byte', bytes: good, cut: 'bytes', outcome: 'Accept 130' },
  { name: 'in two segments', bytes: good, cut: 'after 4 bytes', outcome: 'Accept 130' },
  { name: 'with data behind it', bytes: good, behind: Buffer.alloc(64), outcome: 'Accept 130' },
  { name: 'eyecatcher SMCD', bytes: patch(0, 'e2d4c3c4'), outcome: 'Accept 130' },
  { name: 'trailer SMCD', bytes: patch(AT.trailer, 'e2d4c3c4'), outcome: 'Accept 130' },
  { name: 'trailer garbage', bytes: patch(AT.trailer, '61626364'), outcome: 'FIN' },
  { name: '8 bytes too many', bytes: (gid) => widened(good(gid), AT.trailer, Buffer.alloc(8)), outcome: 'FIN' },
  { name: 'length 4 too small', bytes: patch(AT.length, '00dc'), outcome: 'RST' },
  { name: 'length 8', bytes: patch(AT.length, '0008'), outcome: 'RST' },
  { name: 'length 0', bytes: patch(AT.length, '0000'), outcome: 'RST' },
  { name: 'version 0', bytes: patch(AT.flags, FLAGS.version0), outcome: 'RST' },
  { name: 'version 1 with nothing offered in v1', bytes: patch(AT.flags, FLAGS.version1), outcome: 'FIN' },
  { name: 'version 3', bytes: patch(AT.flags, FLAGS.version3), outcome: 'Accept 130' },
  { name: 'nothing offered', bytes: patch(AT.flags, FLAGS.nothing), outcome: 'FIN' },
  {
    name: 'SMC-R and SMC-D offered, for 0 connections',
    bytes: patch(AT.flags, FLAGS.both),
    outcome: 'Decline 0303000a',
    ours: { outcome: 'Accept 130', why: 'SMC-R is not looked at' },
  },
  { name: 'only SMC-R offered, with an SMC-D extension', bytes: patch(AT.flags, FLAGS.onlyR), outcome: 'FIN' },
  { name: 'release 0', bytes: release(0), outcome: 'Accept 114' },
  { name: 'release 2', bytes: release(2), outcome: 'Accept 130' },
  { name: 'release 15', bytes: release(15), outcome: 'Accept 130' },
  { name: 'feature mask 0', bytes: patch(AT.featureMask, '0000'), outcome: 'Accept 130' },
  { name: 'feature mask ffff', bytes: patch(AT.featureMask, 'ffff'), outcome: 'Accept 130' },
  { name: 'GID off by a bit', bytes: otherGid(7), outcome: 'Decline 03030007' },
  { name: 'second half of the GID off by a bit', bytes: otherGid(15), outcome: 'Decline 03030007' },
  { name: 'CHID fffe', bytes: chid(0xfffe), outcome: 'Decline 03030007' },
  {
    name: 'CHID 07c1 in both entries',
    bytes: (gid) => patched(patched(good(gid), AT.secondChid - ENTRY_BYTES, '07c1'), AT.secondChid, '07c1'),
    outcome: 'Decline 03030007',
  },
  { name: 'CHIDs of the two entries differ', bytes: patch(AT.secondChid, 'fffe'), outcome: 'Decline 03030007' },
  { name: 'one entry', bytes: entries(1), outcome: 'Decline 03030007' },
  { name: 'no entry', bytes: entries(0), outcome: 'Decline 03030007' },
  { name: 'count of entries 9, two there', bytes: patch(AT.gidCount, '09'), outcome: 'FIN' },
  { name: 'count of entries 255, two there', bytes: patch(AT.gidCount, 'ff'), outcome: 'FIN' },
  { name: 'count of EIDs 9, one there', bytes: patch(AT.eidCount, '09'), outcome: 'FIN' },
  { name: 'no EID', bytes: eids(), outcome: 'Decline 03030008' },
  { name: 'unknown EID', bytes: eids('NO.SUCH'), outcome: 'Decline 03030001' },
  { name: 'EID in lower case', bytes: eids(UEID.toLowerCase()), outcome: 'Decline 03030001' },
  { name: 'known EID second', bytes: eids('NO.SUCH', UEID), outcome: 'Accept 130' },
  { name: 'known EID last of eight', bytes: eids(...'ABCDEFG', UEID), outcome: 'Accept 130' },
  { name: 'iparea_offset 40 with nothing offered in v1', bytes: patch(AT.iparea, '0028'), outcome: 'FIN' },
  { name: 'iparea_offset 41', bytes: patch(AT.iparea, '0029'), outcome: 'FIN' },
  { name: 'iparea_offset ffff', bytes: patch(AT.iparea, 'ffff'), outcome: 'FIN' },
  { name: 'v2_ext_offset 0', bytes: patch(AT.v2Extension, '0000'), outcome: 'FIN' },
  { name: 'v2_ext_offset ffff', bytes: patch(AT.v2Extension, 'ffff'), outcome: 'FIN' },
  { name: 'smcd_v2_ext_offset 0', bytes: patch(AT.smcdExtension, '0000'), outcome: 'Decline 03030005' },
  { name: 'smcd_v2_ext_offset ffff', bytes: patch(AT.smcdExtension, 'ffff'), outcome: 'Decline 03030005' },
  { name: 'reserved and vendor bytes ff', bytes: patch(AT.vendor, 'ff'.repeat(28)), outcome: 'Accept 130' },
  { name: 'reserved bytes of v2 ff', bytes: patch(AT.reserved, 'ff'.repeat(12)), outcome: 'Accept 130' },
  { name: 'reserved bytes of SMC-D v2 ff', bytes: patch(AT.reservedSmcd, 'ff'.repeat(16)), outcome: 'Accept 130' },
  { name: 'an Accept', bytes: patch(4, '02'), outcome: 'RST' },
  { name: 'type 9', bytes: patch(4, '09'), outcome: 'RST' },
  { name: 'a Decline', bytes: () => encodeClc(decline(SMC_CLC_DECL.NOSMCDEV)), outcome: 'TCP 03030000' },
  { name: '64 bytes of something else', bytes: () => Buffer.from('G'.repeat(64)), outcome: 'RST' },
];

/** The kernel waits 6 s for more, in all of them at the same time. */
const LATE_ROWS: readonly Row[] = [
  { name: 'nothing', bytes: () => Buffer.alloc(0), outcome: 'FIN' },
  { name: '4 bytes of something else', bytes: () => Buffer.from('GGGG'), outcome: 'RST' },
  { name: 'half of one', bytes: (gid) => good(gid).subarray(0, 100), outcome: 'FIN' },
];

let kernel: Kernel;

async function play({ bytes, cut = 'whole', behind = Buffer.alloc(0), outcome }: Row): Promise<void> {
  const said = bytes(kernel.gid);
  const propose = async () => {
    const connection = await kernel.tcp.connect(KERNEL_PORT);
    assert.ok(connection.peerHasSmc);
    for (const piece of pieces(Buffer.concat([said, behind]), cut)) connection.send(piece);
    return connection;
  };
  let connection = await propose();
  if (outcome.startsWith('Accept')) {
    let heard = await answer(connection);
    // It ends the link group of the row before in its own time: until then this is another connection of that.
    for (let tries = 0; tries < 50 && isAccept(heard) && !heard.firstContact; tries++) {
      connection.reset();
      await pause(20);
      connection = await propose();
      heard = await answer(connection);
    }
    assert.equal(inWords(heard), outcome);
  } else {
    await assertOutcome(kernel, connection, outcome);
  }
  connection.reset();
  if (outcome === 'FIN' || outcome === 'RST') assert.throws(() => decodeClc(said), ClcWireError);
  else assert.deepEqual(encodeClc(decodeClc(said)), said);
}

describe('Proposals to the kernel: our decoder refuses those for which it ends the connection, and no others', {
  skip: noKernel,
}, () => {
  before(async () => {
    kernel = await Kernel.boot();
  });
  after(() => kernel.close());
  for (const row of ROWS) test(row.name, () => play(row));
  describe('that are late', { concurrency: true }, () => {
    for (const row of LATE_ROWS) test(row.name, () => play(row));
  });
});

describe('the same Proposals to us', () => {
  for (const row of ROWS) {
    test(nameForUs(row), async () => {
      const { client, server } = hosts({}, { ueids: [UEID] });
      const us = new Us('server', server);
      us.say(Buffer.concat([row.bytes(client.device.gid), row.behind ?? Buffer.alloc(0)]), row.cut);
      const outcome = await us.outcome();
      us.end();
      assert.equal(outcome, expectedOfUs(row));
    });
  }
});
