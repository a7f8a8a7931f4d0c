/** Own handshakes over real TCP connections, captured on the loopback interface and read by Wireshark's dissector. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Eid, parseChid, virtualChid } from '../../src/ism/index.ts';
import { decodeClc } from '../../src/smc/clc/index.ts';
import type { HandshakeContext } from '../../src/smc/handshake.ts';
import { REASONS, type Reason } from '../../src/smc/reasons.ts';
import { eventually } from '../../src/testing/index.ts';
import { assertDissected, type Exchange, noDissector } from './dissector.ts';
import { hosts, shakeHands, variant, Wire } from './ends.ts';

/** For `skip`. */
function cannotCapture(): string | false {
  return noDissector() || (process.getuid?.() !== 0 && 'capturing on the loopback interface needs root');
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
  const { port: serverPort } = listener.address() as { port: number };
  const socket = connect({ host, port: serverPort });
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
  return { name, clientPort, serverPort, messages };
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
    assertDissected(capture, exchanges);
  });
});
