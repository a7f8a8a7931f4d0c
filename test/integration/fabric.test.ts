import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { type FabricClient, FabricUnavailable, findFabric, joinFabric } from '../../src/fabric/client.ts';
import { encodeMessage, type MessageByName } from '../../src/fabric/protocol.ts';
import { runFabric } from '../../src/fabric/run.ts';
import { askStatus } from '../../src/fabric/status.ts';
import { parseGid } from '../../src/ism/index.ts';
import {
  closeFd,
  connectPackets,
  createPipe,
  localName,
  netnsCookie,
  peerName,
  receivePacket,
  sendPacket,
  socketCookie,
  testDoorbell,
} from '../../src/os/index.ts';
import { eventually } from '../../src/testing/index.ts';
import { joinPatiently, Recorder } from './recorder.ts';

let directory: string;
let env: NodeJS.ProcessEnv;
const clients: FabricClient[] = [];
/** Joining alone keeps no program running. */
let alive: NodeJS.Timeout;

beforeEach(async () => {
  alive = setInterval(() => {}, 1000);
  await testDoorbell();
  directory = mkdtempSync(join(tmpdir(), 'isthmus-fabric-'));
  env = { ...process.env, ISTHMUS_RUNTIME_DIR: directory, ISTHMUS_FABRIC_IDLE_MS: '300' };
});
afterEach(async () => {
  clearInterval(alive);
  for (const client of clients.splice(0)) client.close();
  await eventually('the fabric has ended by itself', () => !existsSync(join(directory, 'fabric.sock')));
  rmSync(directory, { recursive: true });
});

async function member(): Promise<{ client: FabricClient; heard: Recorder }> {
  const heard = new Recorder();
  const client = await joinPatiently({ thread: 0, program: 'fabric.test' }, heard, env);
  clients.push(client);
  return { client, heard };
}

async function tcpPair(): Promise<{ one: Socket; other: Socket; end(): void }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const one = connect((server.address() as { port: number }).port, '127.0.0.1');
  const [[other]] = (await Promise.all([once(server, 'connection'), once(one, 'connect')])) as [[Socket], unknown];
  return {
    one,
    other,
    end() {
      one.destroy();
      other.destroy();
      server.close();
    },
  };
}
const fdOf = (socket: Socket) => (socket as unknown as { _handle: { fd: number } })._handle.fd;

function announcement(claim: number, socket: Socket, role: number): MessageByName<'ANNOUNCE'> {
  const fd = fdOf(socket);
  return {
    type: 'ANNOUNCE',
    claim,
    role,
    local: localName(fd),
    peer: peerName(fd),
    netnsCookie: netnsCookie(fd),
    socketCookie: socketCookie(fd),
  };
}

test('two partitions find each other by a connection, and the fabric ends when nobody uses it', async () => {
  const [a, b] = [await member(), await member()];
  assert.notEqual(a.client.identity.gid, b.client.identity.gid);
  assert.equal(a.client.identity.incarnation, b.client.identity.incarnation);
  const { one, other, end } = await tcpPair();
  a.client.send(announcement(1, one, 0));
  b.client.send(announcement(1, other, 1));
  await eventually('asked to show', () => a.heard.has('SHOW') && b.heard.has('SHOW'));
  a.client.show(1, () => fdOf(one));
  b.client.show(1, () => fdOf(other));
  await eventually('matched', () => a.heard.has('MATCHED') && b.heard.has('MATCHED'));
  assert.deepEqual(
    a.heard.messages.map(({ type }) => type),
    ['SHOW', 'INTRODUCE', 'MATCHED'],
  );
  // The pair is of two ends that hear each other.
  const [channelA] = a.heard.fds;
  assert.ok(channelA !== undefined && sendPacket(channelA, Buffer.from('hello')));
  for (const fd of [...a.heard.fds, ...b.heard.fds]) closeFd(fd);
  // What was shown is closed again: a FIN gets through.
  const closed = once(other, 'end');
  other.resume();
  one.destroy();
  await closed;
  end();
});

const STRANGER = parseGid('01234567-89ab-4def-8899-aabbccddeeff');

test('who knows the GID of a reachable partition gets a pair with it, before the answer', async () => {
  const [a, b] = [await member(), await member()];
  const { gid } = b.client.identity;
  assert.equal(await a.client.reach(gid), false, 'it has not said that it may be reached');
  assert.ok(b.client.sayReachable());
  assert.equal(await b.client.reach(STRANGER), false); // answered after it was heard
  const both = Promise.all([a.client.reach(gid), a.client.reach(gid)]).then((answers) => {
    assert.deepEqual(
      a.heard.messages.map(({ type }) => type),
      ['INTRODUCE'],
    );
    return answers;
  });
  assert.deepEqual(await both, [true, true]);
  await eventually('introduced', () => b.heard.has('INTRODUCE'));
  const [channelA] = a.heard.fds;
  const [channelB] = b.heard.fds;
  assert.ok(channelA !== undefined && channelB !== undefined && sendPacket(channelA, Buffer.from('hello')));
  const packet = receivePacket(channelB);
  assert.ok(packet !== null && packet !== 'end' && packet.bytes.toString() === 'hello');
  for (const fd of [...a.heard.fds, ...b.heard.fds]) closeFd(fd);
});

test('who waits for an introduction when the fabric goes, or is left, is told no', async () => {
  const [a, b] = [await member(), await member()];
  const pid = await fabricPid();
  process.kill(pid, 'SIGSTOP');
  const [lost, left] = [a.client.reach(STRANGER), b.client.reach(STRANGER)];
  try {
    b.client.close();
    assert.equal(await left, false);
    assert.equal(await b.client.reach(STRANGER), false);
    assert.equal(b.client.sayReachable(), false);
  } finally {
    process.kill(pid, 'SIGKILL');
  }
  assert.equal(await lost, false);
  await member(); // a fabric that ends by itself
});

test('twenty programs start one fabric', async () => {
  const program = `
    import { joinFabric } from ${JSON.stringify(new URL('../../src/fabric/client.js', import.meta.url).href)};
    const nobody = { introduced() {}, show() {}, released() {}, matched() {}, declined() {}, silent() {}, lost() {} };
    process.stdin.on('end', () => process.exit()).resume();
    const join = () => joinFabric({ thread: 0, program: 'one of twenty' }, nobody).catch((error) => {
      if (error.kind !== 'silent') throw error; // it is busy with the others
      return join();
    });
    const client = await join();
    process.stdout.write(String(client.identity.incarnation));
  `;
  const programs = Array.from({ length: 20 }, () => {
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      env: { ...env, ISTHMUS_FABRIC_IDLE_MS: '2000' },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const closed = once(child, 'close');
    return { child, closed, spoken: Promise.race([once(child.stdout, 'data').then(String), closed]) };
  });
  // Who has joined stays until all have: else a late one would start another.
  const outputs = await Promise.all(programs.map(({ spoken }) => spoken));
  for (const { child } of programs) child.stdin.end();
  await Promise.all(programs.map(({ closed }) => closed));
  assert.equal(new Set(outputs).size, 1);
  assert.match(String(outputs[0]), /^\d+$/);
});

test('a program that starts the fabric is not kept by it: $(program) returns', async () => {
  const program = `
    import { joinFabric } from ${JSON.stringify(new URL('../../src/fabric/client.js', import.meta.url).href)};
    const nobody = { introduced() {}, show() {}, released() {}, matched() {}, declined() {}, silent() {}, lost() {} };
    const alive = setInterval(() => {}, 100);
    await joinFabric({ thread: 0, program: 'short' }, nobody);
    console.log('done');
    process.exit();
  `;
  const shell = spawn('sh', ['-c', `out=$("$NODE" --input-type=module --eval "$PROGRAM"); echo "got $out"`], {
    env: {
      ...env,
      NODE: process.execPath,
      PROGRAM: program,
      NODE_OPTIONS: '--no-warnings',
      ISTHMUS_FABRIC_IDLE_MS: '6000',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  shell.stdout.on('data', (chunk) => (output += chunk));
  const started = Date.now();
  await once(shell, 'close');
  assert.equal(output, 'got done\n');
  assert.ok(existsSync(join(directory, 'fabric.sock')), `the fabric runs on (${Date.now() - started} ms)`);
});

test('a fabric keeps nothing of the program that started it', async () => {
  const { client } = await member();
  const pid = await fabricPid();
  const entries = readdirSync(`/proc/${pid}/fd`).length;
  assert.ok(entries < 30, `${entries} descriptors`);
  const { readFileSync, readlinkSync } = await import('node:fs');
  for (const fd of ['0', '1', '2']) assert.equal(readlinkSync(`/proc/${pid}/fd/${fd}`), '/dev/null');
  assert.equal(readlinkSync(`/proc/${pid}/cwd`), '/');
  const names = readFileSync(`/proc/${pid}/environ`, 'latin1')
    .split('\0')
    .map((line) => line.split('=')[0]);
  assert.ok(!names.includes('NODE_OPTIONS') && !names.includes('ISTHMUS_RUNTIME_DIR'), names.join());
  const session = (id: number | string) => readFileSync(`/proc/${id}/stat`, 'utf8').split(') ')[1]?.split(' ')[3];
  assert.notEqual(session(pid), session('self'));
  client.close();
});

async function fabricPid(): Promise<number> {
  const found = findFabric(env);
  assert.ok(found);
  const { peerCredentials } = await import('../../src/os/index.ts');
  const { pid } = peerCredentials(found.fd);
  closeFd(found.fd);
  return pid;
}

test('when the fabric is killed its partitions are told, and the next one starts it anew', async () => {
  const first = await member();
  process.kill(await fabricPid(), 'SIGKILL');
  await eventually('told', () => first.heard.lostBecause !== null);
  const second = await member();
  assert.notEqual(second.client.identity.incarnation, first.client.identity.incarnation);
});

test('a fabric that is stopped is reported as silent', async () => {
  await member();
  const pid = await fabricPid();
  process.kill(pid, 'SIGSTOP');
  try {
    const joining = joinFabric({ thread: 0, program: 'fabric.test' }, new Recorder(), env);
    await assert.rejects(joining, (error) => error instanceof FabricUnavailable && error.kind === 'silent');
  } finally {
    process.kill(pid, 'SIGCONT');
  }
});

test('a fabric at a place where others can write is not trusted', async () => {
  await member();
  chmodSync(directory, 0o777);
  assert.throws(
    () => findFabric(env),
    (error) => error instanceof FabricUnavailable && error.kind === 'untrusted',
  );
  chmodSync(directory, 0o700);
});

test('a directory that is a link, or not ours, is not used', async () => {
  const link = `${directory}-link`;
  symlinkSync(directory, link);
  const unusable = { ...env, ISTHMUS_RUNTIME_DIR: link };
  await assert.rejects(
    joinFabric({ thread: 0, program: '' }, new Recorder(), unusable),
    (error) => error instanceof FabricUnavailable && /not a directory/.test(error.message),
  );
  rmSync(link);
});

test('a fabric of another user is not trusted', {
  skip: process.getuid?.() !== 0 && 'needs root to become somebody else',
}, async () => {
  // The directory belongs to us, so somebody else can be behind the socket only if we let them: connect through a named place and
  // look at the credentials as for an own one.
  const { distrustPeer } = await import('../../src/fabric/locate.ts');
  const socket = join(directory, 'other.sock');
  chmodSync(directory, 0o777);
  const program = `
    import { listenPackets } from ${JSON.stringify(new URL('../../src/os/index.js', import.meta.url).href)};
    process.setuid(12345);
    listenPackets(${JSON.stringify(socket)});
    console.log('ready');
    setInterval(() => {}, 1000);
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  const fd = connectPackets(socket);
  assert.match(distrustPeer({ socket, kind: 'own' }, fd)?.message ?? '', /of user 12345/);
  closeFd(fd);
  await ended(child);
});

async function ended(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

test('nonsense, half messages and descriptors of the wrong kind end that connection alone', async () => {
  const good = await member();
  const { socket } = good.client.identity.place;
  const pipe = createPipe();
  for (const [bytes, fds] of [
    [Buffer.from('nonsense'), []],
    [Buffer.alloc(0), [pipe.readFd]],
    [Buffer.from([1, 0, 0, 0]), []],
    [Buffer.from([1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]), [pipe.readFd]], // HELLO with a pipe as doorbell
    [Buffer.from([2]), []],
    [Buffer.alloc(65536, 1), [pipe.readFd, pipe.writeFd]],
  ] as const) {
    const fd = connectPackets(socket);
    sendPacket(fd, bytes, fds);
    await eventually('hung up', () => hasHungUp(fd));
    closeFd(fd);
  }
  closeFd(pipe.readFd);
  closeFd(pipe.writeFd);
  const another = await member();
  assert.equal(another.client.identity.incarnation, good.client.identity.incarnation);
});

test('a status of any length is told, in parts', async () => {
  const programs = ['ä'.repeat(200), '\u0007\u2028"\\'.repeat(50), 'é'.repeat(200)];
  const heard = new Recorder();
  for (let i = 0; i < 150; i++) {
    clients.push(await joinPatiently({ thread: i, program: programs[i % 3] as string }, heard, env));
  }
  for (let round = 0; round < 2; round++) {
    const found = findFabric(env);
    assert.ok(found);
    const json = await askStatus(found.fd);
    assert.match(json, /^[ -~]*$/);
    const { partitions } = JSON.parse(json) as { partitions: { thread: number; program: string }[] };
    assert.deepEqual(
      partitions.map(({ program }) => program),
      Array.from({ length: 150 }, (_, i) => programs[i % 3]),
    );
  }
  assert.equal(heard.lostBecause, null);
});

test('a doorbell that is a socket by its name only ends that connection alone', async () => {
  const { client } = await member();
  const { socket } = client.identity.place;
  const O_PATH = 0x200000;
  const path = openSync(socket, O_PATH);
  const fd = connectPackets(socket);
  sendPacket(fd, encodeMessage({ type: 'HELLO', versionMin: 1, versionMax: 1, thread: 0, program: '' }), [path]);
  await eventually('hung up', () => hasHungUp(fd));
  closeFd(fd);
  closeSync(path);
  const another = await member();
  assert.equal(another.client.identity.incarnation, client.identity.incarnation);
});

function hasHungUp(fd: number): boolean {
  for (let packet = receivePacket(fd); packet !== null; packet = receivePacket(fd)) if (packet === 'end') return true;
  return false;
}

test('a second fabric in the same directory gives way', async () => {
  await member();
  assert.equal(
    runFabric({ socket: join(directory, 'fabric.sock'), idleMs: 1 }, () => {}),
    null,
  );
});

test('a file that stands where the socket should be is replaced by the holder of the lock', async () => {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'fabric.sock'), '');
  const { client } = await member();
  assert.equal(client.identity.place.kind, 'own');
});
