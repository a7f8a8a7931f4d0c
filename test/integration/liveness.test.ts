/** Whether a socket keeps its process alive: the same moved as on TCP. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { CLI, cannotMove, Workplace } from './commands.ts';

const skip = cannotMove();
/**
 * Two ends in two processes. The client goes into a state as the argument says, with the connection moved if it can be. If it ends by
 * itself it says so; else the server, told that the state is reached, ends the connection a good while later and the client says that.
 */
const PROGRAM = `
import { connect, createServer } from 'node:net';
import { fork } from 'node:child_process';
const [state, port] = process.argv.slice(2);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
if (port === undefined) {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    const timer = setInterval(() => socket.write('.'), 5);
    socket.on('close', () => clearInterval(timer));
    socket.resume();
    reached.then(() => {
      clearInterval(timer);
      setTimeout(() => { ended = true; socket.destroy(); }, +process.env.ENDS_AFTER_MS);
    });
  });
  let ended = false, child, reach;
  const reached = new Promise((resolve) => { reach = resolve; });
  server.listen(0, '127.0.0.1', () => {
    child = fork(process.argv[1], [state, server.address().port], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    child.on('message', reach);
    child.on('exit', (code) => {
      console.log(code === 0 ? (ended ? 'kept alive' : 'not kept alive') : 'failed ' + code);
      process.exit();
    });
  });
} else {
  const socket = connect(+port, '127.0.0.1');
  socket.on('error', () => {});
  socket.on('data', () => {}).pause();
  socket.resume();
  const mode = () => globalThis[Symbol.for('isthmus.runtime.1')]?.info(socket).mode ?? 'TCP';
  for (let i = 0; i < 1000 && mode() !== process.env.WANTED; i++) await pause(10);
  console.log(mode());
  if (state.includes('paused')) socket.pause();
  if (state.includes('unref')) socket.unref();
  if (state.includes('ref again')) socket.ref();
  if (state.includes('ended')) socket.end();
  if (state.includes('destroyed')) socket.destroy();
  process.send('reached', () => process.disconnect());
}
`;

let work: Workplace;
let program: string;
before(() => {
  work = new Workplace();
  program = join(work.directory, 'liveness.mjs');
  writeFileSync(program, PROGRAM);
});
after(() => work.close());

const STATES = {
  flowing: 'kept alive',
  paused: 'kept alive',
  'unref, flowing': 'not kept alive',
  'unref, paused': 'not kept alive',
  'unref, ref again': 'kept alive',
  ended: 'not kept alive', // the peer ends too
  destroyed: 'not kept alive',
} as const;

for (const [state, expected] of Object.entries(STATES)) {
  test(`${state}: ${expected}`, { skip }, async () => {
    const outcomes = await Promise.all(
      ['TCP', 'SMC-D'].map(async (wanted) => {
        // Longer than a client that is to end by itself may take over it.
        const ENDS_AFTER_MS = expected === 'kept alive' ? '1500' : '15000';
        const ISTHMUS_POLICY = wanted === 'TCP' ? 'off' : 'eager';
        const env = { ...work.env, WANTED: wanted, ENDS_AFTER_MS, ISTHMUS_POLICY };
        const { stdout, stderr } = await work.finish(process.execPath, [CLI, 'run', process.execPath, program, state], {
          env,
        });
        const [mode, outcome] = stdout.trim().split('\n');
        assert.equal(mode, wanted, stderr);
        return outcome;
      }),
    );
    assert.deepEqual(outcomes, [expected, expected]);
  });
}

/** Echoes; the client ends its side before it has everything back, and then nothing but the write that waits keeps the server. */
const ECHO = `
import { connect, createServer } from 'node:net';
import { fork } from 'node:child_process';
const port = process.argv[2];
if (port === undefined) {
  const server = createServer({ allowHalfOpen: true }, (socket) => { server.close(); socket.pipe(socket); });
  server.listen(0, '127.0.0.1', () => {
    const child = fork(process.argv[1], [server.address().port], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    child.unref();
    child.channel.unref();
  });
} else {
  const mode = () => globalThis[Symbol.for('isthmus.runtime.1')]?.info(socket).mode ?? 'TCP';
  const socket = connect(+port, '127.0.0.1');
  let got = 0, sent = 0;
  const write = (length) => { sent += length; return socket.write(Buffer.alloc(length)); };
  const count = (chunk) => { got += chunk.length; };
  socket.on('data', count);
  for (let i = 0; i < 1000 && mode() !== process.env.WANTED; i++) {
    write(1);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  socket.pause();
  for (let i = 0; i < 6; i++) write(100_000);
  socket.end();
  setTimeout(() => socket.resume(), 500);
  socket.on('end', () => console.log('got back ' + (got - sent)));
}
`;

test('a write that waits keeps a program running, though the peer has ended its side', { skip }, async () => {
  const file = join(work.directory, 'echo.mjs');
  writeFileSync(file, ECHO);
  for (const wanted of ['TCP', 'SMC-D']) {
    const env = { ...work.env, WANTED: wanted, ISTHMUS_POLICY: wanted === 'TCP' ? 'off' : 'eager' };
    const { stdout, stderr } = await work.finish(process.execPath, [CLI, 'run', process.execPath, file], { env });
    assert.equal(stdout, 'got back 0\n', `${wanted} ${stderr}`);
  }
});
