/** Every reason is provoked somewhere: those that no other test has, here; and which have none, with the reason why not. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { REASONS } from '../../src/smc/reasons.ts';
import { cannotMove, ROOT } from './commands.ts';
import { INDEX_URL } from './exchange.ts';
import { PRELUDE, Stage } from './two-programs.ts';

const skip = cannotMove();
let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

/** Says the reason of a socket once it is the one that is expected, or after a while. */
const SAYS = `${PRELUDE}
  import { once } from 'node:events';
  import { setTimeout as pause } from 'node:timers/promises';
  const { accelerate, attach, info, restore } = await import('${INDEX_URL}');
  const become = async (socket, name) => {
    for (let i = 0; i < 500 && info(socket).reason.name !== name; i++) { if (socket.writable) socket.write('x'); await pause(10); }
    tell('reason ' + info(socket).reason.name);
  };
`;
const ECHO = `${SAYS}
  const server = net.createServer((socket) => socket.on('error', () => {}).pipe(socket));
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
`;

async function provoke(name: string, code: string, args: readonly (string | number)[] = []): Promise<void> {
  const program = stage.run(`${SAYS}\n${code}`, args);
  assert.equal(await program.says('reason '), name, program.stderr);
}

test('SELF: a socket is connected to itself', { skip }, async () => {
  await provoke(
    'SELF',
    `const place = net.createServer().listen(0, '127.0.0.1');
     await once(place, 'listening');
     const { port } = place.address();
     await once(place.close(), 'close');
     const socket = net.connect({ host: '127.0.0.1', port, localPort: port }).resume();
     await once(socket, 'connect');
     await become(socket, 'SELF');`,
  );
});

test('LINGER: somebody has set SO_LINGER', { skip }, async () => {
  const port = await stage.run(ECHO).says('port ');
  await provoke(
    'LINGER',
    `const { declare } = await import('${new URL('../../src/os/ffi.js', import.meta.url).href}');
     const socket = net.connect(+args[0], '127.0.0.1').resume();
     await once(socket, 'connect');
     const linger = Buffer.from(Uint32Array.of(1, 5).buffer);
     declare('setsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'u32'])(socket._handle.fd, 1, 13, linger, 8);
     await become(socket, 'LINGER');`,
    [port],
  );
});

test('RESTORED: the program has moved it back', { skip }, async () => {
  const port = await stage.run(ECHO).says('port ');
  await provoke(
    'RESTORED',
    `const socket = net.connect(+args[0], '127.0.0.1').resume();
     for (let i = 0; i < 500 && info(socket).mode === 'TCP'; i++) { socket.write('x'); await pause(10); }
     await restore(socket);
     await become(socket, 'RESTORED');`,
    [port],
  );
});

test('PASSEDON: another process has read it before', { skip }, async () => {
  const child = stage.file(
    'child.mjs',
    `${SAYS}
     process.once('message', async (_, socket) => {
       socket.on('error', () => {}).resume();
       attach(socket, 'server');
       await become(socket, 'PASSEDON');
     });
     process.send('ready');`,
  );
  const program = stage.run(
    `${PRELUDE}
     import { fork } from 'node:child_process';
     import { once } from 'node:events';
     const { OPTIONS, ...env } = process.env;
     const child = fork(args[0], { env: { ...env, NODE_OPTIONS: OPTIONS } });
     await once(child, 'message');
     const server = net.createServer((socket) => socket.once('data', () => child.send('take it', socket)));
     server.listen(0, '127.0.0.1', () => net.connect(server.address().port, '127.0.0.1').on('error', () => {}).write('read here'));`,
    [child],
    { NODE_OPTIONS: '', OPTIONS: stage.env().NODE_OPTIONS },
  );
  assert.equal(await program.says('reason '), 'PASSEDON', program.stderr);
});

test('NOTTCP: a socket that is not connected, and one of another kind; waiting for it ends', { skip }, async () => {
  const program = stage.run(
    `${SAYS}
     const path = args[0] + '/unix.sock';
     const server = net.createServer().listen(path);
     await once(server, 'listening');
     const socket = net.connect(path);
     await once(socket, 'connect');
     tell('reason ' + info(socket).reason.name);
     socket.destroy();
     await once(server.close(), 'close');
     tell('then ' + [info(new net.Socket()), await accelerate(new net.Socket()), await restore(new net.Socket())].map(({ reason }) => reason.name));
     process.stdin.destroy();`,
    [stage.directory],
  );
  assert.equal(await program.says('reason '), 'NOTTCP');
  assert.equal(await program.says('then '), 'NOTTCP,NOTTCP,NOTTCP');
  assert.deepEqual(await program.exited, { code: 0, signal: null });
});

/** Named in no test, and why. */
const UNPROVOKED: Readonly<Record<string, string>> = {
  INTERR: 'only a fault of ours makes it',
  FABRICBUSY: 'limits are far beyond what a test may take; test/hostile/fabric.test.ts has the fabric keep them',
  MISMATCH: 'the descriptor of a program would have to become another one meanwhile; src/fabric/core.test.ts does it',
  SHARED: 'both processes would have to have read all bytes of it; src/fabric/core.test.ts says so to the fabric',
  UNPROVEN: 'it takes a proxy between two network namespaces, or a kernel that loses urgent bytes',
};

test('every reason is named by a test, or it is said why not', () => {
  const files = ['src', 'test'].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.test.ts'))
      .map((name) => readFileSync(join(ROOT, folder, name), 'utf8')),
  );
  const own = UNPROVOKED;
  const isNamed = (name: string) => files.some((text) => new RegExp(`\\b${name}\\b`).test(text));
  const missing = Object.keys(REASONS).filter((name) => !(name in own) && !isNamed(name));
  assert.deepEqual(missing, []);
  for (const name of Object.keys(own)) assert.ok(name in REASONS, name);
});
