/** What an idle connection that has moved costs: no system call at all, at both ends and in the fabric, as `strace` sees it. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove } from './commands.ts';
import { PRELUDE, type Program, Stage } from './two-programs.ts';

const hasStrace = spawnSync('strace', ['-V']).status === 0;
const skip = cannotMove() || (!hasStrace && 'strace is not installed (Debian package strace)');

/** Without it V8 collects garbage several times in the half minute after the last work, over TCP as well. Nothing else of V8 is seen. */
const NODE = [process.execPath, '--no-memory-reducer'];
const STILL_MS = 3000;
/** A timer of a handshake wakes its loop once more, when it would have ended: the longest one after 6 s. On a busy machine all takes longer. */
const LIMIT_MS = 30_000;

const SERVER = `${PRELUDE}
  net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1', function () { tell('port ' + this.address().port); });
`;

const CLIENT = `${PRELUDE}
  const socket = net.connect(+args[0], '127.0.0.1');
  let got = 0;
  socket.on('data', ({ length }) => { got += length; tell('has ' + got); });
  told('send', (length) => socket.write(pattern(0, +length)));
`;

let stage: Stage;
let strace: ChildProcess | null = null;
beforeEach(() => {
  stage = new Stage();
});
afterEach(async () => {
  strace?.kill('SIGINT'); // lets go of those it traces
  strace = null;
  await stage.close();
});

/** Starts one that traces all their threads. @returns why it may not, or null */
async function trace(programs: readonly Program[], file: string): Promise<string | null> {
  const child = spawn('strace', ['-f', '-o', file, ...programs.flatMap(({ pid }) => ['-p', String(pid)])], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  strace = child;
  let [stderr, isOver] = ['', false];
  child.on('close', () => {
    isOver = true;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const isAttached = () => programs.every(({ pid }) => stderr.includes(`Process ${pid} attached`));
  await eventually('strace is attached', () => isAttached() || isOver);
  if (isAttached()) return null;
  assert.match(stderr, /not permitted|not implemented/);
  return `strace may not trace other programs here (as root, or with kernel.yama.ptrace_scope=0): ${stderr.trim()}`;
}

/** Waits until nothing is added to a file for so long. */
async function stillFor(file: string, ms: number): Promise<void> {
  const end = performance.now() + LIMIT_MS;
  for (let [size, since] = [-1, performance.now()]; performance.now() - since < ms; ) {
    const now = performance.now();
    const { size: sizeNow } = statSync(file);
    if (sizeNow !== size) [size, since] = [sizeNow, now];
    if (now > end) assert.fail(`system calls go on:\n${readFileSync(file, 'utf8').split('\n').slice(-30).join('\n')}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('while nothing is said on a moved connection nobody makes a system call', { skip }, async (t) => {
  // Started by the test, since the one that programs start is not told about V8.
  const fabric = stage.start([...NODE, CLI, 'fabric'], { NODE_OPTIONS: '' });
  await eventually('the fabric listens', () => existsSync(join(stage.directory, 'fabric.sock')));
  const env = { ISTHMUS_POLICY: 'lazy' };
  const server = stage.start([...NODE, stage.file('server.mjs', SERVER)], env);
  const client = stage.start([...NODE, stage.file('client.mjs', CLIENT), await server.says('port ')], env);
  let sent = 0;
  const send = (length: number) => {
    client.tell(`send ${length}`);
    sent += length;
  };
  await eventually('both ends have moved', () => {
    send(1); // where nothing passes nothing moves
    return [server, client].every(({ connections }) => connections.some(({ mode }) => mode === 'SMC-D'));
  });
  for (let i = 0; i < 100; i++) {
    send(1 + 37 * i);
    await client.says(`has ${sent}`);
  }

  const programs = [fabric, server, client];
  const file = join(stage.files, 'trace');
  const why = await trace(programs, file);
  if (why !== null) return t.skip(why);
  // Calls that they stand in are written down when it attaches, which is no stillness yet.
  await stillFor(file, STILL_MS);

  const { size } = statSync(file);
  for (const { child, stderr } of programs) assert.deepEqual([child.exitCode, child.signalCode], [null, null], stderr);
  for (const { connections } of [server, client])
    assert.deepEqual(
      connections.map(({ mode }) => mode),
      ['SMC-D'],
    );
  send(1);
  await eventually('it would have been seen', () => statSync(file).size > size);
});
