import assert from 'node:assert/strict';
import { describe, mock, test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { type Eid, IsmError, parseChid, parseToken, randomGid } from '../../src/ism/index.ts';
import {
  type AcceptConfirmV2,
  type ClcMessage,
  type Decline,
  decodeClc,
  encodeClc,
  type Proposal,
  SMC_CLC_DECL,
} from '../../src/smc/clc/index.ts';
import type { HandshakeContext } from '../../src/smc/handshake.ts';
import { CLC_WAIT_MS } from '../../src/smc/in-band.ts';
import type { LayoutName } from '../../src/smc/layout.ts';
import { LinkGroup } from '../../src/smc/link-group.ts';
import { REASONS, type Reason } from '../../src/smc/reasons.ts';
import { type Host, hosts, type Meeting, meet, shakeHands, variant, wires } from './ends.ts';
import {
  arrived,
  assertConnected,
  assertNothingLeft,
  assertPlain,
  DATA,
  PROPERTIES,
  partsOf,
  release,
  SEID,
  UEIDS,
} from './properties.ts';

const kinds = ({ messages }: Meeting) => messages.map(({ type }) => type);
const lengths = ({ messages }: Meeting) => messages.map((message) => encodeClc(message).length);

describe('a handshake that succeeds', () => {
  test('first contact: Proposal, Accept, Confirm of v2.1', async () => {
    const { client, server } = hosts();
    const meeting = await meet(client.context, server.context);
    assertConnected(meeting);
    assert.deepEqual(kinds(meeting), ['proposal', 'accept', 'confirm']);
    assert.deepEqual(lengths(meeting), [224, 130, 130]);
    assert.equal(partsOf(meeting.client).parts.layout, 'isthmus');
    release(meeting);
    await assertNothingLeft(client, server);
  });

  test('the second connection joins the link group', async () => {
    const { client, server } = hosts();
    const first = await meet(client.context, server.context);
    const second = await meet(client.context, server.context);
    assertConnected(second);
    assert.deepEqual(lengths(second), [224, 78, 78]);
    assert.equal(partsOf(first.client).group, partsOf(second.client).group);
    assert.equal(partsOf(second.client).parts.layout, 'isthmus');
  });

  test('a link group serves connections of both directions', async () => {
    const { client, server } = hosts();
    await meet(client.context, server.context);
    assert.deepEqual(lengths(await meet(server.context, client.context)), [224, 78, 78]);
  });

  test('the first of four UEIDs that is common is agreed on', async () => {
    const { client, server } = hosts({ ueids: UEIDS }, { ueids: [...UEIDS.slice(2)] });
    const meeting = await meet(client.context, server.context);
    assert.deepEqual(lengths(meeting), [320, 130, 130]);
    assert.equal(partsOf(meeting.server).group.eid, 'C.3');
  });

  test('the SEID goes before the UEIDs', async () => {
    const { client, server } = hosts({ seid: SEID }, { seid: SEID });
    assert.equal(partsOf((await meet(client.context, server.context)).client).group.eid, SEID);
  });

  test('another SEID does not stand in the way of a UEID', async () => {
    const { client, server } = hosts({ seid: SEID }, { seid: `${SEID.slice(0, 31)}2` as Eid });
    assert.equal(partsOf((await meet(client.context, server.context)).client).group.eid, 'ISTHMUS');
  });

  for (const [client, server] of [
    [['kernel'], ['isthmus', 'kernel']],
    [['isthmus', 'kernel'], ['kernel']],
    [['kernel'], ['kernel']],
  ] as LayoutName[][][]) {
    test(`layouts ${client} and ${server}: the kernel's, also for the next connection`, async () => {
      const ends = hosts({ layouts: client as LayoutName[] }, { layouts: server as LayoutName[] });
      for (let i = 0; i < 2; i++) {
        const meeting = await meet(ends.client.context, ends.server.context);
        assertConnected(meeting);
        assert.equal(partsOf(meeting.client).parts.layout, 'kernel');
      }
    });
  }

  test('a link group of another layout is not joined', async () => {
    const { client, server } = hosts();
    await meet(client.context, server.context);
    const meeting = await meet({ ...client.context, layouts: ['kernel'] }, server.context);
    assertConnected(meeting);
    assert.deepEqual(lengths(meeting), [224, 130, 130]);
  });

  test('the second device when the first has no DMB left', async () => {
    const { client, server } = hosts();
    const full = (host: Host) =>
      variant(host.device, {
        chid: parseChid(0xff01),
        registerDmb: () => Promise.reject(new IsmError('ERR_ISTHMUS_NO_DMB', 'system', 'full')),
      });
    const has = (host: Host) => ({ ...host.context, devices: [full(host), host.device] });
    const meeting = await meet(has(client), has(server));
    assertConnected(meeting);
    assert.deepEqual(lengths(meeting), [244, 130, 130]);
  });

  test("release 0: an extension without the part of v2.1, and the kernel's layout", async () => {
    const { client, server } = hosts();
    const [clientWire, serverWire] = wires();
    serverWire.transit = (bytes) => [
      changed<Proposal>('proposal', ({ v2 }) => ({ v2: v2 && { ...v2, release: 0 } }))(bytes),
    ];
    const meeting = await meet(client.context, server.context, [clientWire, serverWire]);
    assertConnected(meeting);
    assert.deepEqual(lengths(meeting), [224, 114, 114]);
    assert.equal(partsOf(meeting.client).parts.layout, 'kernel');
  });

  test('messages in pieces of one byte, and data behind the Confirm stays in the stream', async () => {
    const { client, server } = hosts();
    const [clientWire, serverWire] = wires();
    const oneByOne = (bytes: Buffer) => Array.from(bytes, (byte) => Buffer.from([byte]));
    clientWire.transit = oneByOne;
    serverWire.transit = oneByOne;
    const meeting = meet(client.context, server.context, [clientWire, serverWire]);
    serverWire.transit = (bytes) =>
      oneByOne(decodeClc(bytes).type === 'confirm' ? Buffer.concat([bytes, DATA]) : bytes);
    assertConnected(await meeting);
    await arrived();
    assert.deepEqual(serverWire.rest, DATA);
  });
});

// --- Declines ---

/** A message of this type with something changed on the way. */
function changed<M extends ClcMessage>(type: M['type'], change: (message: M) => Partial<M>): (bytes: Buffer) => Buffer {
  return (bytes) => {
    const message = decodeClc(bytes);
    return message.type === type ? encodeClc({ ...message, ...change(message as M) } as ClcMessage) : bytes;
  };
}

interface Case {
  readonly name: string;
  readonly client?: Partial<HandshakeContext> | ((host: Host) => Partial<HandshakeContext>);
  readonly server?: Partial<HandshakeContext> | ((host: Host) => Partial<HandshakeContext>);
  readonly toServer?: (bytes: Buffer) => Buffer;
  readonly toClient?: (bytes: Buffer) => Buffer;
  readonly before?: (client: Host, server: Host) => void;
  readonly by: 'client' | 'server';
  readonly code: number;
  /** Who declines knows better than can be said. */
  readonly own?: Reason;
  readonly messages: string;
}

const noDmb = (code: 'ERR_ISTHMUS_NO_DMB' | 'ERR_ISTHMUS_NO_MEMORY') => (host: Host) => ({
  devices: [variant(host.device, { registerDmb: () => Promise.reject(new IsmError(code, 'system', 'none left')) })],
});
const proposing = (change: (message: Proposal) => Partial<Proposal>) => changed<Proposal>('proposal', change);
const confirming = (change: (message: AcceptConfirmV2) => Partial<AcceptConfirmV2>) =>
  changed<AcceptConfirmV2>('confirm', change);
const accepting = (change: (message: AcceptConfirmV2) => Partial<AcceptConfirmV2>) =>
  changed<AcceptConfirmV2>('accept', change);
const v1 = { offer: 'D' as const, subnet: Buffer.from([10, 0, 0, 0]), prefixLength: 24, ipv6Prefixes: [] };

const DECLINES: readonly Case[] = [
  {
    name: 'the client has no device: instead of a Proposal, of version 1',
    client: { devices: [] },
    by: 'client',
    code: SMC_CLC_DECL.NOSMCDEV,
    messages: 'decline 28',
  },
  {
    name: 'the client does not want it',
    client: { refusal: REASONS.OFF },
    by: 'client',
    code: SMC_CLC_DECL.OPTUNSUPP,
    own: REASONS.OFF,
    messages: 'decline 44',
  },
  {
    name: 'the server does not want it',
    server: { refusal: REASONS.TLS },
    by: 'server',
    code: SMC_CLC_DECL.OPTUNSUPP,
    own: REASONS.TLS,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'the Proposal offers nothing',
    toServer: proposing(() => ({ v2: null })),
    by: 'server',
    code: SMC_CLC_DECL.PEERNOSMC,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'the server has no device of version 2',
    server: { devices: [] },
    by: 'server',
    code: SMC_CLC_DECL.NOISM2SUPP,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'the Proposal has no SMC-D extension of version 2',
    toServer: proposing(({ v2 }) => ({ v2: v2 && { ...v2, smcd: null } })),
    by: 'server',
    code: SMC_CLC_DECL.NOV2DEXT,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'the client names no EID',
    client: { ueids: [] },
    by: 'server',
    code: SMC_CLC_DECL.NOUEID,
    messages: 'proposal 192, decline 44',
  },
  {
    name: 'no device of the server reaches the client',
    server: (host) => ({ devices: [variant(host.device, { queryRemoteGid: async () => false })] }),
    by: 'server',
    code: SMC_CLC_DECL.NOSMCD2DEV,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'no CHID is common',
    server: (host) => ({ devices: [variant(host.device, { chid: parseChid(0xff07) })] }),
    by: 'server',
    code: SMC_CLC_DECL.NOSMCD2DEV,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'no EID is common',
    server: { ueids: UEIDS },
    by: 'server',
    code: SMC_CLC_DECL.NOSMCDDEV,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'no EID is common, and version 1 is offered from another subnet',
    server: { ueids: UEIDS, prefixes: [{ address: Buffer.from([10, 0, 1, 2]), length: 24 }] },
    toServer: proposing(() => ({ v1 })),
    by: 'server',
    code: SMC_CLC_DECL.DIFFPREFIX,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'version 1 alone, from another prefix length',
    server: { prefixes: [{ address: Buffer.from([10, 0, 0, 2]), length: 16 }] },
    toServer: proposing(() => ({ v1, v2: null })),
    by: 'server',
    code: SMC_CLC_DECL.DIFFPREFIX,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'version 1 alone, from another IPv6 prefix',
    server: { prefixes: [{ address: Buffer.from(`fd01${'00'.repeat(14)}`, 'hex'), length: 64 }] },
    toServer: proposing(() => ({
      v1: { ...v1, ipv6Prefixes: [{ prefix: Buffer.from(`fd00${'00'.repeat(14)}`, 'hex'), length: 64 }] },
      v2: null,
    })),
    by: 'server',
    code: SMC_CLC_DECL.DIFFPREFIX,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'version 1 alone, from the same subnet',
    server: { prefixes: [{ address: Buffer.from([10, 0, 0, 2]), length: 24 }] },
    toServer: proposing(() => ({ version: 1, v1, v2: null })),
    by: 'server',
    code: SMC_CLC_DECL.NOSMCDDEV,
    messages: 'proposal 224, decline 28',
  },
  {
    name: 'SMC-R alone',
    toServer: proposing(({ v2 }) => ({ v1: { ...v1, offer: 'R' }, v2: v2 && { ...v2, offer: 'R', smcd: null } })),
    by: 'server',
    code: SMC_CLC_DECL.NOSMCRDEV,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'the server has no memory',
    server: noDmb('ERR_ISTHMUS_NO_MEMORY'),
    by: 'server',
    code: SMC_CLC_DECL.MEM,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'the server has no DMB left',
    server: noDmb('ERR_ISTHMUS_NO_DMB'),
    by: 'server',
    code: SMC_CLC_DECL.MAX_DMB,
    messages: 'proposal 224, decline 44',
  },
  {
    name: 'the client has no memory',
    client: noDmb('ERR_ISTHMUS_NO_MEMORY'),
    by: 'client',
    code: SMC_CLC_DECL.MEM,
    messages: 'proposal 224, accept 130, decline 44',
  },
  {
    name: 'the client has no DMB left',
    client: noDmb('ERR_ISTHMUS_NO_DMB'),
    by: 'client',
    code: SMC_CLC_DECL.MAX_DMB,
    messages: 'proposal 224, accept 130, decline 44',
  },
  {
    name: 'the Accept has a token that the device does not know',
    toClient: accepting(() => ({ token: parseToken(1n) })),
    by: 'client',
    code: SMC_CLC_DECL.MEM,
    messages: 'proposal 224, accept 130, decline 44',
  },
  {
    name: 'the Accept is of version 1',
    toClient: accepting(({ gid }) => ({
      version: 1 as never,
      gid: gid.replace(/.{17}$/, '0000-000000000000') as never,
    })),
    by: 'client',
    code: SMC_CLC_DECL.MODEUNSUPP,
    messages: 'proposal 224, accept 130, decline 28',
  },
  {
    name: 'the Accept chooses a layout that was not offered',
    client: { layouts: ['isthmus'] },
    toClient: accepting(({ fce }) => ({ fce: fce && { ...fce, v21: { featureMask: 1 } } })),
    by: 'client',
    code: SMC_CLC_DECL.MODEUNSUPP,
    messages: 'proposal 224, accept 130, decline 44',
  },
  {
    name: 'the Accept comes from a device that cannot be reached',
    toClient: accepting(() => ({ gid: randomGid() })),
    by: 'client',
    code: SMC_CLC_DECL.NOSMCD2DEV,
    messages: 'proposal 224, accept 130, decline 44',
  },
  {
    name: 'the Accept joins a link group that the client does not have',
    before: (client, server) => {
      const { groups } = server.context;
      groups.add(new LinkGroup(groups.nextId(), server.device, client.device.gid, 'ISTHMUS' as Eid, '', 'isthmus'));
    },
    by: 'client',
    code: SMC_CLC_DECL.SYNCERR,
    messages: 'proposal 224, accept 78, decline 44',
  },
  {
    name: 'the Confirm has another release',
    toServer: confirming(({ fce }) => ({ fce: fce && { ...fce, release: 2 } })),
    by: 'server',
    code: SMC_CLC_DECL.RELEASEERR,
    messages: 'proposal 224, accept 130, decline 44, confirm 130',
  },
];

function ofHost(has: Case['client'], host: Host): Partial<HandshakeContext> {
  return typeof has === 'function' ? has(host) : (has ?? {});
}

describe("a Decline: reasons at both ends, and the stream is the programs'", () => {
  for (const { name, client, server, toServer, toClient, before, by, code, own, messages } of DECLINES) {
    test(name, async () => {
      const ends = hosts();
      const contexts = [
        { ...ends.client.context, ...ofHost(client, ends.client) },
        { ...ends.server.context, ...ofHost(server, ends.server) },
      ] as const;
      before?.(ends.client, ends.server);
      const [clientWire, serverWire] = wires();
      if (toServer) serverWire.transit = (bytes) => [toServer(bytes)];
      if (toClient) clientWire.transit = (bytes) => [toClient(bytes)];
      const isLate = messages.endsWith('confirm 130');
      const handshakes = [
        shakeHands('client', clientWire, contexts[0]),
        shakeHands('server', serverWire, contexts[1]),
      ] as const;
      const atServer = await handshakes[1];
      const atClient = await handshakes[0];
      const said = [serverWire.received[0], ...clientWire.received, ...serverWire.received.slice(1)]
        .filter((bytes) => bytes !== undefined)
        .map((bytes) => `${decodeClc(bytes).type} ${bytes.length}`);
      assert.equal(said.join(', '), messages);
      const [decliner, other] = by === 'client' ? [atClient, atServer] : [atServer, atClient];
      assert.ok('reason' in decliner && !decliner.byPeer, inspect(decliner));
      assert.equal(decliner.reason, own ?? decliner.reason);
      assert.equal(own === undefined ? decliner.reason.code : code, code);
      // The client is up with its Confirm: a Decline after it is for whoever has the connection then.
      if (isLate) {
        assert.ok('parts' in other);
        release({ client: atClient, server: atServer });
      } else {
        assert.ok('reason' in other && other.byPeer, inspect(other));
        assert.equal(other.reason.code, code);
        await assertPlain(clientWire, serverWire);
      }
      await assertNothingLeft(ends.client, ends.server);
      assert.deepEqual([...ends.client.context.groups.all].length, isLate ? 1 : 0);
      assert.deepEqual([...ends.server.context.groups.all].length, 0);
    });
  }

  test('after a Confirm, as long as nobody is bound, a Decline is taken from the stream', async () => {
    const { client, server } = hosts();
    const [clientWire, serverWire] = wires();
    const { InBandHandshake } = await import('../../src/smc/in-band.ts');
    const outcome = shakeHands('server', serverWire, server.context);
    const ofClient = await new Promise<InstanceType<typeof InBandHandshake>>((resolve) => {
      const handshake: InstanceType<typeof InBandHandshake> = new InBandHandshake(client.context, clientWire, () =>
        resolve(handshake),
      );
      clientWire.onReadable = () => void handshake.readable();
      handshake.startAsClient();
    });
    await outcome;
    assert.equal(ofClient.takeDecline(), null);
    const decline: Decline = { type: 'decline', version: 2, diagnosis: SMC_CLC_DECL.MEM, outOfSync: false, os: 2 };
    serverWire.send(encodeClc(decline));
    serverWire.send(DATA);
    await arrived();
    assert.equal(ofClient.takeDecline(), REASONS.MEM);
    assert.deepEqual(clientWire.rest, DATA);
  });

  test('a Decline with out of sync ends the link group of the server', async () => {
    const { client, server } = hosts();
    await meet(client.context, server.context);
    const meeting = await meet({ ...client.context, groups: hosts().client.context.groups }, server.context);
    assert.deepEqual(kinds(meeting), ['proposal', 'accept', 'decline']);
    assert.equal((meeting.messages[2] as Decline).outOfSync, true);
    assert.deepEqual([...server.context.groups.all], []);
    // Both begin anew.
    const again = await meet({ ...client.context, groups: hosts().client.context.groups }, server.context);
    assertConnected(again);
  });
});

// --- What ends the connection ---

type Fault = readonly [
  name: string,
  error: 'EPROTO' | 'ECONNRESET',
  at: 'client' | 'server',
  tamper: (bytes: Buffer) => Buffer,
];

const byteAt = (type: ClcMessage['type'], offset: number, value: number) => (bytes: Buffer) => {
  if (decodeClc(bytes).type !== type) return bytes;
  const copy = Buffer.from(bytes);
  copy[offset < 0 ? copy.length + offset : offset] = value;
  return copy;
};

const FAULTS: readonly Fault[] = [
  ['data instead of a Proposal', 'EPROTO', 'server', () => Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ['an eyecatcher that is none', 'EPROTO', 'server', byteAt('proposal', 0, 0)],
  ['a trailer that is none', 'EPROTO', 'server', byteAt('proposal', -1, 0)],
  ['version 0', 'EPROTO', 'server', byteAt('proposal', 7, 0x06)],
  ['a Confirm instead of a Proposal', 'EPROTO', 'server', byteAt('proposal', 4, 3)],
  ['a length that is too short for any message', 'EPROTO', 'server', byteAt('proposal', 6, 8)],
  ['a Confirm instead of an Accept', 'EPROTO', 'client', byteAt('accept', 4, 3)],
  ['an Accept with a CHID that was not offered', 'EPROTO', 'client', accepting(() => ({ chid: parseChid(0xff22) }))],
  ['an Accept with an EID that was not offered', 'EPROTO', 'client', accepting(() => ({ eid: 'OTHER' as Eid }))],
  ['an Accept of a first contact without its extension', 'EPROTO', 'client', accepting(() => ({ fce: null }))],
  ['an Accept with a DMB of another size', 'EPROTO', 'client', accepting(() => ({ dmbeSize: 15 }))],
  ['a Confirm with another CHID', 'EPROTO', 'server', confirming(() => ({ chid: parseChid(0xff22) }))],
  ['a Confirm with another EID', 'EPROTO', 'server', confirming(() => ({ eid: 'OTHER' as Eid }))],
  ['a Confirm with another GID', 'EPROTO', 'server', confirming(() => ({ gid: randomGid() }))],
  ['a Confirm without first contact', 'EPROTO', 'server', confirming(() => ({ firstContact: false, fce: null }))],
  [
    'a Confirm with a token that the device does not know',
    'EPROTO',
    'server',
    confirming(() => ({ token: parseToken(1n) })),
  ],
  ['a Confirm with a DMB of another size', 'EPROTO', 'server', confirming(() => ({ dmbeSize: 9 }))],
];

describe('what cannot be trusted ends the connection', () => {
  for (const [name, error, at, tamper] of FAULTS) {
    test(name, async () => {
      const { client, server } = hosts();
      const [clientWire, serverWire] = wires();
      const wire = at === 'client' ? clientWire : serverWire;
      wire.transit = (bytes) => [tamper(bytes)];
      const handshakes = {
        client: shakeHands('client', clientWire, client.context),
        server: shakeHands('server', serverWire, server.context),
      };
      const outcome = await handshakes[at];
      assert.ok('error' in outcome, inspect(outcome));
      assert.equal(outcome.error, error);
      // The other end sees the end of TCP, unless it was up already.
      (at === 'client' ? serverWire : clientWire).end();
      const other = await handshakes[at === 'client' ? 'server' : 'client'];
      if ('parts' in other) release({ client: other, server: other });
      else assert.equal('error' in other && other.error, 'ECONNRESET');
      await assertNothingLeft(client, server);
    });
  }

  test('the peer ends in the middle of a message', async () => {
    const { server } = hosts();
    const [, wire] = wires();
    const outcome = shakeHands('server', wire, server.context);
    wire.deliver(Buffer.from('e2d4c3d90100e026', 'hex'));
    wire.end();
    assert.equal(((await outcome) as { error: string }).error, 'ECONNRESET');
  });

  for (const role of ['client', 'server'] as const) {
    test(`the ${role} waits ${CLC_WAIT_MS} ms for an answer, and no longer`, async () => {
      mock.timers.enable({ apis: ['setTimeout'] });
      try {
        const { client } = hosts();
        const [wire] = wires();
        let settled = false;
        const outcome = shakeHands(role, wire, client.context).then((it) => {
          settled = true;
          return it;
        });
        mock.timers.tick(CLC_WAIT_MS - 1);
        await new Promise((resolve) => setImmediate(resolve));
        assert.equal(settled, false);
        mock.timers.tick(1);
        assert.equal(((await outcome) as { error: string }).error, 'ETIMEDOUT');
      } finally {
        mock.timers.reset();
      }
    });
  }
});

for (const [name, property] of Object.entries(PROPERTIES)) {
  test(name, async () => {
    await fc.assert(property(), { numRuns: 200 });
  });
}
