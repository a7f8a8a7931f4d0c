import assert from 'node:assert/strict';
import { execFileSync, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { check, declare } from './ffi.ts';
import * as os from './index.ts';

const setsockopt = declare('setsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'u32']);
function lingerFor(fd: number, seconds: number): void {
  check('setsockopt', setsockopt(fd, 1, 13, Buffer.from(Int32Array.of(1, seconds).buffer), 8));
}

const descriptors = () => readdirSync('/proc/self/fd').length;
let before = 0;

// The first calls open what stays open (the library itself).
os.currentCpu();
await os.testDoorbell();

beforeEach(() => {
  before = descriptors();
});
afterEach(async () => {
  for (let i = 0; descriptors() > before && i < 100; i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(descriptors(), before, 'a descriptor was left open');
});

test('shared memory is sealed in size, populated on demand and seen through every mapping', () => {
  const fd = os.createSharedMemory('isthmus-test', 1 << 20);
  assert.ok(os.isSizeSealed(fd));
  os.populate(fd, 0, 1 << 16);
  const one = new Int32Array(os.map(fd, 1 << 20));
  const other = new Int32Array(os.map(fd, 1 << 20));
  Atomics.store(one, 5, 42);
  assert.equal(Atomics.load(other, 5), 42);
  os.giveBack(fd, 0, 1 << 16);
  assert.equal(Atomics.load(one, 5), 0);
  os.closeFd(fd);
});

test('memory that is forsaken is mapped no more, and views of it can be used without reaching anybody', () => {
  const fd = os.createSharedMemory('isthmus-seen', 1 << 20);
  const [memory, other] = [os.map(fd, 1 << 20), os.map(fd, 1 << 20)];
  const [mine, theirs] = [Buffer.from(memory, 4096), Buffer.from(other, 4096)];
  mine.write('before');
  const mapped = () => readFileSync('/proc/self/maps', 'latin1').split('isthmus-seen').length - 1;
  assert.equal(mapped(), 2);
  os.forsake(memory);
  assert.equal(mapped(), 1);
  assert.equal(mine.toString('latin1', 0, 6), '\0'.repeat(6));
  mine.write('after');
  assert.equal(theirs.toString('latin1', 0, 6), 'before');
  os.forsake(memory);
  assert.equal(mine.toString('latin1', 0, 5), 'after');
  os.closeFd(fd);
});

test('a write-only descriptor can be stored to and not be mapped', () => {
  const fd = os.createSharedMemory('isthmus-test', 4096);
  const writeOnly = os.openWriteOnly(fd);
  assert.equal(os.accessMode(writeOnly), 'w');
  const memory = Buffer.from(os.map(fd, 4096));
  os.store(writeOnly, Buffer.from('hello'), 100);
  assert.equal(memory.toString('latin1', 100, 105), 'hello');
  assert.throws(() => os.map(writeOnly, 4096), { code: 'EACCES', syscall: 'mmap' });
  assert.throws(() => os.store(writeOnly, Buffer.alloc(2), 4096), { code: 'EPERM', syscall: 'pwrite' });
  assert.throws(() => os.store(writeOnly, Buffer.alloc(2), 4095), RangeError);
  os.closeFd(writeOnly);
  os.closeFd(fd);
});

test('as many descriptors as one likes are closed aside', async () => {
  const pipes = Array.from({ length: 150 }, () => os.createPipe());
  const closers = Array.from({ length: 50 }, () => new os.Closer());
  await Promise.all(
    pipes.flatMap(({ readFd, writeFd }, i) =>
      [readFd, writeFd].map((fd) => new Promise<void>((closed) => closers[i % 50]?.close(fd, closed))),
    ),
  );
});

test('sockets and others, in whatever order, are closed aside by one closer, each when it says so', async () => {
  const [held, watched] = os.streamSocketPair();
  const closer = new os.Closer();
  const fds = Array.from({ length: 300 }, () => os.duplicateFd(held));
  fds.splice(100, 0, ...Object.values(os.createPipe()), held);
  await Promise.all(fds.map((fd) => new Promise<void>((closed) => closer.close(fd, closed))));
  assert.ok(fds.every((fd) => os.kindOf(fd) === 'closed'));
  assert.equal(os.peekBytes(watched, 1), null, 'the last of it is closed, too');
  os.closeFd(watched);
});

test('a socket that lingers is closed in a moment, and its bytes arrive', async () => {
  const listener = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const client = connect((listener.address() as AddressInfo).port, '127.0.0.1');
  const [[server]] = (await Promise.all([once(listener, 'connection'), once(client, 'connect')])) as [
    [Socket],
    unknown,
  ];
  listener.close();
  client.write(Buffer.alloc(16 << 20)); // more than the kernel takes while nobody reads
  const { fd, writeQueueSize } = (client as unknown as { _handle: { fd: number; writeQueueSize: number } })._handle;
  const last = os.duplicateFd(fd);
  lingerFor(last, 60);
  client.destroy();
  await once(client, 'close');
  await new Promise<void>((closed) => new os.Closer().close(last, closed));
  let received = 0;
  for await (const chunk of server) received += (chunk as Buffer).length;
  assert.equal(received, (16 << 20) - writeQueueSize);
});

test('a TCP connection with ourselves is one, and its listening socket is gone', () => {
  const [client, server] = os.tcpPair();
  assert.deepEqual(os.peerName(client), os.localName(server));
  assert.deepEqual(os.peerName(server), os.localName(client));
  for (const fd of [client, server]) assert.equal(os.tcpInfo(fd).state, os.TCP_ESTABLISHED);
  assert.equal(descriptors(), before + 2);
  for (const fd of [client, server]) os.closeFd(fd);
});

test('errors carry code, errno and syscall', () => {
  assert.throws(() => os.peerCredentials(-1), { code: 'EBADF', errno: -9, syscall: 'getsockopt' });
});

test('a packet keeps its boundaries and brings its descriptors', () => {
  const [left, right] = os.packetSocketPair();
  const { readFd, writeFd } = os.createPipe();
  assert.equal(os.receivePacket(right), null);
  assert.ok(os.sendPacket(left, Buffer.from('one')));
  assert.ok(os.sendPacket(left, Buffer.from('two'), [readFd, writeFd]));
  const first = os.receivePacket(right);
  const second = os.receivePacket(right);
  assert.ok(first && first !== 'end' && second && second !== 'end');
  assert.equal(first.bytes.toString(), 'one');
  assert.equal(second.bytes.toString(), 'two');
  assert.deepEqual(second.fds.map(os.kindOf), ['fifo', 'fifo']);
  assert.deepEqual(second.fds.map(os.accessMode), ['r', 'w']);
  for (const fd of [readFd, writeFd, ...second.fds, left]) os.closeFd(fd);
  assert.equal(os.receivePacket(right), 'end');
  os.closeFd(right);
});

test('a full queue is reported and nothing blocks', () => {
  const [left, right] = os.packetSocketPair();
  const packet = Buffer.alloc(os.MAX_PACKET_BYTES);
  let sent = 0;
  while (os.sendPacket(left, packet)) sent++;
  assert.ok(sent > 0 && sent < 1000);
  os.closeFd(right);
  assert.throws(() => os.sendPacket(left, packet), { syscall: 'sendmsg' });
  os.closeFd(left);
});

test('credentials of a peer are those of its process', () => {
  const [left, right] = os.packetSocketPair();
  assert.deepEqual(os.peerCredentials(left), {
    pid: process.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
  });
  os.closeFd(left);
  os.closeFd(right);
});

test('a listener accepts connections by path', async (t) => {
  const path = `/tmp/isthmus-os-test-${process.pid}.sock`;
  t.after(() => import('node:fs').then((fs) => fs.rmSync(path, { force: true })));
  const listener = os.listenPackets(path);
  assert.equal(os.acceptPackets(listener), null);
  const client = os.connectPackets(path);
  const accepted = os.acceptPackets(listener);
  assert.ok(accepted !== null);
  assert.ok(os.sendPacket(client, Buffer.from('hi')));
  const packet = os.receivePacket(accepted);
  assert.ok(packet && packet !== 'end' && packet.bytes.toString() === 'hi');
  for (const fd of [client, accepted, listener]) os.closeFd(fd);
});

async function tcpPair(): Promise<{ server: Server; client: Socket; accepted: Socket }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = connect((server.address() as { port: number }).port, '127.0.0.1');
  const [accepted] = await Promise.all([
    new Promise<Socket>((resolve) => server.once('connection', resolve)),
    new Promise((resolve) => client.once('connect', resolve)),
  ]);
  return { server, client, accepted };
}
const fdOf = (socket: Socket) => (socket as unknown as { _handle: { fd: number } })._handle.fd;

test('names, cookies, state and counters of a TCP connection', async () => {
  const { server, client, accepted } = await tcpPair();
  const [a, b] = [fdOf(client), fdOf(accepted)];
  assert.deepEqual(os.localName(a), os.peerName(b));
  assert.deepEqual(os.peerName(a), os.localName(b));
  assert.equal(os.localName(a).address, '127.0.0.1');
  assert.notEqual(os.socketCookie(a), os.socketCookie(b));
  assert.equal(os.netnsCookie(a), os.netnsCookie(b));
  assert.ok(os.isTcp(a) && !os.isUnixStream(a) && !os.lingers(a));
  accepted.pause();
  await new Promise((resolve) => client.write('12345', resolve));
  assert.equal(os.tcpInfo(b).state, os.TCP_ESTABLISHED);
  assert.equal(os.tcpInfo(b).bytesReceived, 5);
  assert.equal(os.unreadBytes(b), 5);
  client.destroy();
  accepted.destroy();
  server.close();
});

test('a connection can be ended while another descriptor of it is open', async () => {
  for (const [endIt, expected] of [
    [os.shutdownBoth, 'end'],
    [os.resetConnection, 'ECONNRESET'],
  ] as const) {
    const { server, client, accepted } = await tcpPair();
    const copy = os.duplicateFd(fdOf(client));
    const outcome = new Promise((resolve) => {
      accepted.on('error', (error: NodeJS.ErrnoException) => resolve(error.code)).on('end', () => resolve('end'));
    });
    accepted.resume();
    endIt(fdOf(client));
    client.destroy();
    assert.equal(await outcome, expected);
    os.closeFd(copy);
    accepted.destroy();
    server.close();
  }
});

test('two processes play ping-pong over shared memory and two pipes', async () => {
  const program = `
    import * as os from ${JSON.stringify(new URL('./index.js', import.meta.url).href)};
    const words = new Int32Array(os.map(3, 4096));
    const bell = os.openDoorbell(4, {
      rung() { Atomics.store(words, 1, Atomics.load(words, 0)); os.ringPipe(5); },
      hungUp() { process.exit(7); },
    });
    bell.keepAlive(true);
  `;
  const memory = os.createSharedMemory('ping-pong', 4096);
  const [there, back] = [os.createPipe(), os.createPipe()];
  const child = fork('-', {
    execArgv: ['--input-type=module', '--eval', program],
    stdio: ['ignore', 'inherit', 'inherit', memory, there.readFd, back.writeFd, 'ipc'],
  });
  for (const fd of [there.readFd, back.writeFd]) os.closeFd(fd);
  const exit = new Promise((resolve) => child.once('exit', resolve));
  const words = new Int32Array(os.map(memory, 4096));
  await new Promise<void>((resolve, reject) => {
    const bell = os.openDoorbell(back.readFd, {
      rung() {
        const answered = Atomics.load(words, 1);
        if (answered === 1000) {
          bell.close();
          resolve();
        } else if (answered === Atomics.load(words, 0)) {
          Atomics.add(words, 0, 1);
          os.ringPipe(there.writeFd);
        }
      },
      hungUp: () => reject(new Error('the child ended early')),
    });
    bell.keepAlive(true);
    Atomics.store(words, 0, 1);
    os.ringPipe(there.writeFd);
  });
  os.closeFd(there.writeFd);
  assert.equal(await exit, 7, 'the child notices that we hung up');
  os.closeFd(memory);
});

test('a program that is busy, or stopped, while its doorbell is tested has one that works', async () => {
  const module = JSON.stringify(new URL('./index.js', import.meta.url).href);
  const program = `
    const { testDoorbell } = await import(${module});
    const tested = testDoorbell();
    for (const end = performance.now() + 1500; performance.now() < end; );
    await tested;`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'inherit' });
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

test('a worker can be terminated while its doorbell rings', async () => {
  const program = `
    const { parentPort } = require('node:worker_threads');
    import(${JSON.stringify(new URL('./index.js', import.meta.url).href)}).then(async (os) => {
      await os.testDoorbell();
      const { readFd, writeFd } = os.createPipe();
      os.openDoorbell(readFd, { rung: () => os.ringPipe(writeFd), hungUp() {} });
      os.ringPipe(writeFd);
      parentPort.postMessage(writeFd);
      setInterval(() => {}, 1000);
    });
  `;
  for (let i = 0; i < 5; i++) {
    const worker = new Worker(program, { eval: true });
    const writeFd = await new Promise<number>((resolve, reject) =>
      worker.once('message', resolve).once('error', reject),
    );
    await worker.terminate();
    os.closeFd(writeFd); // the read end was closed with the worker
  }
});

const { glibcVersionRuntime } = (process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } })
  .header;
const skip = glibcVersionRuntime === undefined ? 'only glibc gives memory back that early' : false;
test('memory that was freed is kept for the next to need some', { skip }, () => {
  const program = `
    import * as os from ${JSON.stringify(new URL('./index.js', import.meta.url).href)};
    const [malloc, free, sbrk] = [['malloc', 'ptr', 'usize'], ['free', 'void', 'ptr'], ['sbrk', 'ptr', 'i64']].map(
      ([name, result, parameter]) => os.ffi().func(name, result, [parameter]),
    );
    if (process.argv[1] === 'keep') os.keepFreedMemory();
    let most = 0n;
    let isOnHeap = true;
    for (let count = 200; count <= 800; count += 200) {
      const chunks = Array.from({ length: count }, () => malloc(65536));
      const end = BigInt(sbrk(0));
      isOnHeap &&= chunks.every((chunk) => BigInt(chunk) < end);
      for (const chunk of chunks.reverse()) free(BigInt(chunk));
      const given = end - BigInt(sbrk(0));
      if (given > most) most = given;
    }
    console.log(isOnHeap ? String(most) : 'elsewhere');`;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('MALLOC_')));
  /**
   * The most bytes given back at once: what V8 takes meanwhile may lie on top of the chunks, and then none are; so each
   * time there are more of them. In one process of forty, V8's code lies where the heap would grow, and the C library
   * takes other memory.
   */
  const givenBack = (...args: string[]) => {
    let printed = 'elsewhere';
    for (let i = 0; i < 10 && printed === 'elsewhere'; i++) {
      printed = execFileSync(process.execPath, ['--input-type=module', '-e', program, ...args], { env })
        .toString()
        .trim();
    }
    return Number(printed);
  };
  assert.equal(givenBack('keep'), 0);
  assert.ok(givenBack() > 0, 'the C library kept it anyway');
});
