/** `isthmus doctor` and `isthmus chk` with real programs: they name what is in the way, and what they advise leads out of it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { tcpSockets } from '../../src/cli/sockets.ts';
import type { Line } from '../../src/cli/steps.ts';
import type { ConnectionInfo } from '../../src/net/info.ts';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove, copyWithoutKoffi, type Finished, type Started, Workplace } from './commands.ts';

const skip = cannotMove();
const { execPath: NODE } = process;
const isRoot = process.getuid?.() === 0;

let work: Workplace;
beforeEach(() => {
  work = new Workplace();
});
afterEach(() => work.close());

/** Sends back what it gets; prints its port. */
const ECHO = `
  const server = require('node:net').createServer((socket) => socket.on('error', () => {}).pipe(socket));
  server.listen(0, '127.0.0.1', () => console.log('port', server.address().port));
`;

function file(name: string, text: string): string {
  const path = join(work.directory, name);
  writeFileSync(path, text);
  return path;
}

interface Server {
  readonly program: Started;
  readonly target: string;
}

/** @param under the beginning of the command line */
async function serve(
  code: string,
  env: NodeJS.ProcessEnv = {},
  under: readonly string[] = [NODE, CLI, 'run'],
): Promise<Server> {
  const [command = NODE, ...args] = [...under, NODE, file('server.cjs', code)];
  const program = work.start(command, args, { env: { ...work.env, ...env } });
  const [, port] = await program.says(/port (\d+)/);
  return { program, target: `127.0.0.1:${port}` };
}

/** A server has a second to accept; one that may have been kept from it is asked once more. */
async function isthmus(args: readonly string[], env: NodeJS.ProcessEnv = {}, cli = CLI): Promise<Finished> {
  const run = () => work.finish(NODE, [cli, ...args], { env: { ...work.env, ...env } });
  const finished = await run();
  return finished.stdout.includes('has not accepted the connection yet') ? run() : finished;
}

interface Outcome {
  readonly ok?: boolean;
  readonly moved?: boolean;
  readonly steps: readonly Line[];
  readonly client: ConnectionInfo | null;
  readonly server: ConnectionInfo | null;
}

/** What a command found out, with --json. */
async function ask(args: readonly string[], env: NodeJS.ProcessEnv = {}, cli = CLI): Promise<Outcome & { last: Line }> {
  const { code, stdout, stderr } = await isthmus([...args, '--json'], env, cli);
  assert.equal(stderr, '');
  const outcome = JSON.parse(stdout) as Outcome;
  const last = outcome.steps.at(-1) as Line;
  assert.equal(code, (outcome.ok ?? outcome.moved) ? 0 : 1);
  assert.equal(last.result === 'failed', code === 1);
  for (const { result } of outcome.steps.slice(0, -1)) assert.notEqual(result, 'failed'); // it stops at the first
  return { ...outcome, last };
}

/** The step that failed, its reason, and what helps. */
async function fails(
  args: readonly string[],
  step: string,
  reason: string,
  hint: RegExp,
  env?: NodeJS.ProcessEnv,
  cli?: string,
): Promise<Line> {
  const { last } = await ask(args, env, cli);
  assert.deepEqual([last.step, last.reason?.name], [step, reason], JSON.stringify(last));
  assert.match(last.reason?.hint ?? '', hint);
  return last;
}

// --- doctor ---

test('doctor: where all is well a connection between two programs moves', { skip }, async () => {
  const { code, stdout, stderr } = await isthmus(['doctor']);
  assert.deepEqual([code, stderr], [0, ''], stdout);
  const lines = stdout.trimEnd().split('\n');
  assert.deepEqual(
    lines.slice(0, -1).map((line) => line.split(/\s+/).slice(0, 2).join(' ')),
    'system FFI kernel Node.js settings policy memory descriptors fabric trust introduction'
      .split(' ')
      .map((step) => `ok ${step}`),
  );
  assert.match(lines.at(-1) ?? '', /isthmus run/);
});

test('doctor: a value that makes no sense is named', { skip }, async () => {
  const { steps } = await ask(['doctor'], { ISTHMUS_LAZY_MS: 'soon' });
  const noted = steps.find(({ result }) => result === 'note');
  assert.equal(noted?.step, 'settings');
  assert.match(noted?.text ?? '', /ISTHMUS_LAZY_MS=soon/);
});

test('doctor: the policy is off', { skip }, async () => {
  await fails(['doctor'], 'policy', 'OFF', /ISTHMUS_POLICY/, { ISTHMUS_POLICY: 'off' });
  assert.equal((await ask(['doctor'], { ISTHMUS_POLICY: 'lazy' })).ok, true); // as it says
});

test('doctor and chk: koffi is missing', async () => {
  const cli = copyWithoutKoffi(join(work.directory, 'bare'));
  for (const args of [['doctor'], ['chk', '127.0.0.1:9']]) {
    const { text } = await fails(args, 'FFI', 'FFI', /npm install koffi/, {}, cli);
    assert.match(text, /Cannot find module 'koffi'/);
  }
});

test('doctor: too few descriptors', { skip }, async () => {
  const { stdout } = await work.finish('sh', ['-c', `ulimit -n 70; exec "$0" "$@"`, NODE, CLI, 'doctor', '--json']);
  const last = (JSON.parse(stdout) as Outcome).steps.at(-1);
  assert.deepEqual([last?.step, last?.reason?.name], ['descriptors', 'SYSTEM']);
  assert.match(last?.reason?.hint ?? '', /ulimit -n/);
});

test('doctor: nobody listens where ISTHMUS_FABRIC points; what it advises helps', { skip }, async () => {
  const ISTHMUS_FABRIC = join(work.directory, 'named.sock');
  const { reason } = await fails(['doctor'], 'fabric', 'NOFABRIC', /isthmus fabric --socket/, { ISTHMUS_FABRIC });
  const [, advised = ''] = /`isthmus (fabric --socket [^`]+)`/.exec(reason?.hint ?? '') ?? [];
  const fabric = work.start(NODE, [CLI, ...advised.split(' ')]);
  await fabric.says(/fabric at/);
  assert.equal((await ask(['doctor'], { ISTHMUS_FABRIC })).ok, true);
});

test('doctor: others may write where the fabric is; what it advises helps', { skip }, async () => {
  const directory = join(work.directory, 'open');
  mkdirSync(directory);
  const fabric = work.start(NODE, [CLI, 'fabric', '--socket', join(directory, 'fabric.sock')]);
  await fabric.says(/fabric at/);
  chmodSync(directory, 0o777);
  const env = { ISTHMUS_RUNTIME_DIR: directory };
  const { text, reason } = await fails(['doctor'], 'trust', 'UNTRUSTED', /chmod go-w/, env);
  assert.ok(text.includes(`${directory} can be written by others`));
  const [, advised = ''] = /`([^`]+)`/.exec(reason?.hint ?? '') ?? [];
  assert.equal(spawnSync('sh', ['-c', advised]).status, 0);
  assert.equal((await ask(['doctor'], env)).ok, true);
});

test('doctor: another user has the place of the fabric', {
  skip: skip || (!isRoot && 'only root can give a directory to somebody else'),
}, async () => {
  const directory = join(work.directory, 'theirs');
  mkdirSync(directory);
  chownSync(directory, 4711, 4711);
  const env = { ISTHMUS_RUNTIME_DIR: directory };
  const { text, reason } = await fails(['doctor'], 'trust', 'UNTRUSTED', /user 4711 or root/, env);
  assert.ok(text.includes(`${directory} belongs to user 4711`));
  const [, advised = ''] = /`([^`]+)`/.exec(reason?.hint ?? '') ?? [];
  assert.equal(spawnSync('sh', ['-c', advised]).status, 0);
  assert.equal((await ask(['doctor'], env)).ok, true);
});

test('doctor: a fabric that is stopped is named; what it advises helps', { skip }, async () => {
  const ISTHMUS_FABRIC = join(work.directory, 'stopped.sock');
  const fabric = work.start(NODE, [CLI, 'fabric', '--socket', ISTHMUS_FABRIC]);
  await fabric.says(/fabric at/);
  process.kill(fabric.pid, 'SIGSTOP');
  const { reason } = await fails(['doctor'], 'fabric', 'FABRICSILENT', /kill -CONT/, { ISTHMUS_FABRIC });
  const [, advised = ''] = /`(kill -CONT \d+)`/.exec(reason?.hint ?? '') ?? [];
  assert.equal(advised, `kill -CONT ${fabric.pid}`);
  assert.equal(spawnSync('sh', ['-c', advised]).status, 0);
  assert.equal((await ask(['doctor'], { ISTHMUS_FABRIC })).ok, true);
});

test('doctor: as nobody', { skip: skip || (!isRoot && 'only root can become nobody') }, async () => {
  // What it reads and writes is root's: the check ends before that.
  const { stdout } = await work.finish(NODE, [CLI, 'doctor', '--json'], {
    env: { ...work.env, ISTHMUS_RUNTIME_DIR: '' },
    uid: 65534,
    gid: 65534,
    cwd: '/',
  });
  const last = (JSON.parse(stdout) as Outcome).steps.at(-1);
  assert.deepEqual([last?.step, last?.reason?.name], ['fabric', 'UNKNOWNUSER'], stdout);
  assert.match(last?.reason?.hint ?? '', /user of its own/);
});

// --- chk ---

test('chk: a connection moves', { skip }, async () => {
  const { program, target } = await serve(ECHO);
  const { code, stdout, stderr } = await isthmus(['chk', target, '--send', 'hello\\r\\n']);
  assert.deepEqual([code, stderr], [0, ''], stdout);
  assert.match(stdout, /\nSuccess, using SMC-D\n$/);
  assert.match(stdout, new RegExp(`\\nok {4}server +process ${program.pid} of user .*server\\.cjs\\n`));
  const { moved, client, server } = await ask(['chk', target, '--send', 'hello\\r\\n']);
  assert.deepEqual([moved, client?.mode, client?.role, server?.pid], [true, 'SMC-D', 'client', program.pid]);
});

test('chk: a server that speaks first is sent nothing, and moves with its next byte', { skip }, async () => {
  const code = `
    const server = require('node:net').createServer((socket) => {
      let heard = 0;
      const greeting = setInterval(() => socket.write('.'), 20);
      socket.on('data', (data) => { heard += data.length; }).on('error', () => {});
      socket.on('close', () => { clearInterval(greeting); console.log('heard', heard); });
    });
    server.listen(0, '127.0.0.1', () => console.log('port', server.address().port));
  `;
  const { program, target } = await serve(code);
  const { steps } = await ask(['chk', target]);
  assert.match(steps.find(({ step }) => step === 'a byte')?.text ?? '', /by themselves/);
  await program.says(/heard 0/);
});

test('chk: where no byte passes it says how to have one pass, and that helps', { skip }, async () => {
  const http = `
    const server = require('node:http').createServer((request, response) => response.end('hello'));
    server.listen(0, '127.0.0.1', () => console.log('port', server.address().port));
  `;
  const { target } = await serve(http, { ISTHMUS_POLICY: 'eager' });
  const { reason } = await fails(['chk', target], 'a byte', 'NOBYTE', /--send/);
  const [, advised = ''] = /--send '([^']+)'/.exec(reason?.hint ?? '') ?? [];
  assert.equal((await ask(['chk', target, '--send', advised])).moved, true);
});

test('chk: Isthmus is not loaded in the server; what it advises helps', { skip }, async () => {
  const { program, target } = await serve(ECHO, {}, []);
  const { text, reason } = await fails(['chk', target, '--send', 'xy'], 'isthmus', 'PEERNOSMC', /isthmus run/);
  assert.match(text, new RegExp(`not loaded in process ${program.pid}$`));
  const [, advised = ''] = /`isthmus (run [^`]+)`/.exec(reason?.hint ?? '') ?? [];
  const again = work.start(NODE, [CLI, ...advised.split(' ')]);
  const [, port] = await again.says(/port (\d+)/);
  assert.equal((await ask(['chk', `:${port}`, '--send', 'xy'])).moved, true);
});

test('chk: a server that has Isthmus from the package is found to have it', { skip }, async () => {
  const file = new URL('../../lib/index.js', import.meta.url).href;
  const code = `
    import('${file}').then(({ createServer }) => {
      const server = createServer((socket) => socket.on('error', () => {}).pipe(socket));
      server.listen(0, '127.0.0.1', () => console.log('port', server.address().port));
    });
  `;
  const { target } = await serve(code, {}, []);
  const { moved, steps, last } = await ask(['chk', target, '--send', 'xy']);
  assert.equal(moved, true, JSON.stringify(last));
  assert.match(steps.find(({ step }) => step === 'isthmus')?.text ?? '', /by the program itself/);
});

test('chk: the policy of the server is off', { skip }, async () => {
  const { target } = await serve(ECHO, { ISTHMUS_POLICY: 'off' });
  const { text } = await fails(
    ['chk', target, '--send', 'xy'],
    'its policy',
    'OFF',
    /start the program with ISTHMUS_POLICY/,
  );
  assert.ok(text.includes('the policy is off: ISTHMUS_POLICY'), text);
  const { stdout } = await isthmus(['chk', target, '--send', 'xy']);
  assert.match(
    stdout,
    /\nFailed \(TCP fallback\), reasons:\n {2}Client: 0x03010000 PEERNOSMC: .*\n {2}Server: 0x49530001 OFF: .*\n$/,
  );
});

test('chk: the server waits longer than chk does', { skip }, async () => {
  const { target } = await serve(ECHO, { ISTHMUS_LAZY_MS: '3600000' });
  const { steps, last } = await ask(['chk', target, '--send', 'xy', '--timeout', '3']);
  assert.equal(steps.find(({ step }) => step === 'its policy')?.result, 'note');
  assert.deepEqual([last.step, last.reason?.name], ['announcement', 'PEERNOSMC']);
});

test('chk: the two would meet at two fabrics', { skip }, async () => {
  const other = join(work.directory, 'other');
  const { program, target } = await serve(ECHO, { ISTHMUS_RUNTIME_DIR: other });
  const { text } = await fails(
    ['chk', target, '--send', 'xy'],
    'its fabric',
    'PEERNOSMC',
    /the same ISTHMUS_FABRIC, ISTHMUS_RUNTIME_DIR/,
  );
  assert.ok(
    text.includes(
      `process ${program.pid} meets others at ${other}/fabric.sock, this command at ${work.env.ISTHMUS_RUNTIME_DIR}/fabric.sock`,
    ),
  );
  assert.equal((await ask(['chk', target, '--send', 'xy'], { ISTHMUS_RUNTIME_DIR: other })).moved, true);
});

test('chk: the server reads its socket below JavaScript', { skip }, async () => {
  const code = `
    const server = require('node:net').createServer((socket) => {
      socket.write = function (...args) { return require('node:net').Socket.prototype.write.apply(this, args); };
      socket.on('error', () => {}).pipe(socket);
    });
    server.listen(0, '127.0.0.1', () => console.log('port', server.address().port));
  `;
  const { target } = await serve(code);
  const { last, server } = await ask(['chk', target, '--send', 'xy']);
  assert.equal(server?.reason.name, 'OVERRIDDEN');
  assert.deepEqual([last.step, last.reason?.name], ['announcement', 'OVERRIDDEN']);
  assert.match(last.text, /at the server/);
});

test('chk: nobody listens', { skip }, async () => {
  const { program, target } = await serve(ECHO);
  const [, port = ''] = target.split(':');
  const { reason } = await fails(['chk', `127.0.0.2:${port}`], 'connection', 'NOTTCP', /isthmus chk 127\.0\.0\.1:/);
  assert.ok(reason?.text.includes(`nobody listens at 127.0.0.2:${port}, but at ${target}`), reason?.text);
  process.kill(program.pid, 'SIGKILL');
  await program.finished;
  await fails(['chk', target], 'connection', 'NOTTCP', /start the server/);
});

test('chk: a server that is stopped', { skip }, async () => {
  const { program, target } = await serve(ECHO);
  process.kill(program.pid, 'SIGSTOP');
  const { text } = await fails(['chk', target, '--send', 'xy'], 'server', 'TIMEOUT', /is it stopped/);
  assert.ok(text.includes(`process ${program.pid} has not accepted`));
  process.kill(program.pid, 'SIGCONT');
  assert.equal((await ask(['chk', target, '--send', 'xy'])).moved, true);
});

test('chk: an address of another host', { skip }, async () => {
  await fails(['chk', '192.0.2.1:80'], 'address', 'NOTLOCAL', /ISTHMUS_FABRIC/);
  await fails(['chk', 'nothing.invalid:80'], 'address', 'NOTTCP', /name is right/);
});

test('chk: a server that is no Node.js program', {
  skip: skip || (spawnSync('nginx', ['-v']).error !== undefined && 'there is no nginx (Debian package nginx-light)'),
}, async () => {
  const port = 20_000 + (process.pid % 20_000);
  const configuration = file(
    'nginx.conf',
    `daemon off; master_process off; pid ${work.directory}/nginx.pid; error_log stderr; events {}
     http { access_log off; server { listen 127.0.0.1:${port}; return 200 'hello'; } }`,
  );
  const nginx = work.start('nginx', ['-p', work.directory, '-e', 'stderr', '-c', configuration]);
  const target = `127.0.0.1:${port}`;
  await eventually('nginx listens', () => tcpSockets().some((one) => one.isListening && one.local.port === port));
  const { text } = await fails(['chk', target, '--send', 'xy'], 'isthmus', 'PEERNOSMC', /for programs of Node\.js/);
  assert.ok(text.includes(`nginx (process ${nginx.pid}) is no Node.js program`));
});

test('chk: a server of another user', { skip: skip || (!isRoot && 'only root can be somebody else') }, async () => {
  chmodSync(work.directory, 0o755);
  const code = file('theirs.cjs', ECHO);
  const server = work.start(NODE, [code], { uid: 4712, gid: 4712, env: { PATH: process.env.PATH } });
  const [, port] = await server.says(/port (\d+)/);
  // Somebody who may not look into it, with a place of its own.
  const stranger = {
    uid: 4713,
    gid: 4713,
    cwd: '/',
    env: { ...work.env, ISTHMUS_RUNTIME_DIR: join(work.directory, 'own') },
  };
  mkdirSync(stranger.env.ISTHMUS_RUNTIME_DIR);
  chownSync(stranger.env.ISTHMUS_RUNTIME_DIR, 4713, 4713);
  const { stdout } = await work.finish(
    NODE,
    [CLI, 'chk', `:${port}`, '--send', 'xy', '--json', '--timeout', '3'],
    stranger,
  );
  const { steps } = JSON.parse(stdout) as Outcome;
  assert.match(
    steps.find(({ step }) => step === 'server')?.text ?? '',
    /a process of user 4712; which one can be seen by that user and root/,
  );
  assert.deepEqual([steps.at(-1)?.step, steps.at(-1)?.reason?.name], ['announcement', 'PEERNOSMC']);
});

test('called wrongly they say how', async () => {
  for (const args of [
    ['chk'],
    ['chk', 'a:1', 'b:2'],
    ['chk', 'localhost'],
    ['chk', 'localhost:65536'],
    ['chk', '::1:80'],
    ['chk', ':80', '--send', 'x\\q'],
    ['chk', ':80', '--send', 'x'],
    ['chk', ':80', '--timeout', 'soon'],
    ['doctor', 'now'],
  ]) {
    const { code, stdout, stderr } = await isthmus(args);
    assert.deepEqual([code, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^isthmus: .+; isthmus (chk|doctor) --help tells what it takes\n$/);
  }
});
