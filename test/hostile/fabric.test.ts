/** Partitions that lie to a fabric, and a fabric that is none: whatever they do, connections of other programs go on moving. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, chownSync, mkdirSync, openSync, readdirSync, renameSync, symlinkSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { constants } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { askEidChange } from '../../src/fabric/ask.ts';
import { FabricUnavailable } from '../../src/fabric/client.ts';
import {
  decodeMessage,
  decodePacket,
  type EidChange,
  encodeMessage,
  type MessageByName,
} from '../../src/fabric/protocol.ts';
import { type Gid, randomGid } from '../../src/ism/index.ts';
import {
  acceptPackets,
  Closer,
  closeFd,
  connectPackets,
  createPipe,
  duplicateFd,
  listenPackets,
  peerCredentials,
  receivePacket,
  sendPacket,
  socketCookie,
  streamSocketPair,
  testDoorbell,
} from '../../src/os/index.ts';
import { eventually } from '../../src/testing/index.ts';
import { announcement, fdOf, isListening, RawPartition } from '../integration/raw-partition.ts';
import { PRELUDE, type Program, Stage } from '../integration/two-programs.ts';
import { linger } from './linger.ts';

/** Accepts and answers. */
const SERVER = `${PRELUDE}
  const server = net.createServer((socket) => socket.pipe(socket));
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
`;
/** Makes a connection when told, and writes until it is told to end. */
const CLIENT = `${PRELUDE}
  setInterval(() => {}, 1000);
  let socket, sent = 0, got = 0, wrong = 0;
  told('connect', () => {
    sent = got = 0;
    socket = net.connect(+args[0], '127.0.0.1');
    socket.on('data', (chunk) => { for (const byte of chunk) if (byte !== byteAt(got++)) wrong++; });
    const writing = setInterval(() => socket.write(pattern(sent++, 1)), 5);
    told('end', () => { clearInterval(writing); socket.end(); });
    socket.on('error', (error) => tell('error ' + error.code));
    socket.on('close', () => { tell('over ' + (got === sent) + ' ' + wrong); });
  });
`;

const FABRIC = fileURLToPath(new URL('../../isthmus-fabric.js', import.meta.url));
const socketPath = () => join(stage.directory, 'fabric.sock');

let stage: Stage;
let server: Program;
let client: Program;
const attackers: Attacker[] = [];
const opened: Socket[] = [];
/** Joining alone keeps no program running. */
let alive: NodeJS.Timeout;

beforeEach(async () => {
  alive = setInterval(() => {}, 1000);
  await testDoorbell();
  stage = new Stage();
  server = stage.run(SERVER);
  client = stage.run(CLIENT, [await server.says('port ')]);
});
afterEach(async () => {
  clearInterval(alive);
  for (const attacker of attackers.splice(0)) attacker.client.close();
  for (const socket of opened.splice(0)) socket.destroy();
  await stage.close();
});

/** A new connection of two programs that know nothing of all this moves, and all its bytes come back. */
async function othersMove(): Promise<void> {
  const before = client.lines.length;
  const port = Number(await server.says('port '));
  client.tell('connect');
  const why = () => client.connections.map(({ mode, reason }) => `${mode} ${reason.name}`);
  for (const end = Date.now() + 15_000; ; await new Promise((resolve) => setTimeout(resolve, 10))) {
    if (client.connections.some(({ mode, peer }) => mode === 'SMC-D' && peer?.port === port)) break;
    assert.ok(Date.now() < end, `not moved: ${why()} ${client.stderr}`);
  }
  client.tell('end');
  await eventually('over', () => client.lines.length > before);
  assert.deepEqual(client.lines.slice(before), ['over true 0']);
}

class Attacker extends RawPartition {
  static async join(): Promise<Attacker> {
    const attacker = new Attacker();
    await attacker.joins(stage.env());
    attackers.push(attacker);
    return attacker;
  }

  override introduced(message: MessageByName<'INTRODUCE'>, fds: readonly [number, number, number]): void {
    this.messages.push(message);
    for (const fd of fds) closeFd(fd);
  }
}

/** Two ends of one connection in this process. */
async function tcpPair(): Promise<readonly [Socket, Socket]> {
  const listener = createServer({ allowHalfOpen: true });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const one = connect({ port: (listener.address() as { port: number }).port, host: '127.0.0.1', allowHalfOpen: true });
  const [[other]] = (await Promise.all([once(listener, 'connection'), once(one, 'connect')])) as [[Socket], unknown];
  listener.close();
  for (const socket of [one, other]) opened.push(socket.on('error', () => {}));
  return [one, other];
}

/** Whoever closes it last waits for its bytes, of which the kernel has so many, and which nobody reads. */
async function lingering(): Promise<{ readonly one: Socket; readonly other: Socket; readonly taken: number }> {
  const [one, other] = await tcpPair();
  other.pause();
  const bytes = Buffer.alloc(16 << 20); // more than it takes
  one.write(bytes);
  linger(fdOf(one), 60);
  const { writeQueueSize } = (one as unknown as { _handle: { writeQueueSize: number } })._handle;
  return { one, other, taken: bytes.length - writeQueueSize };
}

async function fabricPid(): Promise<number> {
  const fd = connectPackets(socketPath());
  const { pid } = peerCredentials(fd);
  closeFd(fd);
  return pid;
}

test('a socket that lingers is closed all the same: nobody waits for it, and its bytes arrive', async () => {
  const { one, other, taken } = await lingering();
  const [liar, honest] = [await Attacker.join(), await Attacker.join()];
  liar.announce(1, one);
  honest.announce(1, other);
  await Promise.all([liar.hears({ type: 'SHOW' }), honest.hears({ type: 'SHOW' })]);
  liar.shows(1, fdOf(one));
  one.destroy(); // the fabric has the last descriptor
  honest.shows(1, fdOf(other));
  await othersMove();
  await liar.hears({ type: 'DECLINED', claim: 1, reason: 3 });
  await honest.hears({ type: 'RELEASED', claim: 1 });
  let received = 0;
  for await (const chunk of other) received += (chunk as Buffer).length;
  assert.equal(received, taken);
});

test('many that linger, of which some were sent without being asked for and some are never taken, keep nobody waiting', async () => {
  await othersMove();
  const closer = new Closer();
  // More than there are helper threads.
  for (let i = 0; i < 70; i++) {
    const { one } = await lingering();
    const attacker = await Attacker.join();
    for (let count = 0; count < 3; count++) attacker.shows(1, fdOf(one));
    await new Promise(setImmediate); // they are out
    const last = duplicateFd(fdOf(one)); // if the fabric has none
    one.destroy();
    await once(one, 'close');
    closer.close(last);
  }
  await othersMove();
  await eventually('all are hung up on', () => attackers.every(({ lostBecause }) => lostBecause !== null));
});

test('what is no socket of that connection is declined, and the other end waits on', async () => {
  const [one, other] = await tcpPair();
  const [stranger] = await tcpPair();
  const [liar, honest] = [await Attacker.join(), await Attacker.join()];
  const pipe = createPipe();
  const pair = streamSocketPair();
  const device = openSync('/dev/null', 'r');
  honest.announce(1, other);
  let claim = 1;
  for (const fd of [pipe.readFd, pipe.writeFd, pair[0], device, fdOf(stranger), fdOf(other)]) {
    liar.announce(++claim, one);
    await Promise.all([liar.hears({ type: 'SHOW', claim }), honest.hears({ type: 'SHOW', claim: 1 })]);
    liar.shows(claim, fd);
    honest.shows(1, fdOf(other));
    await liar.hears({ type: 'DECLINED', claim, reason: 2 });
    await honest.hears({ type: 'RELEASED', claim: 1 });
    honest.messages.length = 0;
  }
  for (const fd of [pipe.readFd, pipe.writeFd, ...pair, device]) closeFd(fd);
  // With the truth it comes to its match.
  liar.announce(++claim, one);
  await Promise.all([liar.hears({ type: 'SHOW', claim }), honest.hears({ type: 'SHOW', claim: 1 })]);
  liar.shows(claim, fdOf(one));
  honest.shows(1, fdOf(other));
  await Promise.all([liar.hears({ type: 'MATCHED', claim }), honest.hears({ type: 'MATCHED', claim: 1 })]);
  await othersMove();
});

/** A partition without manners: bytes as they are, and nothing read but what is asked for. */
function rawPartition(version = 1): { fd: number; close(): void } {
  const fd = connectPackets(socketPath());
  const [mine, theirs] = streamSocketPair();
  const hello = { type: 'HELLO', versionMin: 1, versionMax: version, thread: 0, program: 'raw' } as const;
  assert.ok(sendPacket(fd, encodeMessage(hello), [theirs]));
  closeFd(theirs);
  return {
    fd,
    close() {
      closeFd(fd);
      closeFd(mine);
    },
  };
}

/** Reads until the fabric has hung up; the types of what it said. */
async function lastWords(fd: number): Promise<string[]> {
  const types: string[] = [];
  await eventually('hung up', () => {
    for (let packet = receivePacket(fd); packet !== null; packet = receivePacket(fd)) {
      if (packet === 'end') return true;
      types.push(decodeMessage(packet.bytes, packet.fds, 'fabric').type);
    }
    return false;
  });
  return types;
}

test('wrong numbers of descriptors, cut and swollen messages: that partition is refused, and nothing is kept', async () => {
  await othersMove();
  await Attacker.join(); // a fabric that nobody has joined would end
  const [one] = await tcpPair();
  const pid = await fabricPid();
  const descriptors = () => readdirSync(`/proc/${pid}/fd`).length;
  const before = descriptors();
  const good = encodeMessage(announcement(1, one));
  const { readFd, writeFd } = createPipe();
  const shown = encodeMessage({ type: 'SHOWN', claim: 1 });
  for (const [bytes, fds] of [
    [shown, []],
    [shown, [readFd, writeFd]],
    [shown, [readFd, readFd, readFd]],
    [good, [readFd]],
    [encodeMessage({ type: 'PING' }), [readFd]],
    ...Array.from({ length: good.length - 1 }, (_, i) => [good.subarray(0, i + 1), []] as const),
    [Buffer.concat([good, Buffer.from([0])]), []],
    [Buffer.concat([good, good]), []],
    [Buffer.alloc(60_000, 2), []],
    [encodeMessage({ type: 'RELEASED', claim: 1 }), []],
    [encodeMessage({ type: 'EIDS', ueids: '', seid: '', seidEnabled: 0 }), []],
    [encodeMessage({ type: 'EID_CHANGED', error: 0, text: '' }), []],
    [encodeMessage({ type: 'EID_CHANGE', change: 3, ueid: '' }).subarray(0, 5), []],
    [encodeMessage({ type: 'EID_CHANGE', change: 3, ueid: '' }), [readFd]],
    // Of a version that this partition does not speak.
    [encodeMessage({ type: 'REACHABLE' }), []],
    [encodeMessage({ type: 'REACH', peer: randomGid() }), []],
    [encodeMessage({ type: 'HELLO', versionMin: 1, versionMax: 1, thread: 0, program: 'again' }), [readFd]],
  ] as const) {
    const attacker = rawPartition();
    assert.ok(sendPacket(attacker.fd, bytes, fds));
    assert.deepEqual(await lastWords(attacker.fd), ['WELCOME', 'REFUSED'], bytes.toString('hex', 0, 60));
    attacker.close();
  }
  closeFd(readFd);
  closeFd(writeFd);
  await eventually('descriptors are closed', () => descriptors() <= before);
  await othersMove();
});

/** A fabric that soon has enough of a user; others move on it all the same. */
async function withNarrowFabric(attack: () => Promise<void>): Promise<void> {
  const limits = { announcementsPerSecond: 50, announcementBurst: 1000, waitingDescriptorsPerUser: 60 };
  const fabric = spawn(process.execPath, [FABRIC, JSON.stringify({ socket: socketPath(), idleMs: null, limits })]);
  try {
    await eventually('a fabric', () => isListening(socketPath()));
    await attack();
    // The limit is the user's: its other programs have to wait a moment, too.
    await new Promise((resolve) => setTimeout(resolve, 200));
    await othersMove();
  } finally {
    fabric.kill();
    await once(fabric, 'exit');
  }
}

test('a flood of announcements is answered with its limit, and is over when it is over', async () => {
  await withNarrowFabric(async () => {
    const [one] = await tcpPair();
    const attacker = await Attacker.join();
    for (let claim = 1; !attacker.has('DECLINED'); claim++) {
      assert.ok(claim < 65_536, 'there is a limit');
      try {
        const local = { address: `127.1.${claim >> 8}.${claim & 0xff}`, port: 1 };
        attacker.announce(claim, one, { local, socketCookie: BigInt(claim) });
        await new Promise((resolve) => setImmediate(resolve));
      } catch (error) {
        // Its queue is full: it has not had the CPU for a while. Nobody waits for it, and neither did we.
        assert.ok(error instanceof FabricUnavailable);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
    assert.deepEqual(new Set(attacker.messages.map((one) => ('reason' in one ? one.reason : one.type))), new Set([4]));
    assert.equal(attacker.lostBecause, null);
    attacker.client.close();
  });
});

/** Connects, says half of a message and hangs up, as fast as it can. */
const FLOOD = `${PRELUDE}
  const { closeFd, connectPackets, sendPacket } = await import(${JSON.stringify(new URL('../../src/os/index.js', import.meta.url).href)});
  let count = 0;
  const flood = () => {
    for (let i = 0; i < 20; i++) {
      try {
        const fd = connectPackets(args[0]);
        sendPacket(fd, Buffer.from([1, 2, 3]));
        closeFd(fd);
        if (++count === 3000) tell('flooding'); // more than are let in at once
      } catch {} // its queue is full
    }
    setImmediate(flood);
  };
  flood();
`;

// Its user may not connect any more meanwhile; who has joined goes on.
test('a flood of connections with half messages keeps nobody who has joined from moving', async () => {
  const staying = { ISTHMUS_LINGER_MS: '60000' };
  server = stage.run(SERVER, [], staying);
  client = stage.run(CLIENT, [await server.says('port ')], staying);
  await othersMove();
  const flood = stage.run(FLOOD, [socketPath()], { NODE_OPTIONS: '' });
  await flood.says('flooding');
  client.lines.length = 0;
  await othersMove();
  assert.equal(flood.child.exitCode, null, 'it is still at it');
  flood.child.kill('SIGKILL');
  await flood.exited;
});

test('who guesses GIDs is told no, to its limit and beyond; nobody is introduced to it', async () => {
  await withNarrowFabric(async () => {
    const [attacker, honest] = [await Attacker.join(), await Attacker.join()];
    assert.ok(honest.client.sayReachable());
    for (let round = 0; round < 20; round++) {
      const answers = await Promise.all(Array.from({ length: 50 }, () => attacker.client.reach(randomGid())));
      assert.ok(!answers.includes(true));
    }
    assert.deepEqual([attacker.messages, honest.messages, attacker.lostBecause], [[], [], null]);
    attacker.client.close();
  });
});

test('who lets descriptors pile up in the fabric is hung up on', async () => {
  await withNarrowFabric(async () => {
    const sleeper = rawPartition(3);
    assert.ok(sendPacket(sleeper.fd, encodeMessage({ type: 'REACHABLE' })));
    let gid: Gid | null = null;
    await eventually('a GID', () => {
      const packet = receivePacket(sleeper.fd);
      if (packet === null || packet === 'end') return false;
      for (const { message } of decodePacket(packet.bytes, packet.fds, 'fabric', 64))
        if (message.type === 'WELCOME') gid = message.gid;
      return gid !== null;
    });
    const peer = gid as unknown as Gid;
    const attacker = await Attacker.join();
    let pairs = 0;
    while (await attacker.client.reach(peer)) {
      pairs++;
      const introduced = attacker.messages.filter(({ type }) => type === 'INTRODUCE').at(-1);
      attacker.client.send({ type: 'PAIR_GONE', peer, pair: (introduced as MessageByName<'INTRODUCE'>).pair });
    }
    assert.ok(pairs > 20 && pairs < 900, `${pairs} pairs`);
    sleeper.close();
    attacker.client.close();
  });
});

test('bad ids are refused in words, whoever asks; programs that run keep theirs', async () => {
  await othersMove();
  const attacker = await Attacker.join();
  for (const ueid of ['', 'a', '..', 'A\0', 'Ä', '\u001b[2J', 'X'.repeat(33), 'X'.repeat(32_768)]) {
    for (const change of [1, 2, 0, 6, 255]) {
      const answer = await askEidChange(connectPackets(socketPath()), change as EidChange, ueid);
      assert.equal(answer?.error, constants.errno.EINVAL, `${change} ${ueid}`);
    }
  }
  assert.deepEqual([attacker.messages, attacker.client.ueids], [[], ['ISTHMUS']]);
  await othersMove();
});

test('who never reads what it asked for is hung up on', async () => {
  await othersMove();
  const attacker = rawPartition();
  const ping = encodeMessage({ type: 'PING' }); // the shortest answer of all
  let sent = 0;
  for (let isOpen = true; isOpen; ) {
    try {
      if (sendPacket(attacker.fd, ping)) sent++;
      else await new Promise((resolve) => setTimeout(resolve, 1));
    } catch {
      isOpen = false;
    }
    assert.ok(sent < 100_000, 'there is a limit');
    if (sent % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  attacker.close();
  await othersMove();
});

test('a claim of a connection that has gone does not match the next one of the same names', async (t) => {
  const [liar, honest] = [await Attacker.join(), await Attacker.join()];
  const accepted: Socket[] = [];
  const listener = createServer((socket) => accepted.push(socket.on('error', () => {})));
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  t.after(() => listener.close());
  const { port } = listener.address() as { port: number };
  // Not one of those that the kernel gives to others in between.
  const localPort = randomInt(20_000, 32_000);
  const connected = async (): Promise<readonly [Socket, Socket]> => {
    const socket = connect({ port, host: '127.0.0.1', localAddress: '127.0.0.1', localPort });
    opened.push(socket.on('error', () => {}));
    await once(socket, 'connect');
    await eventually('accepted', () => accepted.length > 0);
    const other = accepted.shift() as Socket;
    opened.push(other);
    return [socket, other];
  };
  const [old, oldOther] = await connected();
  liar.announce(1, old);
  const closed = new Promise((resolve) => oldOther.once('close', resolve));
  old.resetAndDestroy(); // no TIME_WAIT
  await closed;
  const [next, nextOther] = await connected();
  honest.announce(1, nextOther);
  await Promise.all([liar.hears({ type: 'SHOW', claim: 1 }), honest.hears({ type: 'SHOW', claim: 1 })]);
  liar.shows(1, fdOf(next));
  honest.shows(1, fdOf(nextOther));
  await liar.hears({ type: 'DECLINED', claim: 1, reason: 2 });
  await honest.hears({ type: 'RELEASED', claim: 1 });
  assert.ok(![...liar.messages, ...honest.messages].some(({ type }) => type === 'MATCHED' || type === 'INTRODUCE'));
  await othersMove();
});

test('a socket that two partitions announce is refused to both; who holds the other end waits', async () => {
  const [one, other] = await tcpPair();
  const [first, second, honest] = [await Attacker.join(), await Attacker.join(), await Attacker.join()];
  first.announce(1, one);
  second.announce(2, one);
  await Promise.all([
    first.hears({ type: 'DECLINED', claim: 1, reason: 1 }),
    second.hears({ type: 'DECLINED', claim: 2, reason: 1 }),
  ]);
  honest.announce(3, other);
  await othersMove();
  assert.deepEqual(honest.messages, []);
});

test('who announces a connection of others under a cookie of its own does not keep them apart', async () => {
  const [one, other] = await tcpPair();
  const [stranger] = await tcpPair();
  const [liar, first, second] = [await Attacker.join(), await Attacker.join(), await Attacker.join()];
  liar.announce(1, one, { socketCookie: socketCookie(fdOf(stranger)) });
  second.announce(1, other);
  await Promise.all([liar.hears({ type: 'SHOW' }), second.hears({ type: 'SHOW' })]);
  first.announce(1, one);
  liar.shows(1, fdOf(stranger));
  second.shows(1, fdOf(other));
  await liar.hears({ type: 'DECLINED', claim: 1, reason: 2 });
  await first.hears({ type: 'SHOW', claim: 1 });
  await eventually('asked again', () => second.messages.filter(({ type }) => type === 'SHOW').length === 2);
  first.shows(1, fdOf(one));
  second.shows(1, fdOf(other));
  await Promise.all([first.hears({ type: 'MATCHED' }), second.hears({ type: 'MATCHED' })]);
  assert.ok(!liar.has('INTRODUCE'));
  await othersMove();
});

const OTHER_USER = 12345;

for (const [what, prepare, skip] of [
  ['in a directory that others may write', (place: string) => chmodSync(place, 0o777), false],
  [
    'behind a link',
    (place: string) => {
      renameSync(place, `${place}-real`);
      symlinkSync(`${place}-real`, place);
    },
    false,
  ],
  [
    'in a directory of somebody else',
    (place: string) => chownSync(place, OTHER_USER, OTHER_USER),
    process.getuid?.() !== 0 && 'needs root to give a directory away',
  ],
  [
    'whose socket is of somebody else',
    (place: string) => chownSync(join(place, 'fabric.sock'), OTHER_USER, OTHER_USER),
    process.getuid?.() !== 0 && 'needs root to give a socket away',
  ],
] as const) {
  test(`a fabric ${what} is shown nothing; programs stay on TCP and say why`, { skip }, async () => {
    const place = join(stage.directory, 'elsewhere');
    mkdirSync(place, { mode: 0o700 });
    const listener = listenPackets(join(place, 'fabric.sock'));
    prepare(place);
    const env = { ISTHMUS_RUNTIME_DIR: place };
    const misled = stage.run(SERVER, [], env);
    const port = await misled.says('port ');
    const follower = stage.run(CLIENT, [port], env);
    follower.tell('connect');
    for (const program of [misled, follower]) {
      await eventually('the reason is known', () =>
        program.connections.some(({ mode, reason }) => mode === 'TCP' && reason.name === 'UNTRUSTED'),
      );
    }
    follower.tell('end');
    assert.equal(await follower.says('over '), 'true 0');
    for (const program of [misled, follower]) {
      program.child.kill('SIGKILL');
      await program.exited;
    }
    let callers = 0;
    for (let fd = acceptPackets(listener); fd !== null; fd = acceptPackets(listener)) {
      callers++;
      assert.equal(receivePacket(fd), 'end', 'it was told nothing');
      closeFd(fd);
    }
    assert.ok(callers > 0);
    closeFd(listener);
    await othersMove();
  });
}
