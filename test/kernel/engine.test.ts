/** Our handshake in the TCP stream against the kernel's: client and server. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import { type Device, type Eid, IsmError, type IsmErrorCode } from '../../src/ism/index.ts';
import type { HandshakeContext } from '../../src/smc/handshake.ts';
import { type ClcStream, InBandHandshake, type InBandOutcome } from '../../src/smc/in-band.ts';
import { type ClcMessage, decodeClc } from '../../src/smc/index.ts';
import { LinkGroup, LinkGroups } from '../../src/smc/link-group.ts';
import { REASONS, type ReasonName } from '../../src/smc/reasons.ts';
import { hosts, variant } from '../handshake/ends.ts';
import { assertSmcd, assertTcp, type Cut, flipped, hex8, inWords, pieces, UEID, UNKNOWN_TOKEN } from './clc.ts';
import { KernelDevice } from './device.ts';
import { KERNEL_PORT, Kernel, type KernelOptions, noKernel } from './kernel.ts';
import type { TcpConnection } from './tcp.ts';

const OUR_PORT = 6000;
const UEIDS = ['ISTHMUS.A', 'ISTHMUS.B', 'ISTHMUS.C', 'ISTHMUS.D'] as Eid[];

/** How bytes go to and fro. */
interface Passage {
  /** Of what we send. */
  readonly cut?: Cut;
  /** What comes from the kernel is seen byte by byte. */
  readonly slow?: boolean;
}

/** The TCP connection as the handshake sees it. The device learns of the DMBs that the kernel names. */
class Stream implements ClcStream {
  readonly #connection: TcpConnection;
  readonly #device: KernelDevice;
  readonly #cut: Cut;
  /** How many bytes are to be seen. */
  #seen: number;
  /** Both ends' messages, in their order. */
  readonly messages: ClcMessage[] = [];

  constructor(connection: TcpConnection, device: KernelDevice, { cut = 'whole', slow = false }: Passage) {
    this.#connection = connection;
    this.#device = device;
    this.#cut = cut;
    this.#seen = slow ? 0 : Number.POSITIVE_INFINITY;
  }

  /** Whether one more byte is to be seen. */
  showMore(): boolean {
    const there = this.#connection.peek(this.#seen + 1);
    return there !== 'end' && there.length > this.#seen++;
  }

  peek(length: number): Buffer | 'end' {
    const bytes = this.#connection.peek(length);
    return bytes === 'end' ? bytes : bytes.subarray(0, this.#seen);
  }

  read(length: number): Buffer {
    const bytes = this.#connection.read(length);
    this.#seen -= length;
    const message = decodeClc(bytes);
    this.messages.push(message);
    if ((message.type === 'accept' || message.type === 'confirm') && message.mode === 'D') {
      this.#device.learn(message.token, message.dmbeSize);
    }
    return bytes;
  }

  send(bytes: Buffer): void {
    this.messages.push(decodeClc(bytes));
    for (const piece of pieces(bytes, this.#cut)) this.#connection.send(piece);
  }
}

interface Meeting {
  readonly connection: TcpConnection;
  readonly outcome: InBandOutcome;
  /** Both ends' messages: 'Accept 130' ... */
  readonly messages: readonly string[];
}

/** We, as a host that the kernel meets. */
class Host {
  readonly kernel: Kernel;
  readonly device: KernelDevice;
  readonly context: HandshakeContext;
  #port = OUR_PORT;
  #moved = 0;

  constructor(kernel: Kernel) {
    this.kernel = kernel;
    this.device = new KernelDevice(kernel.gid);
    this.context = hosts({ devices: [this.device], ueids: [UEID] }).client.context;
  }

  async connect(has: Partial<HandshakeContext> = {}, passage: Passage = {}): Promise<Meeting> {
    const connection = await this.kernel.tcp.connect(KERNEL_PORT);
    return this.#shakeHands('client', connection, has, passage);
  }

  async accept(has: Partial<HandshakeContext> = {}, passage: Passage = {}): Promise<Meeting> {
    const port = this.#port++;
    const listener = this.kernel.tcp.listen(port);
    this.kernel.connectTo(port);
    return this.#shakeHands('server', await listener.accept(), has, passage);
  }

  async #shakeHands(
    role: 'client' | 'server',
    connection: TcpConnection,
    has: Partial<HandshakeContext>,
    passage: Passage,
  ): Promise<Meeting> {
    const stream = new Stream(connection, this.device, passage);
    const outcome = await new Promise<InBandOutcome>((resolve) => {
      const handshake = new InBandHandshake({ ...this.context, ...has }, stream, (outcome) => {
        unwatch();
        resolve(outcome);
      });
      const look = async () => {
        do await handshake.readable();
        while (stream.showMore());
      };
      const unwatch = connection.watch(() => void look());
      if (role === 'client') handshake.startAsClient();
      else handshake.startAsServer();
      void look();
    });
    if ('parts' in outcome) this.#moved++;
    const { dmbs, attached } = this.device.usage();
    assert.deepEqual([dmbs, attached], [this.#moved, this.#moved], 'a connection that did not move keeps no DMB');
    return { connection, outcome, messages: stream.messages.map(inWords) };
  }
}

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
    assert.deepEqual(meeting.messages, ['Proposal 224', 'Accept 130', 'Confirm 130']);
    const group = await assertMoved(host, meeting);
    assert.equal(group.eid, UEID);
    assert.equal(group.peer, host.kernel.gid);
  });

  testWithHost('the second connection joins the link group', async (host) => {
    const group = await assertMoved(host, await host.connect());
    const meeting = await host.connect();
    assert.deepEqual(meeting.messages, ['Proposal 224', 'Accept 78', 'Confirm 78']);
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
      assert.deepEqual(meeting.messages, ['Proposal 320', 'Accept 130', 'Confirm 130']);
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
      assert.deepEqual(meeting.messages, messages);
      await assertStays(host, meeting, reason, 'us');
      // The kernel, too, has dropped the link group that was to be.
      assert.deepEqual((await host.connect()).messages, ['Proposal 224', 'Accept 130', 'Confirm 130']);
    });
  }

  testWithHost('we do not know the link group: both end it, and the next connection makes a new one', async (host) => {
    await assertMoved(host, await host.connect());
    const lost = { groups: new LinkGroups() };
    const meeting = await host.connect(lost);
    assert.deepEqual(meeting.messages, ['Proposal 224', 'Accept 78', 'Decline 04000000 out of sync']);
    assert.deepEqual(meeting.outcome, { reason: REASONS.SYNCERR, byPeer: false }); // Linux forgets this connection
    const next = await host.connect(lost);
    assert.deepEqual(next.messages, ['Proposal 224', 'Accept 130', 'Confirm 130']);
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
    assert.deepEqual(meeting.messages, ['Proposal 224', 'Accept 130']);
    assert.ok('error' in meeting.outcome && meeting.outcome.error === 'EPROTO');
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
    assert.deepEqual(meeting.messages, ['Proposal 224', 'Accept 130', 'Confirm 130']);
    await assertMoved(host, meeting);
  });

  testAsServer('the kernel joins a link group in which it was the server', async (host) => {
    const meeting = await host.accept();
    assert.deepEqual(meeting.messages, ['Proposal 224', 'Accept 78', 'Confirm 78']);
    await assertMoved(host, meeting);
  });

  testAsServer('the kernel joins a link group in which it was the client', async (host) => {
    const { groups } = anew();
    const group = await assertMoved(host, await host.accept({ groups }));
    const meeting = await host.accept({ groups });
    assert.deepEqual(meeting.messages, ['Proposal 224', 'Accept 78', 'Confirm 78']);
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
      assert.deepEqual(meeting.messages, ['Proposal 320', 'Accept 130', 'Confirm 130']);
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
      assert.deepEqual(meeting.messages, ['Proposal 224', `Decline ${hex8(REASONS[reason].code)}`]);
      await assertStays(host, meeting, reason, 'us');
    });
  }

  testWithHost(
    'we decline: the kernel has no UEID to propose',
    async (host) => {
      const meeting = await host.accept();
      assert.deepEqual(meeting.messages, ['Proposal 192', 'Decline 03030008']);
      await assertStays(host, meeting, 'NOUEID', 'us');
    },
    { ueids: [] },
  );

  testAsServer('the kernel declines: it does not know the token', async (host) => {
    host.device.learn(UNKNOWN_TOKEN, 2);
    const meeting = await host.accept(anew());
    assert.deepEqual(meeting.messages, ['Proposal 224', 'Accept 130', 'Decline 01010000']);
    await assertStays(host, meeting, 'MEM', 'kernel');
  });

  testWithHost('the kernel does not know the link group: both end it', async (host) => {
    host.device.learn(UNKNOWN_TOKEN, 2);
    host.context.groups.add(new LinkGroup(0x100, host.device, host.kernel.gid, UEID, '', 'kernel'));
    const meeting = await host.accept();
    assert.deepEqual(meeting.messages, ['Proposal 224', 'Accept 78', 'Decline 04000000 out of sync']);
    await assertStays(host, meeting, 'SYNCERR', 'kernel');
    assert.equal(host.context.groups.find(host.device, host.kernel.gid), undefined);
  });

  testAsServer('we end the connection when the DMB in its Confirm cannot be attached, as Linux does', async (host) => {
    const { messages, outcome } = await host.accept(devices(host, { attachDmb: fails('ERR_ISTHMUS_TOKEN') }));
    assert.deepEqual(messages, ['Proposal 224', 'Accept 78', 'Confirm 78']);
    assert.ok('error' in outcome && outcome.error === 'EPROTO');
  });

  testAsServer('stricter than Linux: a DMB that is not as long as the kernel says', async (host) => {
    const { messages, outcome } = await host.accept({ devices: [withShortDmbs(host.device)] });
    assert.deepEqual(messages, ['Proposal 224', 'Accept 78', 'Confirm 78']);
    assert.ok('error' in outcome && outcome.error === 'EPROTO');
  });
});
