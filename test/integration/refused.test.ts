import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { cannotFilter, FILTER } from './seccomp.ts';

/**
 * Programs on systems that refuse something: they work over TCP as if nothing were, and say why.
 * One program is both ends; it prints the bytes it got back and the reason of the connection.
 */
const DIST = new URL('../../', import.meta.url).pathname;
let directory: string;

before(() => {
  directory = mkdtempSync(join(tmpdir(), 'isthmus-refused-'));
  writeFileSync(
    join(directory, 'program.mjs'),
    `
    import net from 'node:net';
    import { once } from 'node:events';
    const { info } = await import(process.env.INDEX_URL);
    const server = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = net.connect(server.address().port, '127.0.0.1');
    let got = '';
    socket.on('data', (chunk) => { got += chunk; });
    for (let i = 0; i < 60 && info(socket).mode === 'TCP' && !(i > 20 && settled(info(socket).reason.name)); i++) {
      socket.write('x');
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    const { mode, reason } = info(socket);
    const sent = socket.bytesWritten;
    socket.end();
    await once(socket, 'close');
    server.close();
    console.log(JSON.stringify({ complete: got.length === sent, mode, reason: reason.name, hint: reason.hint }));
    function settled(name) { return name !== 'YOUNG' && name !== 'CHECKING' && name !== 'AGREED' && name !== 'PEERNOSMC'; }
    `,
  );
});
after(() => rmSync(directory, { recursive: true }));

interface Outcome {
  readonly complete: boolean;
  readonly mode: string;
  readonly reason: string;
}

interface How {
  readonly dist?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly nodeOptions?: string;
  /** Runs in front of node. */
  readonly under?: readonly string[];
}

function run({ dist = DIST, env = {}, nodeOptions = '', under = [] }: How): Outcome {
  const [file = process.execPath, ...args] = [...under, process.execPath, join(directory, 'program.mjs')];
  const result = spawnSync(file, args, {
    env: {
      ...process.env,
      NODE_OPTIONS: `${nodeOptions} --import=file://${dist}lib/register.cjs`,
      INDEX_URL: `file://${dist}lib/index.js`,
      ISTHMUS_RUNTIME_DIR: join(directory, 'runtime'),
      ISTHMUS_FABRIC_IDLE_MS: '300',
      ISTHMUS_POLICY: 'eager',
      ...env,
    },
    encoding: 'utf8',
    timeout: 60_000,
  });
  const line = result.stdout.trim().split('\n').at(-1) ?? '';
  assert.ok(line.startsWith('{'), `${result.stdout}${result.stderr}`);
  assert.equal(result.status, 0, result.stderr);
  return JSON.parse(line) as Outcome;
}

const stays = (reason: string) => ({ complete: true, mode: 'TCP', reason });
const withoutHint = ({ complete, mode, reason }: Outcome) => ({ complete, mode, reason });

test('where nothing is refused the connection moves', () => {
  assert.deepEqual(withoutHint(run({})), { complete: true, mode: 'SMC-D', reason: 'MOVED' });
});

test('with the policy off it stays', () => {
  assert.deepEqual(withoutHint(run({ env: { ISTHMUS_POLICY: 'off' } })), stays('OFF'));
});

test('without koffi', () => {
  const dist = join(directory, 'without-koffi/');
  cpSync(DIST, dist, { recursive: true });
  const outcome = run({ dist });
  assert.deepEqual(withoutHint(outcome), stays('FFI'));
});

test('on another system', () => {
  const pretend = join(directory, 'pretend.mjs');
  writeFileSync(pretend, `Object.defineProperty(process, 'platform', { value: 'darwin' });`);
  assert.deepEqual(withoutHint(run({ nodeOptions: `--import=file://${pretend}` })), stays('PLATFORM'));
});

test('when Node.js has changed inside', () => {
  const change = join(directory, 'change.mjs');
  writeFileSync(
    change,
    `import net from 'node:net'; const w = net.Socket.prototype._writeGeneric; net.Socket.prototype._writeGeneric = function (...all) { return w.apply(this, all); };`,
  );
  assert.deepEqual(withoutHint(run({ nodeOptions: `--import=file://${change}` })), stays('INTERNALS'));
});

/** What is loaded later than the preload is not there any more: replaced meanwhile, or not readable for another user. */
function unreadablePackage(): string {
  const dist = join(directory, 'unreadable/');
  cpSync(DIST, dist, { recursive: true });
  const chunks = join(dist, 'lib/chunks');
  const late = readdirSync(chunks).filter((name) => /^(engine|os)-/.test(name));
  assert.equal(late.length, 2);
  for (const name of late) rmSync(join(chunks, name));
  return dist;
}

test('when the package can no longer be read', () => {
  const outcome = run({ dist: unreadablePackage() });
  assert.deepEqual(withoutHint(outcome), stays('SYSTEM'));
});

test('when the package can no longer be read, the functions of the API say so, and threads run', () => {
  const file = join(directory, 'api.mjs');
  writeFileSync(
    file,
    `
    import net from 'node:net';
    import { once } from 'node:events';
    import { Worker } from 'node:worker_threads';
    const { accelerate, attach, connect, createServer, info, restore } = await import(process.env.INDEX_URL);
    const server = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = net.connect(server.address().port, '127.0.0.1');
    await once(socket, 'connect');
    attach(socket, 'client');
    const said = [await accelerate(socket), await restore(socket), info(socket)].map(({ mode, reason }) => [mode, reason.name, /Cannot find module/.test(reason.text)]);
    const inBand = connect({ port: server.address().port, host: '127.0.0.1', handshake: 'in-band' });
    const [error] = await once(inBand, 'error');
    const [code] = await once(new Worker('', { eval: true }), 'exit');
    console.log(JSON.stringify({ said, inBand: error.code, code }));
    process.exit();
    `,
  );
  const dist = unreadablePackage();
  const env = { NODE_OPTIONS: `--require=${dist}lib/register.cjs`, INDEX_URL: `file://${dist}lib/index.js` };
  const { stdout, stderr } = spawnSync(process.execPath, [file], {
    env: { ...process.env, ...env, ISTHMUS_POLICY: 'lazy' },
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(stderr, '');
  const tcp = ['TCP', 'SYSTEM', true];
  assert.deepEqual(JSON.parse(stdout), { said: [tcp, tcp, tcp], inBand: 'ERR_ISTHMUS_IN_BAND', code: 0 });
});

const hasStrace = spawnSync('strace', ['-V']).status === 0;
const needsStrace = { skip: !hasStrace && 'strace is not installed (Debian package strace)' };

for (const [what, injection] of [
  ['memory (memfd_create)', 'memfd_create:error=EPERM'],
  ['seals (fcntl of memory)', 'ftruncate:error=EPERM'],
  ['pipes', 'pipe2:error=EMFILE:when=20+'],
] as const) {
  test(`when the system refuses ${what}`, needsStrace, () => {
    const outcome = run({
      under: ['strace', '-f', '-o', '/dev/null', '-e', `trace=${injection.split(':')[0]}`, '-e', `inject=${injection}`],
    });
    assert.equal(outcome.complete, true);
    if (outcome.mode === 'TCP') assert.match(outcome.reason, /^(SYSTEM|NOFABRIC|MEM)$/);
  });
}

test('when memory cannot be mapped', needsStrace, () => {
  const outcome = run({
    under: [
      'strace',
      '-f',
      '-o',
      '/dev/null',
      '-P',
      '/memfd:isthmus-connections',
      '-e',
      'trace=mmap',
      '-e',
      'inject=mmap:error=ENOMEM',
    ],
  });
  assert.deepEqual(withoutHint(outcome), stays('SYSTEM'));
});

for (const [what, errno, reason] of [
  ['does not know network namespace cookies (before Linux 5.14)', constants.errno.ENOPROTOOPT, 'KERNEL'],
  ['does not let them be asked for', constants.errno.EPERM, 'SYSTEM'],
] as const) {
  test(`when the system ${what}`, { skip: cannotFilter() }, () => {
    const file = join(directory, 'filter.mjs');
    writeFileSync(file, FILTER);
    const env = { ERRNO: String(errno) };
    assert.deepEqual(withoutHint(run({ nodeOptions: `--import=file://${file}`, env })), stays(reason));
  });
}

test('bad values of variables are passed over with a warning', () => {
  const outcome = run({ env: { ISTHMUS_LAZY_MS: 'soon', ISTHMUS_DMB_BYTES: '5', ISTHMUS_ACCESS: 'both' } });
  assert.equal(outcome.mode, 'SMC-D');
});
