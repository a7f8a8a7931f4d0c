/** The kernel is the client: its Proposal, and what it makes of our answers. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Eid, Token } from '../../src/ism/index.ts';
import { type AcceptConfirmV2, encodeClc, OS_LINUX, SMC_CLC_DECL } from '../../src/smc/index.ts';
import { LinkGroup } from '../../src/smc/link-group.ts';
import { hosts } from '../handshake/ends.ts';
import {
  ANSWER,
  accept,
  answer,
  assertOutcome,
  assertSmcd,
  assertTcp,
  type Cut,
  confirm,
  decline,
  flipped,
  hex8,
  inVersionOne,
  inWords,
  isAccept,
  patched,
  pieces,
  proposal,
  UEID,
  UNKNOWN_TOKEN,
  widened,
} from './clc.ts';
import { KERNEL_PORT, Kernel, noKernel } from './kernel.ts';
import type { TcpConnection } from './tcp.ts';
import { type Differs, expectedOfUs, nameForUs, Us } from './us.ts';

/** Version 2, first contact, SMC-R. */
const FLAGS_R = '28';

interface Row {
  readonly name: string;
  /** What we say instead of a good Accept. */
  readonly bytes: (good: AcceptConfirmV2) => Buffer;
  readonly cut?: Cut;
  /** Bytes of a program, in the same segment. */
  readonly behind?: Buffer;
  /**
   * What the kernel says: Confirm, then it is SMC-D; a Decline, then it is TCP. With FIN and RST the error of connect().
   * 'TCP' with the diagnosis of our Decline.
   */
  readonly outcome: string;
  /** Of our own handshake, where it is not the same on purpose. */
  readonly ours?: Differs;
}

const good = (accepted: AcceptConfirmV2) => encodeClc(accepted);
const patch = (at: number, hex: string) => (accepted: AcceptConfirmV2) => patched(good(accepted), at, hex);
const changed = (changes: Partial<AcceptConfirmV2>) => (accepted: AcceptConfirmV2) =>
  encodeClc({ ...accepted, ...changes });
const otherGid = (at: number) => (accepted: AcceptConfirmV2) => changed({ gid: flipped(accepted.gid, at) })(accepted);
const firstContact = (changes: object) =>
  changed({ fce: { os: OS_LINUX, release: 1, hostName: '', v21: { featureMask: 1 }, ...changes } });
const declineV1 = decline(SMC_CLC_DECL.NOSMCDEV, { version: 1, os: 0 });

const UNREACHABLE: Differs = { outcome: 'Decline 03030007', why: 'our device does not reach it' };
const DMB: Differs = { outcome: 'EPROTO', why: 'it is not in the DMB' };

const ROWS: readonly Row[] = [
  { name: 'a good one', bytes: good, outcome: 'Confirm 130' },
  { name: 'in segments of one byte', bytes: good, cut: 'bytes', outcome: 'Confirm 130' },
  { name: 'in two segments', bytes: good, cut: 'after 4 bytes', outcome: 'Confirm 130' },
  { name: 'with data behind it', bytes: good, behind: Buffer.alloc(64), outcome: 'Confirm 130' },
  { name: 'no first contact', bytes: changed({ firstContact: false, fce: null }), outcome: 'Confirm 78' },
  { name: 'release 0', bytes: firstContact({ release: 0, v21: null }), outcome: 'Confirm 114' },
  { name: 'release 2', bytes: firstContact({ release: 2 }), outcome: 'Confirm 130' },
  { name: 'another GID', bytes: otherGid(0), outcome: 'Confirm 130', ours: UNREACHABLE },
  { name: 'another second half of the GID', bytes: otherGid(15), outcome: 'Confirm 130', ours: UNREACHABLE },
  {
    name: 'an EID that was not offered',
    bytes: changed({ eid: 'NO.SUCH' as Eid }),
    outcome: 'Confirm 130',
    ours: { outcome: 'EPROTO', why: 'it has to be what was offered' },
  },
  { name: 'element 9 of the DMB', bytes: changed({ dmbeIndex: 9 }), outcome: 'Confirm 130', ours: DMB },
  { name: 'a DMB of 512 MiB', bytes: changed({ dmbeSize: 15 }), outcome: 'Confirm 130', ours: DMB },
  { name: 'trailer SMCR', bytes: patch(ANSWER.trailer, 'e2d4c3d9'), outcome: 'Confirm 130' },
  {
    name: '8 bytes more',
    bytes: (accepted) => widened(good(accepted), ANSWER.trailer, Buffer.alloc(8)),
    outcome: 'Confirm 130',
  },
  {
    name: 'a token that the device does not know',
    bytes: changed({ token: UNKNOWN_TOKEN }),
    outcome: 'Decline 01010000',
  },
  { name: 'version 1', bytes: (accepted) => encodeClc(inVersionOne(accepted)), outcome: 'Decline 03040000' },
  { name: 'SMC-R', bytes: patch(ANSWER.flags, FLAGS_R), outcome: 'Decline 03040000' },
  { name: 'a CHID that was not offered', bytes: patch(ANSWER.chid, '07c1'), outcome: 'FIN EPROTO' },
  { name: 'trailer garbage', bytes: patch(ANSWER.trailer, '61626364'), outcome: 'FIN EPROTO' },
  { name: 'a Confirm', bytes: patch(ANSWER.type, '03'), outcome: 'RST EPROTO' },
  { name: 'something else', bytes: () => Buffer.from('Z'.repeat(64)), outcome: 'RST EPROTO' },
  { name: 'a Decline', bytes: () => encodeClc(decline(SMC_CLC_DECL.NOSMCD2DEV)), outcome: 'TCP 03030007' },
  { name: 'a Decline of version 1', bytes: () => encodeClc(declineV1), outcome: 'TCP 03030000' },
];

/** The kernel waits 6 s for more. */
const LATE_ROW: Row = { name: 'nothing', bytes: () => Buffer.alloc(0), outcome: 'FIN ETIMEDOUT' };

/** Makes a program in the kernel connect; reads its Proposal. */
async function proposed(kernel: Kernel, port: number): Promise<TcpConnection> {
  const listener = kernel.tcp.listen(port);
  kernel.connectTo(port);
  const connection = await listener.accept();
  assert.ok(connection.peerHasSmc);
  assert.deepEqual(await answer(connection), proposal(kernel.gid));
  return connection;
}

describe('answers to the Proposal of the kernel', { skip: noKernel }, () => {
  let kernel: Kernel;
  /** Of a DMB of another connection. */
  let token: Token;
  let port = 6000;

  before(async () => {
    kernel = await Kernel.boot();
    const connection = await kernel.tcp.connect(KERNEL_PORT);
    connection.send(encodeClc(proposal(kernel.gid)));
    const accepted = await answer(connection);
    assert.ok(isAccept(accepted));
    connection.send(encodeClc(confirm(accepted)));
    await assertSmcd(kernel, connection);
    token = accepted.token;
  });
  after(() => kernel.close());

  for (const { name, bytes, cut = 'whole', behind = Buffer.alloc(0), outcome } of [...ROWS, LATE_ROW]) {
    test(name, async () => {
      const ourPort = port++;
      const connection = await proposed(kernel, ourPort);
      for (const piece of pieces(Buffer.concat([bytes(accept(kernel.gid, token)), behind]), cut))
        connection.send(piece);
      await assertOutcome(kernel, connection, outcome);
    });
  }

  test('no first contact, where the kernel has no link group', async () => {
    const fresh = await Kernel.boot();
    try {
      const connection = await proposed(fresh, port);
      connection.send(encodeClc(accept(fresh.gid, UNKNOWN_TOKEN, { firstContact: false, fce: null })));
      assert.equal(inWords(await answer(connection)), 'Decline 04000000 out of sync');
      await assertTcp(fresh, connection, { reason: hex8(SMC_CLC_DECL.SYNCERR) });
    } finally {
      await fresh.close();
    }
  });
});

describe('the same answers to our Proposal', () => {
  for (const row of ROWS) {
    test(nameForUs(row), async () => {
      const { client, server } = hosts({ ueids: [UEID] });
      const { groups, dmbBytes } = client.context;
      groups.add(new LinkGroup(groups.nextId(), client.device, server.device.gid, UEID, '', 'kernel'));
      const { token } = await server.device.registerDmb({
        peer: client.device.gid,
        lengthBytes: dmbBytes,
        client: server.context.client,
      });
      const us = new Us('client', client);
      assert.equal((await us.next())?.type, 'proposal');
      const good = accept(server.device.gid, token);
      us.say(Buffer.concat([row.bytes(good), row.behind ?? Buffer.alloc(0)]), row.cut);
      assert.equal(await us.outcome(), expectedOfUs(row));
    });
  }
});

describe('without the SMC option', { skip: noKernel }, () => {
  let kernel: Kernel;
  before(async () => {
    kernel = await Kernel.boot();
  });
  after(() => kernel.close());

  test('in our SYN, the kernel has none in its SYN-ACK', async () => {
    const connection = await kernel.tcp.connect(KERNEL_PORT, { smc: false });
    assert.equal(connection.peerHasSmc, false);
    await assertTcp(kernel, connection, { reason: hex8(SMC_CLC_DECL.PEERNOSMC) });
  });

  test('in our SYN-ACK, the kernel sends no Proposal', async () => {
    const listener = kernel.tcp.listen(6000, { smc: false });
    kernel.connectTo(6000);
    const connection = await listener.accept();
    assert.ok(connection.peerHasSmc);
    await assertTcp(kernel, connection, { reason: hex8(SMC_CLC_DECL.PEERNOSMC) });
  });
});
