/** A fabric that is older than we, and some that break the protocol: what a partition makes of their first words. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { askEidChange, askEids } from '../../src/fabric/ask.ts';
import { FabricClient, FabricUnavailable } from '../../src/fabric/client.ts';
import {
  decodeMessage,
  encodeMessage,
  type FabricMessage,
  type MessageByName,
  PROTOCOL_VERSION_MAX,
} from '../../src/fabric/protocol.ts';
import { parseGid } from '../../src/ism/index.ts';
import {
  acceptPackets,
  closeFd,
  connectPackets,
  listenPackets,
  receivePacket,
  ringSocket,
  sendPacket,
  testDoorbell,
} from '../../src/os/index.ts';
import { eventually } from '../../src/testing/index.ts';
import { Recorder } from '../integration/recorder.ts';

const GID = parseGid('01234567-89ab-4def-8899-aabbccddeeff');
const WELCOME: MessageByName<'WELCOME'> = {
  type: 'WELCOME',
  version: 2,
  gid: GID,
  chid: 0xff00,
  incarnation: 1n,
  pid: 1,
};
const EIDS: MessageByName<'EIDS'> = { type: 'EIDS', ueids: 'A B', seid: '', seidEnabled: 0 };

let directory: string;
let socket: string;
let listener: number;
let heard: Recorder;
const opened: number[] = [];
/** Joining alone keeps no program running. */
let alive: NodeJS.Timeout;

beforeEach(async () => {
  alive = setInterval(() => {}, 1000);
  await testDoorbell();
  directory = mkdtempSync(join(tmpdir(), 'isthmus-false-'));
  socket = join(directory, 'fabric.sock');
  listener = listenPackets(socket);
  heard = new Recorder();
});
afterEach(() => {
  clearInterval(alive);
  for (const fd of [listener, ...opened.splice(0)]) closeFd(fd);
  rmSync(directory, { recursive: true });
});

/** One end of a connection to a partition: what it says, and its doorbell. */
class FalseFabric {
  readonly fd: number;
  doorbell = -1;
  readonly heard: FabricMessage[] = [];

  constructor() {
    const fd = acceptPackets(listener);
    assert.ok(fd !== null);
    this.fd = fd;
    opened.push(fd);
    this.listen();
  }

  listen(): void {
    for (let packet = receivePacket(this.fd); packet !== null && packet !== 'end'; packet = receivePacket(this.fd)) {
      this.heard.push(decodeMessage(packet.bytes, packet.fds, 'partition'));
      this.doorbell = packet.fds[0] ?? this.doorbell;
      opened.push(...packet.fds);
    }
  }

  say(...messages: readonly (FabricMessage | Buffer)[]): void {
    for (const message of messages)
      assert.ok(sendPacket(this.fd, Buffer.isBuffer(message) ? message : encodeMessage(message)));
    if (this.doorbell >= 0) ringSocket(this.doorbell);
  }
}

/** Joins one that says these words at once, with one ring of the doorbell. */
function joinOne(...words: readonly (FabricMessage | Buffer)[]): [Promise<FabricClient | null>, FalseFabric] {
  const about = { thread: 0, program: 'test' };
  const joining = FabricClient.join(connectPackets(socket), { socket, kind: 'named' }, about, heard);
  const fabric = new FalseFabric();
  fabric.say(...words);
  return [joining, fabric];
}

test('a fabric of version 1 is spoken to as such', async () => {
  const [joining, fabric] = joinOne({ ...WELCOME, version: 1 });
  const client = await joining;
  assert.ok(client);
  assert.deepEqual([client.identity.version, client.ueids, client.seid], [1, ['ISTHMUS'], null]);
  assert.equal(client.sayReachable(), false);
  assert.equal(await client.reach(GID), false);
  client.ping();
  await new Promise(setImmediate);
  fabric.listen();
  assert.deepEqual(
    fabric.heard.map(({ type }) => type),
    ['HELLO', 'PING'],
  );
  fabric.say({ type: 'PONG' }, EIDS); // not a word of version 1
  await eventually('left', () => heard.lostBecause !== null);
  assert.match(heard.lostBecause as string, /EIDS/);
});

test('who has joined knows the ids; what came with the same ring is heard, too', async () => {
  const [joining] = joinOne(
    WELCOME,
    EIDS,
    { ...EIDS, ueids: '', seid: 'S', seidEnabled: 1 },
    { type: 'SHOW', claim: 7 },
  );
  const client = await joining;
  assert.ok(client);
  assert.deepEqual([client.ueids, heard.messages], [['A', 'B'], []]);
  await eventually('heard', () => heard.has('SHOW'));
  assert.deepEqual(heard.messages, [
    { type: 'EIDS', ueids: '' },
    { type: 'SHOW', claim: 7 },
  ]);
  assert.deepEqual([client.ueids, client.seid], [[], 'S']);
  client.close();
});

test('the ids may come a while after the WELCOME: nobody has joined before', async () => {
  const [joining, fabric] = joinOne(WELCOME);
  let joined = false;
  void joining.then(() => {
    joined = true;
  });
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(!joined);
  fabric.say(EIDS);
  const client = await joining;
  assert.deepEqual(client?.ueids, ['A', 'B']);
  client?.close();
});

for (const [what, words] of [
  ['speaks version 0', [{ ...WELCOME, version: 0 }]],
  ['speaks a version of its own', [{ ...WELCOME, version: PROTOCOL_VERSION_MAX + 1 }]],
  ['welcomes twice', [WELCOME, WELCOME]],
  ['begins with the ids', [EIDS]],
  ['says something else first', [WELCOME, { type: 'PONG' }]],
  ['has an id that is none', [WELCOME, { ...EIDS, ueids: 'a' }]],
  ['has five ids', [WELCOME, { ...EIDS, ueids: 'A B C D E' }]],
  ['has an id twice', [WELCOME, { ...EIDS, ueids: 'A A' }]],
  ['has bytes of a terminal in an id', [WELCOME, { ...EIDS, seid: '\u001b[2J' }]],
] as const) {
  test(`a fabric that ${what} is not joined`, async () => {
    const [joining] = joinOne(...words);
    await assert.rejects(joining, (error) => error instanceof FabricUnavailable && error.kind === 'foreign');
  });
}

for (const [what, words] of [
  ['a table that is none', [{ ...EIDS, ueids: 'A  B' }]],
  ['a message that is cut', [encodeMessage(EIDS).subarray(0, 9)]],
  ['a question', [encodeMessage({ type: 'REACH', peer: GID })]],
] as const) {
  test(`a fabric that sends ${what} is left; who waits for it is told`, async () => {
    const [joining, fabric] = joinOne(WELCOME, EIDS);
    const client = await joining;
    assert.ok(client);
    const reached = client.reach(GID);
    fabric.say(...words);
    await eventually('left', () => heard.lostBecause !== null);
    assert.equal(await reached, false);
    assert.deepEqual(client.ueids, ['A', 'B']);
  });
}

test('who has no descriptor left to join a fabric with is told so, and leaves nothing behind', () => {
  const url = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
  const program = `
    const { openSync, closeSync } = require('node:fs');
    (async () => {
      const { connectPackets, kindOf, testDoorbell } = await import(${url('os/index.js')});
      const { FabricClient } = await import(${url('fabric/client.js')});
      await testDoorbell();
      const fd = connectPackets(process.argv[1]);
      const hoard = [];
      try { for (;;) hoard.push(openSync('/dev/null')); } catch {}
      const why = await FabricClient.join(fd, {}, { thread: 0, program: '' }, {}).catch((error) => error);
      for (const one of hoard) closeSync(one);
      console.log(why.code, kindOf(fd));
    })();`;
  const { stdout, stderr } = spawnSync(
    'sh',
    ['-c', 'ulimit -n 128; exec "$@"', 'sh', process.execPath, '-e', program, socket],
    { encoding: 'utf8' },
  );
  assert.equal(stdout, 'EMFILE closed\n', stderr);
});

test('introductions that nobody asked for, or of another kind than asked, are answers to nothing', async () => {
  const [joining, fabric] = joinOne(WELCOME, EIDS);
  const client = await joining;
  assert.ok(client);
  const other = parseGid('01234567-89ab-4def-8899-aabbccddee00');
  const answers = Promise.all([client.reach(GID), client.reach(GID)]);
  await new Promise(setImmediate);
  fabric.say({ type: 'REACHED', peer: other, reachable: 1 }, { type: 'REACHED', peer: GID, reachable: 255 });
  assert.deepEqual(await answers, [false, false]);
  fabric.listen();
  assert.deepEqual(
    fabric.heard.map(({ type }) => type),
    ['HELLO', 'REACH'],
  );
  // It is asked anew.
  const again = client.reach(GID);
  fabric.say({ type: 'REACHED', peer: GID, reachable: 1 });
  assert.equal(await again, true);
  client.close();
});

test('a fabric that ends before it has answered has hung up, for commands as well: they look for the next', async () => {
  const unread = askEids(connectPackets(socket)); // it is not even taken off the queue
  const accepted = askEids(connectPackets(socket));
  const fd = acceptPackets(listener);
  assert.ok(fd !== null);
  closeFd(fd);
  closeFd(listener);
  assert.deepEqual(await Promise.all([unread, accepted]), [null, null]);
  rmSync(socket);
  listener = listenPackets(socket);
});

test('commands say what they make of such fabrics', async () => {
  const asked = (words: readonly (FabricMessage | Buffer)[], what: (fd: number) => Promise<unknown> = askEids) => {
    const answer = what(connectPackets(socket));
    new FalseFabric().say(...words);
    return answer;
  };
  const change = (fd: number) => askEidChange(fd, 1, 'A');
  const tooOld = { type: 'REFUSED', reason: 3, text: 'a message that breaks the protocol' } as const;
  await assert.rejects(asked([tooOld]), /EID_SHOW: it is of an older version/);
  await assert.rejects(asked([tooOld], change), /EID_CHANGE: it is of an older version/);
  await assert.rejects(asked([{ ...tooOld, reason: 4, text: 'not allowed' }], change), /refused: not allowed/);
  await assert.rejects(asked([{ ...EIDS, ueids: 'a' }]), TypeError);
  await assert.rejects(asked([encodeMessage(EIDS).subarray(0, 9)]), { code: 'ERR_ISTHMUS_FABRIC_WIRE' });
  assert.deepEqual(await asked([{ type: 'PONG' }, EIDS]), { ueids: ['A', 'B'], seid: null, seidEnabled: false });
});
