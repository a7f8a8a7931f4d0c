/** The kernel is the server and has sent an Accept of a first contact: what it makes of what we say next. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Eid, parseChid } from '../../src/ism/index.ts';
import { type AcceptConfirmV2, type Decline, encodeClc, OS_LINUX, SMC_CLC_DECL } from '../../src/smc/index.ts';
import { hosts } from '../handshake/ends.ts';
import {
  ANSWER,
  answer,
  assertOutcome,
  assertSmcd,
  type Cut,
  confirm,
  decline,
  flipped,
  inVersionOne,
  inWords,
  isAccept,
  patched,
  pieces,
  proposal,
  UEID,
  UNKNOWN_TOKEN,
} from './clc.ts';
import { KERNEL_PORT, Kernel, noKernel } from './kernel.ts';
import type { TcpConnection } from './tcp.ts';
import { type Differs, expectedOfUs, nameForUs, Us } from './us.ts';

const SMCR = 'e2d4c3d9';
/** Version 2; SMC-D with first contact would be 0x29. */
const FLAGS = { notFirst: '21', smcR: '28' };

interface Row {
  readonly name: string;
  /** What we say instead of a good Confirm. */
  readonly bytes: (accepted: AcceptConfirmV2) => Buffer;
  readonly cut?: Cut;
  /** Bytes of a program, in the same segment. */
  readonly behind?: Buffer;
  /** The kernel's answer; or what the connection is for it without one: 'SMCD', or 'TCP' with the diagnosis of our Decline. */
  readonly outcome: string;
  /** A FIN follows. */
  readonly ends?: true;
  /** Of our own handshake, where it is not the same on purpose. */
  readonly ours?: Differs;
}

const good = (accepted: AcceptConfirmV2) => encodeClc(confirm(accepted));
const patch = (at: number, hex: string) => (accepted: AcceptConfirmV2) => patched(good(accepted), at, hex);
const tooLong = patch(ANSWER.length, '0083');
const changed = (changes: Partial<AcceptConfirmV2>) => (accepted: AcceptConfirmV2) =>
  encodeClc(confirm(accepted, changes));
const otherGid = (at: number) => (accepted: AcceptConfirmV2) => changed({ gid: flipped(accepted.gid, at) })(accepted);
const firstContact = (changes: object) => (accepted: AcceptConfirmV2) =>
  encodeClc(
    confirm(accepted, { fce: { os: OS_LINUX, release: 1, hostName: '', v21: { featureMask: 1 }, ...changes } }),
  );
const declineV1 = decline(SMC_CLC_DECL.NOSMCDEV, { version: 1, os: 0 });
const say = (message: Decline) => () => encodeClc(message);

const AGREED: Differs = { outcome: 'EPROTO', why: 'it has to be what was agreed' };
const DMB: Differs = { outcome: 'EPROTO', why: 'it is not in the DMB' };

const ROWS: readonly Row[] = [
  { name: 'a good one', bytes: good, outcome: 'SMCD' },
  { name: 'in segments of one byte', bytes: good, cut: 'bytes', outcome: 'SMCD' },
  { name: 'in two segments', bytes: good, cut: 'after 4 bytes', outcome: 'SMCD' },
  { name: 'with data behind it, which nobody gets', bytes: good, behind: Buffer.alloc(64), outcome: 'SMCD' },
  { name: 'eyecatcher SMCR', bytes: patch(ANSWER.eyecatcher, SMCR), outcome: 'SMCD' },
  { name: 'trailer SMCR', bytes: patch(ANSWER.trailer, SMCR), outcome: 'SMCD' },
  { name: 'length 1 too large, data behind it', bytes: tooLong, behind: Buffer.alloc(64), outcome: 'RST' },
  { name: 'trailer garbage', bytes: patch(ANSWER.trailer, '61626364'), outcome: 'FIN' },
  { name: 'no first contact, 130 bytes', bytes: patch(ANSWER.flags, FLAGS.notFirst), outcome: 'SMCD', ours: AGREED },
  {
    name: 'no first contact, 78 bytes',
    bytes: changed({ firstContact: false, fce: null }),
    outcome: 'SMCD',
    ours: AGREED,
  },
  { name: 'version 1', bytes: (accepted) => encodeClc(inVersionOne(confirm(accepted))), outcome: 'SMCD', ours: AGREED },
  { name: 'SMC-R', bytes: patch(ANSWER.flags, FLAGS.smcR), outcome: 'SMCD', ours: AGREED },
  { name: 'another GID', bytes: otherGid(0), outcome: 'SMCD', ours: AGREED },
  { name: 'another second half of the GID', bytes: otherGid(15), outcome: 'SMCD', ours: AGREED },
  { name: 'another CHID', bytes: changed({ chid: parseChid(0xfffe) }), outcome: 'SMCD', ours: AGREED },
  { name: 'another EID', bytes: changed({ eid: 'NO.SUCH' as Eid }), outcome: 'SMCD', ours: AGREED },
  { name: 'a DMB of 512 MiB', bytes: changed({ dmbeSize: 15 }), outcome: 'SMCD', ours: DMB },
  { name: 'element 9 of the DMB', bytes: changed({ dmbeIndex: 9 }), outcome: 'SMCD', ours: DMB },
  { name: 'feature mask 0', bytes: firstContact({ v21: { featureMask: 0 } }), outcome: 'SMCD' },
  { name: 'release 0', bytes: firstContact({ release: 0, v21: null }), outcome: 'Decline 03030009' },
  { name: 'a token that the device does not know', bytes: changed({ token: UNKNOWN_TOKEN }), outcome: 'FIN' },
  { name: 'a Decline', bytes: say(decline(SMC_CLC_DECL.MEM)), outcome: 'TCP 01010000' },
  { name: 'a Decline of version 1', bytes: say(declineV1), outcome: 'TCP 03030000' },
  { name: 'a second Proposal', bytes: ({ gid }) => encodeClc(proposal(gid)), outcome: 'RST' },
  { name: 'something else', bytes: () => Buffer.from('Z'.repeat(64)), outcome: 'RST' },
  {
    name: 'the end',
    bytes: () => Buffer.alloc(0),
    ends: true,
    outcome: 'FIN',
    ours: { outcome: 'ECONNRESET', why: 'it breaks no rule' },
  },
];

/** The kernel waits 6 s for more. */
const LATE_ROWS: readonly Row[] = [
  { name: 'nothing', bytes: () => Buffer.alloc(0), outcome: 'FIN' },
  { name: 'length 1 too large', bytes: tooLong, outcome: 'FIN' },
];

/** Boots a kernel of its own for a test: in one that is fresh the first Accept is a first contact. */
function testWithKernel(name: string, play: (kernel: Kernel) => Promise<void>): void {
  test(name, async () => {
    const kernel = await Kernel.boot();
    try {
      await play(kernel);
    } finally {
      await kernel.close();
    }
  });
}

/** A connection, and the kernel's Accept on it. */
async function connected(kernel: Kernel): Promise<{ connection: TcpConnection; accepted: AcceptConfirmV2 }> {
  const connection = await kernel.tcp.connect(KERNEL_PORT);
  connection.send(encodeClc(proposal(kernel.gid)));
  const accepted = await answer(connection);
  assert.ok(isAccept(accepted));
  return { connection, accepted };
}

function testRow({ name, bytes, cut = 'whole', behind = Buffer.alloc(0), ends, outcome }: Row): void {
  testWithKernel(name, async (kernel) => {
    const { connection, accepted } = await connected(kernel);
    assert.ok(accepted.firstContact);
    for (const piece of pieces(Buffer.concat([bytes(accepted), behind]), cut)) connection.send(piece);
    if (ends) connection.end();
    await assertOutcome(kernel, connection, outcome);
  });
}

describe('after the Accept of the kernel', { skip: noKernel }, () => {
  for (const row of ROWS) testRow(row);
  describe('waiting for more', { concurrency: true }, () => {
    for (const row of LATE_ROWS) testRow(row);
  });

  testWithKernel('a second connection joins the link group', async (kernel) => {
    const first = await connected(kernel);
    first.connection.send(good(first.accepted));
    await assertSmcd(kernel, first.connection);
    const second = await connected(kernel);
    assert.equal(inWords(second.accepted), 'Accept 78');
    assert.equal(second.accepted.linkId, first.accepted.linkId);
    second.connection.send(good(second.accepted));
    await assertSmcd(kernel, second.connection);
  });

  testWithKernel('a second connection waits for the first Confirm, then it joins the link group', async (kernel) => {
    const first = await connected(kernel);
    const second = await kernel.tcp.connect(KERNEL_PORT);
    second.send(encodeClc(proposal(kernel.gid)));
    await second.until('acknowledged', () => second.isAcknowledged);
    assert.equal(second.peek(1).length, 0);
    first.connection.send(good(first.accepted));
    const joined = await answer(second);
    assert.equal(inWords(joined), 'Accept 78');
    assert.ok(isAccept(joined));
    second.send(good(joined));
    await assertSmcd(kernel, second);
  });

  testWithKernel('a Decline out of sync ends the link group; Linux forgets the connection', async (kernel) => {
    const first = await connected(kernel);
    first.connection.send(encodeClc(decline(SMC_CLC_DECL.SYNCERR, { outOfSync: true })));
    await first.connection.until('acknowledged', () => first.connection.isAcknowledged);
    const second = await connected(kernel);
    assert.equal(inWords(second.accepted), 'Accept 130');
    second.connection.send(good(second.accepted));
    await assertSmcd(kernel, second.connection);
    // Mostly silence, now and then a reset: its workers race. Never a clean end, and never a byte.
    assert.equal(first.connection.hasEnded, false);
    assert.equal(first.connection.read(1).length, 0);
    assert.ok(!kernel.console.includes(`accepted ${KERNEL_PORT} ${first.connection.localPort}`));
  });
});

describe('the same after our Accept', () => {
  for (const row of ROWS) {
    test(nameForUs(row), async () => {
      const { client, server } = hosts({}, { ueids: [UEID] });
      const us = new Us('server', server);
      us.say(encodeClc(proposal(client.device.gid)));
      const accepted = await us.next();
      assert.ok(accepted !== null && isAccept(accepted));
      const { token } = await client.device.registerDmb({
        peer: server.device.gid,
        lengthBytes: server.context.dmbBytes,
        client: client.context.client,
      });
      const theirs = { ...accepted, gid: client.device.gid, token };
      us.say(Buffer.concat([row.bytes(theirs), row.behind ?? Buffer.alloc(0)]), row.cut);
      if (row.ends) us.end();
      assert.equal(await us.outcome(), expectedOfUs(row));
    });
  }
});
