/** Our handshake in the TCP stream against the kernel's: client and server. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import { type Device, type Eid, IsmError, type IsmErrorCode } from '../../src/ism/index.ts';
import type { HandshakeContext } from '../../src/smc/handshake.ts';
import { LinkGroup, LinkGroups } from '../../src/smc/link-group.ts';
import { REASONS, type ReasonName } from '../../src/smc/reasons.ts';
import { variant } from '../handshake/ends.ts';
import { assertSmcd, assertTcp, flipped, hex8, inWords, UEID, UNKNOWN_TOKEN } from './clc.ts';
import type { KernelDevice } from './device.ts';
import { Host, type Meeting } from './host.ts';
import { Kernel, type KernelOptions, noKernel } from './kernel.ts';

const UEIDS = ['ISTHMUS.A', 'ISTHMUS.B', 'ISTHMUS.C', 'ISTHMUS.D'] as Eid[];

/** Boots a kernel for a test. */
function testWithHost(
  name: string,
  play: (host: Host, kernel: Kernel) => Promise<void>,
  options: KernelOptions = {},
): void {
  test(name, async () => {
    const kernel = await Kernel.boot(options);
    try {
      await play(new Host(kernel), kernel);
    } finally {
      await kernel.close();
    }
  });
}

/** @param messages of both ends: 'Accept 130' ... */
function assertSaid(meeting: Meeting, messages: readonly string[]): void {
  assert.deepEqual(meeting.messages.map(inWords), messages);
}

/** We end the connection. */
function assertFault({ outcome }: Meeting): void {
  assert.ok('error' in outcome && outcome.error === 'EPROTO', inspect(outcome));
}

/** SMC-D at both ends, with the kernel's layout. */
async function assertMoved({ kernel }: Host, { connection, outcome }: Meeting): Promise<LinkGroup> {
  assert.ok('parts' in outcome, inspect(outcome));
  assert.equal(outcome.parts.layout, 'kernel');
  await assertSmcd(kernel, connection);
  return outcome.group;
}

/** TCP at both ends, and it works. @param by who declined */
async function assertStays({ kernel }: Host, meeting: Meeting, name: ReasonName, by: 'us' | 'kernel'): Promise<void> {
  const { connection, outcome } = meeting;
  assert.deepEqual(outcome, { reason: REASONS[name], byPeer: by === 'kernel' });
  const code = hex8(REASONS[name].code);
  await assertTcp(kernel, connection, by === 'kernel' ? { reason: code } : { diagnosis: code });
}

const fails = (code: IsmErrorCode) => () => Promise.reject(new IsmError(code, 'system', 'in this test'));

describe('we are the client of the kernel', { skip: noKernel }, () => {
  testWithHost('first contact', async (host) => {
    const meeting = await host.connect();
    assertSaid(meeting, ['Proposal 224', 'Accept 130', 'Confirm 130']);
    const group = await assertMoved(host, meeting);
    assert.equal(group.eid, UEID);
    assert.equal(group.peer, host.kernel.gid);
  });

  testWithHost('the second connection joins the link group', async (host) => {
    const group = await assertMoved(host, await host.connect());
    const meeting = await host.connect();
    assertSaid(meeting, ['Proposal 224', 'Accept 78', 'Confirm 78']);
    assert.equal(await assertMoved(host, meeting), group);
  });

  for (const cut of ['bytes', 'after 4 bytes'] as const) {
    testWithHost(`our messages in pieces: ${cut}`, async (host) => {
      await assertMoved(host, await host.connect({}, { cut }));
    });
  }

  testWithHost('the messages of the kernel byte by byte', async (host) => {
    await assertMoved(host, await host.connect({}, { slow: true }));
    await assertStays(host, await host.connect({ ueids: [] }, { slow: true }), 'NOUEID', 'kernel');
  });

  testWithHost(
    'four UEIDs: the first of ours that the kernel has',
    async (host) => {
      const meeting = await host.connect({ ueids: UEIDS });
      assertSaid(meeting, ['Proposal 320', 'Accept 130', 'Confirm 130']);
      assert.equal((await assertMoved(host, meeting)).eid, UEIDS[2]);
    },
    { ueids: UEIDS.slice(2).reverse() },
  );

  const unknown = (host: Host) => variant(host.device, { gid: flipped(host.device.gid, 15) });
  const DECLINED_BY_KERNEL: readonly [string, ReasonName, (host: Host) => Partial<HandshakeContext>][] = [
    ['no UEID', 'NOUEID', () => ({ ueids: [] })],
    ['no common UEID', 'NOSMCDDEV', () => ({ ueids: UEIDS })],
    ['a GID that its device does not reach', 'NOSMCD2DEV', (host) => ({ devices: [unknown(host)] })],
  ];
  for (const [name, reason, has] of DECLINED_BY_KERNEL) {
    testWithHost(`the kernel declines: ${name}`, async (host) => {
      await assertStays(host, await host.connect(has(host)), reason, 'kernel');
    });
  }

  const full = (host: Host, code: IsmErrorCode) => ({ devices: [variant(host.device, { registerDmb: fails(code) })] });
  const far = (host: Host) => ({ devices: [variant(host.device, { queryRemoteGid: async () => false })] });
  const DECLINED_BY_US: readonly [string, ReasonName, (host: Host) => Partial<HandshakeContext>, readonly string[]][] =
    [
      ['no device', 'NOSMCDEV', () => ({ devices: [] }), ['Decline 03030000']],
      ['not wanted', 'OPTUNSUPP', () => ({ refusal: REASONS.OPTUNSUPP }), ['Decline 03060000']],
      [
        'no DMB is left',
        'MAX_DMB',
        (host) => full(host, 'ERR_ISTHMUS_NO_DMB'),
        ['Proposal 224', 'Accept 130', 'Decline 030d0000'],
      ],
      [
        'no memory',
        'MEM',
        (host) => full(host, 'ERR_ISTHMUS_NO_MEMORY'),
        ['Proposal 224', 'Accept 130', 'Decline 01010000'],
      ],
      [
        'its DMB cannot be attached',
        'MEM',
        (host) => ({ devices: [variant(host.device, { attachDmb: fails('ERR_ISTHMUS_TOKEN') })] }),
        ['Proposal 224', 'Accept 130', 'Decline 01010000'],
      ],
      ['its device is not reached', 'NOSMCD2DEV', far, ['Proposal 224', 'Accept 130', 'Decline 03030007']],
    ];
  for (const [name, reason, has, messages] of DECLINED_BY_US) {
    testWithHost(`we decline: ${name}`, async (host) => {
      const meeting = await host.connect(has(host));
      assertSaid(meeting, messages);
      await assertStays(host, meeting, reason, 'us');
      // The kernel, too, has dropped the link group that was to be.
      assertSaid(await host.connect(), ['Proposal 224', 'Accept 130', 'Confirm 130']);
    });
  }

  testWithHost('we do not know the link group: both end it, and the next connection makes a new one', async (host) => {
    await assertMoved(host, await host.connect());
    const lost = { groups: new LinkGroups() };
    const meeting = await host.connect(lost);
    assertSaid(meeting, ['Proposal 224', 'Accept 78', 'Decline 04000000 out of sync']);
    assert.deepEqual(meeting.outcome, { reason: REASONS.SYNCERR, byPeer: false }); // Linux forgets this connection
    const next = await host.connect(lost);
    assertSaid(next, ['Proposal 224', 'Accept 130', 'Confirm 130']);
    await assertMoved(host, next);
  });

  testWithHost('the kernel ends the connection after our Confirm when it does not know the token', async (host) => {
    const liar = variant(host.device, {
      registerDmb: async (request) => Object.assign(await host.device.registerDmb(request), { token: UNKNOWN_TOKEN }),
    });
    const { connection, outcome } = await host.connect({ devices: [liar] });
    assert.ok('parts' in outcome);
    await connection.until('ended', () => connection.hasEnded);
  });

  testWithHost('stricter than Linux: a DMB that is not as long as the kernel says', async (host) => {
    const meeting = await host.connect({ devices: [withShortDmbs(host.device)] });
    assertSaid(meeting, ['Proposal 224', 'Accept 130']);
    assertFault(meeting);
  });
});

/** What the kernel names is found to have 32 KiB; it has 64. */
function withShortDmbs(device: KernelDevice): Device {
  return variant(device, {
    attachDmb: async (token) => Object.assign(await device.attachDmb(token), { lengthBytes: 32768 }),
  });
}

describe('we are the server of the kernel', { skip: noKernel }, () => {
  /** Boots a kernel that has named a DMB, which lives on: for our Accept. There is a link group. */
  function testAsServer(name: string, play: (host: Host) => Promise<void>, options: KernelOptions = {}): void {
    testWithHost(
      name,
      async (host) => {
        await assertMoved(host, await host.connect({ ueids: (options.ueids ?? [UEID]) as Eid[] }));
        await play(host);
      },
      options,
    );
  }
  const anew = () => ({ groups: new LinkGroups() });

  testAsServer('first contact', async (host) => {
    const meeting = await host.accept(anew());
    assertSaid(meeting, ['Proposal 224', 'Accept 130', 'Confirm 130']);
    await assertMoved(host, meeting);
  });

  testAsServer('the kernel joins a link group in which it was the server', async (host) => {
    const meeting = await host.accept();
    assertSaid(meeting, ['Proposal 224', 'Accept 78', 'Confirm 78']);
    await assertMoved(host, meeting);
  });

  testAsServer('the kernel joins a link group in which it was the client', async (host) => {
    const { groups } = anew();
    const group = await assertMoved(host, await host.accept({ groups }));
    const meeting = await host.accept({ groups });
    assertSaid(meeting, ['Proposal 224', 'Accept 78', 'Confirm 78']);
    assert.equal(await assertMoved(host, meeting), group);
  });

  for (const cut of ['bytes', 'after 4 bytes'] as const) {
    testAsServer(`our messages in pieces: ${cut}`, async (host) => {
      await assertMoved(host, await host.accept(anew(), { cut }));
      await assertStays(host, await host.accept({ ueids: [] }, { cut }), 'NOSMCDDEV', 'us');
    });
  }

  testAsServer('the messages of the kernel byte by byte', async (host) => {
    await assertMoved(host, await host.accept(anew(), { slow: true }));
  });

  testAsServer(
    'four UEIDs: the first of the kernel that is ours',
    async (host) => {
      const meeting = await host.accept({ ...anew(), ueids: UEIDS.slice(0, 2) });
      assertSaid(meeting, ['Proposal 320', 'Accept 130', 'Confirm 130']);
      assert.ok(UEIDS.slice(0, 2).includes((await assertMoved(host, meeting)).eid));
    },
    { ueids: UEIDS },
  );

  testAsServer('a smaller DMB when there is no memory for a larger one', async (host) => {
    const small = variant(host.device, {
      registerDmb: (request) =>
        request.lengthBytes > 16384 ? fails('ERR_ISTHMUS_NO_MEMORY')() : host.device.registerDmb(request),
    });
    const meeting = await host.accept({ devices: [small] });
    await assertMoved(host, meeting);
    assert.ok('parts' in meeting.outcome && meeting.outcome.parts.dmb.lengthBytes === 16384);
  });

  const devices = (host: Host, answers: Partial<Device>) => ({ devices: [variant(host.device, answers)] });
  const DECLINED_BY_US: readonly [string, ReasonName, (host: Host) => Partial<HandshakeContext>][] = [
    ['no device', 'NOISM2SUPP', () => ({ devices: [] })],
    ['not wanted', 'OPTUNSUPP', () => ({ refusal: REASONS.OPTUNSUPP })],
    ['no common UEID', 'NOSMCDDEV', () => ({ ueids: UEIDS })],
    ['its device is not reached', 'NOSMCD2DEV', (host) => devices(host, { queryRemoteGid: async () => false })],
    ['no DMB is left', 'MAX_DMB', (host) => devices(host, { registerDmb: fails('ERR_ISTHMUS_NO_DMB') })],
    ['no memory', 'MEM', (host) => devices(host, { registerDmb: fails('ERR_ISTHMUS_NO_MEMORY') })],
    ['its layout is not ours', 'NOSMCDDEV', () => ({ layouts: ['isthmus'] })],
  ];
  for (const [name, reason, has] of DECLINED_BY_US) {
    testAsServer(`we decline: ${name}`, async (host) => {
      const meeting = await host.accept(has(host));
      assertSaid(meeting, ['Proposal 224', `Decline ${hex8(REASONS[reason].code)}`]);
      await assertStays(host, meeting, reason, 'us');
    });
  }

  testWithHost(
    'we decline: the kernel has no UEID to propose',
    async (host) => {
      const meeting = await host.accept();
      assertSaid(meeting, ['Proposal 192', 'Decline 03030008']);
      await assertStays(host, meeting, 'NOUEID', 'us');
    },
    { ueids: [] },
  );

  testAsServer('the kernel declines: it does not know the token', async (host) => {
    host.device.learn(UNKNOWN_TOKEN, 2);
    const meeting = await host.accept(anew());
    assertSaid(meeting, ['Proposal 224', 'Accept 130', 'Decline 01010000']);
    await assertStays(host, meeting, 'MEM', 'kernel');
  });

  testWithHost('the kernel does not know the link group: both end it', async (host) => {
    host.device.learn(UNKNOWN_TOKEN, 2);
    host.context.groups.add(new LinkGroup(0x100, host.device, host.kernel.gid, UEID, '', 'kernel'));
    const meeting = await host.accept();
    assertSaid(meeting, ['Proposal 224', 'Accept 78', 'Decline 04000000 out of sync']);
    await assertStays(host, meeting, 'SYNCERR', 'kernel');
    assert.equal(host.context.groups.find(host.device, host.kernel.gid), undefined);
  });

  testAsServer('we end the connection when the DMB in its Confirm cannot be attached, as Linux does', async (host) => {
    const meeting = await host.accept(devices(host, { attachDmb: fails('ERR_ISTHMUS_TOKEN') }));
    assertSaid(meeting, ['Proposal 224', 'Accept 78', 'Confirm 78']);
    assertFault(meeting);
  });

  testAsServer('stricter than Linux: a DMB that is not as long as the kernel says', async (host) => {
    const meeting = await host.accept({ devices: [withShortDmbs(host.device)] });
    assertSaid(meeting, ['Proposal 224', 'Accept 78', 'Confirm 78']);
    assertFault(meeting);
  });
});
