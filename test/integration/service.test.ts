/** A fabric that a service manager starts, as systemd does: with a socket that is listened at already, and one to tell how it is. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { findFabric } from '../../src/fabric/client.ts';
import { askStatus, readStatus } from '../../src/fabric/status.ts';
import { check, ffi } from '../../src/os/ffi.ts';
import { closeFd, listenPackets } from '../../src/os/index.ts';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove } from './commands.ts';

const skip = cannotMove();
let directory: string;
let socket: string;
const running: ChildProcess[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'isthmus-service-'));
  socket = join(directory, 'fabric.sock');
});
afterEach(async () => {
  for (const child of running.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  rmSync(directory, { recursive: true });
});

/** As a service manager starts it: LISTEN_PID is known when it is the process already. */
function start(listener: number, args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
  const script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"';
  const command = ['-c', script, 'sh', process.execPath, CLI, 'fabric', ...args];
  const child = spawn('sh', command, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe', listener] });
  running.push(child);
  return child;
}

/** What a datagram socket at a path has been told since it was asked last. */
function manager(path: string): () => string[] {
  const library = ffi();
  const fd = check('socket', library.func('socket', 'i32', ['i32', 'i32', 'i32'])(1, 2, 0));
  const address = Buffer.concat([Buffer.from([1, 0]), Buffer.from(`${path}\0`)]);
  check('bind', library.func('bind', 'i32', ['i32', 'ptr', 'u32'])(fd, address, address.length));
  const receive = library.func('recv', 'i64', ['i32', 'ptr', 'usize', 'i32']);
  const buffer = Buffer.alloc(4096);
  return () => {
    const heard: string[] = [];
    for (let length = 0; ; heard.push(buffer.toString('utf8', 0, length))) {
      length = Number(receive(fd, buffer, buffer.length, 0x40));
      if (length < 0) return heard;
    }
  };
}

/** Asks until it answers: it may take a while to start. */
async function statusOf(path: string, child: ChildProcess): Promise<ReturnType<typeof readStatus>> {
  for (;;) {
    try {
      const found = findFabric({ ISTHMUS_FABRIC: path });
      return found === null ? null : readStatus(await askStatus(found.fd));
    } catch (error) {
      if (child.exitCode !== null || child.signalCode !== null) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

test('it takes the socket that it is given, leaves it at its end, and the next one goes on with it', {
  skip,
}, async () => {
  const listener = listenPackets(socket);
  for (let round = 0; round < 2; round++) {
    const child = start(listener, ['--socket', socket, '--idle', '0.5']);
    const exit = once(child, 'exit');
    const status = await statusOf(socket, child); // its question waits in the queue meanwhile
    assert.equal(status?.pid, child.pid);
    const [code] = await exit;
    assert.equal(code, 0);
    assert.ok(existsSync(socket));
  }
  closeFd(listener);
});

test('it says that it is ready, that it is alive, and that it ends', { skip }, async () => {
  const heard: string[] = [];
  const listen = manager(join(directory, 'notify'));
  const listener = listenPackets(socket);
  const env = { NOTIFY_SOCKET: join(directory, 'notify'), WATCHDOG_USEC: '100000' };
  const child = start(listener, ['--socket', socket], env);
  closeFd(listener);
  const hears = (text: string, times = 1) =>
    eventually(text, () => {
      heard.push(...listen());
      return heard.filter((one) => one === text).length >= times;
    });
  await hears('READY=1');
  await hears('WATCHDOG=1', 3);
  child.kill('SIGSTOP'); // whoever hangs is not alive
  listen();
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual(listen(), []);
  child.kill('SIGCONT');
  child.kill('SIGTERM');
  await hears('STOPPING=1');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
  assert.equal(heard[0], 'READY=1');
});

test('what it is given has to be what it was told, and a socket for packets', { skip }, async () => {
  const listener = listenPackets(join(directory, 'other.sock'));
  const stream = createServer().listen(join(directory, 'stream.sock'));
  await once(stream, 'listening');
  const { fd } = (stream as unknown as { _handle: { fd: number } })._handle;
  for (const [given, why] of [
    [listener, /listens at .*other\.sock, which is named neither by --socket nor by --domain/],
    [fd, /descriptor 3 of the service manager is no socket for packets/],
  ] as const) {
    const child = start(given, ['--socket', socket]);
    let stderr = '';
    child.stderr?.on('data', (chunk) => {
      stderr += chunk;
    });
    assert.deepEqual(await once(child, 'close'), [1, null]);
    assert.match(stderr, why);
  }
  closeFd(listener);
  stream.close();
});
