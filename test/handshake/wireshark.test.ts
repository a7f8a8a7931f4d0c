/**
 * Own handshakes over real TCP connections, captured on the loopback interface and read by Wireshark's dissector: nothing is
 * malformed, and every field that it shows is what was meant.
 *
 * What it cannot see: the second half of GIDs in Accept and Confirm, feature mask, vendor options and trailers ("Reserved"). It takes
 * the extension of a first contact to be that of v2.1, so one of release 0 looks malformed to it.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Eid, gidToBytes, isEmulated, parseChid, virtualChid } from '../../src/ism/index.ts';
import { type ClcMessage, decodeClc, encodeClc } from '../../src/smc/clc/index.ts';
import type { HandshakeContext } from '../../src/smc/handshake.ts';
import { REASONS, type Reason } from '../../src/smc/reasons.ts';
import { eventually } from '../../src/testing/index.ts';
import { hosts, shakeHands, variant, Wire } from './ends.ts';

/** For `skip`. */
function cannotCapture(): string | false {
  const { status, error } = spawnSync('tshark', ['--version'], { stdio: 'ignore' });
  if (error !== undefined || status !== 0) return 'tshark is not installed (apt install tshark)';
  if (process.getuid?.() !== 0) return 'capturing on the loopback interface needs root';
  return false;
}
const skip = cannotCapture();

/** Shows the bytes of a socket to an engine, and what the engine sends to the socket. */
class SocketWire extends Wire {
  readonly #socket: Socket;
  readonly sent: Buffer[] = [];

  constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.on('data', (bytes) => this.deliver(bytes)).on('end', () => this.end());
  }

  override send(bytes: Buffer): void {
    this.sent.push(bytes);
    this.#socket.write(bytes);
  }
}

interface Exchange {
  readonly name: string;
  readonly clientPort: number;
  /** In the order in which they were sent. */
  readonly messages: readonly ClcMessage[];
}

let directory: string;
let capture: string;
let sniffer: ChildProcess;
const servers: Server[] = [];

before(async () => {
  if (skip) return;
  directory = mkdtempSync(join(tmpdir(), 'isthmus-capture-'));
  capture = join(directory, 'own.pcapng');
  sniffer = spawn('dumpcap', ['-q', '-i', 'lo', '-f', 'tcp', '-w', capture], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  sniffer.stderr?.on('data', (chunk) => {
    said += chunk;
  });
  await eventually('dumpcap captures', () => said.includes('File:'));
});

after(() => {
  sniffer?.kill('SIGKILL');
  for (const server of servers) server.close();
  if (directory) rmSync(directory, { recursive: true, force: true });
});

async function exchange(
  name: string,
  client: HandshakeContext,
  server: HandshakeContext,
  host = '127.0.0.1',
): Promise<Exchange> {
  const listener = createServer();
  servers.push(listener);
  await new Promise<void>((resolve) => listener.listen(0, host, resolve));
  const socket = connect({ host, port: (listener.address() as { port: number }).port });
  const [[accepted]] = (await Promise.all([once(listener, 'connection'), once(socket, 'connect')])) as [
    [Socket],
    unknown,
  ];
  const [atClient, atServer] = [new SocketWire(socket), new SocketWire(accepted)];
  const { localPort: clientPort = 0 } = socket;
  const outcomes = [shakeHands('server', atServer, server), shakeHands('client', atClient, client)];
  await Promise.all(outcomes);
  const [first, ...rest] = atClient.sent;
  const messages = [first, ...atServer.sent, ...rest].filter((bytes) => bytes !== undefined).map(decodeClc);
  socket.destroy();
  accepted.destroy();
  return { name, clientPort, messages };
}

const hexOf = (bytes: Uint8Array) => BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
const halves = (gid: Parameters<typeof gidToBytes>[0]) => {
  const bytes = gidToBytes(gid);
  return [hexOf(bytes.subarray(0, 8)), hexOf(bytes.subarray(8))];
};

/** By name of the field, without `smc.`: all its values in the message. Names of the dissector's. */
function meant(message: ClcMessage): Record<string, readonly (bigint | number | string)[]> {
  const common = {
    clc_msg: [['proposal', 'accept', 'confirm', 'decline'].indexOf(message.type) + 1],
    length: [encodeClc(message).length],
  };
  if (message.type === 'proposal') {
    const { v2 } = message;
    const devices = v2?.smcd?.devices ?? [];
    const ueids = v2?.userEids ?? [];
    return {
      ...common,
      'proposal.smc.version': [2],
      'proposal.smc.type': [2],
      'proposal.smcv2.type': [1],
      'proposal.smcv2_ext_offset': [28],
      'proposal.smcdv2_ext_offset': [32 + 32 * ueids.length],
      'proposal.eid.count': [ueids.length],
      'proposal.eid': ueids,
      'proposal.smc.version.relnum': [v2?.release ?? -1],
      'proposal.smc.seid': [v2?.smcd?.seid ? 1 : 0],
      'proposal.system.eid': [v2?.smcd?.seid ?? ''],
      'proposal.ismv2_gid_count': [devices.length * 2],
      'proposal.ism.gid': [0n, ...devices.flatMap(({ gid }) => halves(gid))],
      'proposal.smc.chid': [0, ...devices.flatMap(({ chid }) => (isEmulated(chid) ? [chid, chid] : [chid]))],
    };
  }
  if (message.type === 'decline') {
    return {
      ...common,
      'decline.smc.version': [message.version],
      'decline.osync': [message.outOfSync ? 1 : 0],
      ...(message.version === 2 && { 'decline.os.type': [message.os] }),
      'peer.diag.info': [message.diagnosis, ...(message.version === 2 ? [0, 0, 0, 0] : [])],
    };
  }
  assert.ok(message.mode === 'D' && message.version === 2);
  const { type, fce } = message;
  const of = type === 'accept' ? 'server' : 'client';
  return {
    ...common,
    [`${type}.smc.type`]: [1],
    [`${type}.first.contact`]: [message.firstContact ? 1 : 0],
    [`${type}.sender.${of}.ism.gid`]: [halves(message.gid)[0] ?? 0n],
    [`${type}.dmb.token`]: [message.token],
    [`${type}.dmbe.conn.index`]: [message.dmbeIndex],
    [`${type}.dmbe.buffer.size`]: [message.dmbeSize],
    [`${type}.${of}.linkid`]: [message.linkId],
    [`${type}.smc.chid`]: [message.chid],
    [`${type}.eid`]: [message.eid],
    ...(fce && {
      [`${type}.os.type`]: [fce.os],
      [`${type}.smc.version.relnum`]: [fce.release],
      [`${type}.peer.host.name`]: [fce.hostName],
    }),
  };
}

type Shown = Record<string, readonly string[]>;

/** What tshark says of these fields, by port of the client: one record a message. */
function read(fields: readonly string[]): Map<number, Shown[]> {
  const columns = ['tcp.srcport', 'tcp.dstport', ...fields.map((name) => `smc.${name}`)];
  const text = tshark(
    ...['-Y', 'smc', '-T', 'fields', '-E', 'separator=|', '-E', 'occurrence=a', '-E', 'aggregator=;'],
    ...columns.flatMap((name) => ['-e', name]),
  );
  const byPort = new Map<number, Shown[]>();
  for (const line of text.split('\n').filter((line) => line !== '')) {
    const [from, to, ...values] = line.split('|');
    const record = Object.fromEntries(fields.map((name, i) => [name, (values[i] ?? '').split(';')]));
    for (const port of [Number(from), Number(to)]) byPort.set(port, [...(byPort.get(port) ?? []), record]);
  }
  return byPort;
}

function tshark(...args: string[]): string {
  return execFileSync('tshark', ['-r', capture, '-o', 'tcp.try_heuristic_first:TRUE', ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

function assertShown(exchanges: readonly Exchange[]): void {
  const expected = exchanges.map((one) => ({ ...one, records: one.messages.map(meant) }));
  const fields = [...new Set(expected.flatMap(({ records }) => records.flatMap((record) => Object.keys(record))))];
  const seen = read(fields);
  for (const { name, clientPort, records } of expected) {
    const shown = seen.get(clientPort) ?? [];
    assert.equal(shown.length, records.length, `${name}: messages seen`);
    for (const [i, record] of records.entries()) {
      for (const [field, values] of Object.entries(record)) {
        const got = (shown[i]?.[field] ?? []).map((text) => text.trim()).filter((text) => text !== '');
        const isText = values.some((value) => typeof value === 'string');
        assert.deepEqual(
          isText ? got : got.map(numberOf),
          isText ? values.filter((text) => text !== '') : values.map((value) => BigInt(value)),
          `${name}, message ${i + 1}: ${field}`,
        );
      }
    }
  }
}

function numberOf(text: string): bigint {
  return BigInt(text === 'True' ? 1 : text === 'False' ? 0 : text);
}

describe('Wireshark reads own handshakes', { skip }, () => {
  test('every variant that a client can offer, and every Decline', async () => {
    const ueids = ['A.1', 'B-2', 'LONGEST.UEID.OF.32.CHARACTERS-32', '4'] as Eid[];
    const seid = 'IBM-SYSZ-ISMSEID0000000012348561' as Eid;
    const exchanges: Exchange[] = [];
    const add = async (
      name: string,
      client: Partial<HandshakeContext>,
      server: Partial<HandshakeContext>,
      host?: string,
    ) => {
      const ends = hosts(client, server);
      exchanges.push(await exchange(name, ends.client.context, ends.server.context, host));
      return ends;
    };
    for (const host of ['127.0.0.1', '::1']) {
      const { client, server } = await add(`first contact over ${host}`, {}, {}, host);
      exchanges.push(await exchange('reuse of the link group', client.context, server.context, host));
    }
    for (let count = 1; count <= ueids.length; count++)
      await add(`${count} UEIDs`, { ueids: ueids.slice(0, count) }, { ueids: ueids.slice(count - 1, count) });
    await add('SEID', { seid, ueids: [] }, { seid });
    await add('SEID and UEIDs', { seid, ueids }, { ueids });
    for (const dmbBytes of [16384, 1 << 20]) await add(`DMBs of ${dmbBytes}`, { dmbBytes }, { dmbBytes });
    await add("the kernel's layout", { layouts: ['kernel'] }, {});
    const { client, server } = hosts();
    const more = [0, 1, 2].map((i) => variant(client.device, { chid: virtualChid(i) }));
    exchanges.push(
      await exchange('four devices', { ...client.context, devices: [...more, client.device] }, server.context),
    );
    await add('no device at the client', { devices: [] }, {});
    await add('no device at the server', {}, { devices: [] });
    await add('no UEID', { ueids: [] }, {});
    await add('no common UEID', { ueids }, {});
    const lost = hosts();
    await exchange('its group', lost.client.context, lost.server.context);
    exchanges.push(
      await exchange(
        'out of sync',
        { ...lost.client.context, groups: hosts().client.context.groups },
        lost.server.context,
      ),
    );
    const far = hosts();
    const unreachable = variant(far.server.device, { chid: parseChid(0xff77) });
    exchanges.push(
      await exchange('no common CHID', far.client.context, { ...far.server.context, devices: [unreachable] }),
    );
    const isOwn = ({ code }: Reason) => code >>> 16 === 0x4953;
    for (const reason of Object.values(REASONS).filter((one) => one.code !== 0 && !isOwn(one)))
      await add(`Decline ${reason.name}`, {}, { refusal: reason });
    await add('the end', { ueids: ['THE.END' as Eid] }, { refusal: REASONS.OFF });

    await eventually('all was captured', () => readFileSync(capture).includes('THE.END'));
    sniffer.kill('SIGINT');
    await once(sniffer, 'exit');
    assert.equal(tshark('-Y', '_ws.malformed || _ws.expert.severity == error'), '');
    assertShown(exchanges);
  });
});
