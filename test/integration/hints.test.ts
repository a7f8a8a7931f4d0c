/**
 * What helps, as `isthmus ss -d` shows it, done word for word, leads out of it: the next connection moves, or this one does. The reasons of
 * a fabric and of peers are followed where they are provoked, in reasons-of-peers.test.ts; what `isthmus doctor` and `chk` advise in chk.test.ts.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { ReasonName } from '../../src/smc/reasons.ts';
import { CLI, cannotMove } from './commands.ts';
import { INDEX_URL, TLS_FILES } from './exchange.ts';
import { listening, TALKER } from './talker.ts';
import { PRELUDE, type Program, Stage } from './two-programs.ts';

const skip = cannotMove();
let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

/** The commands in a hint. */
const commandsOf = (hint: string): string[] => [...hint.matchAll(/`([^`]+)`/g)].map(([, command = '']) => command);

function commandOf(hint: string, beginning: string): string {
  const command = commandsOf(hint).find((one) => one.startsWith(beginning));
  assert.ok(command, `${beginning} in: ${hint}`);
  return command;
}

/** Runs it in a shell of the programs' settings, in which `isthmus` is that of this package. */
function follow(
  command: string,
  env: NodeJS.ProcessEnv = {},
): { status: number | null; stdout: string; stderr: string } {
  const shell = `isthmus() { "${process.execPath}" "${CLI}" "$@"; }; ${command}`;
  const settings = stage.env({ NODE_OPTIONS: '', ...env });
  return spawnSync('sh', ['-c', shell], { env: settings, encoding: 'utf8', timeout: 60_000 });
}

async function pair(
  ofServer: NodeJS.ProcessEnv = {},
  ofClient: NodeJS.ProcessEnv = {},
): Promise<{ server: Program; client: Program; port: string }> {
  const { server, port } = await listening(stage, ofServer);
  const client = stage.run(TALKER, [], ofClient);
  client.tell(`connect ${port}`);
  return { server, client, port };
}

const move = (...programs: Program[]) => Promise.all(programs.map((one) => one.moves()));

/** What helps, as info() says once it is the last connection's reason: of those that nobody has looked at there is no row. */
async function asked(program: Program, name: ReasonName): Promise<string> {
  await program.says('connection');
  program.tell(`ask ${name}`);
  return JSON.parse(await program.says('reason ')).hint;
}

test('PEERNOSMC: chk finds what is missing, and what it says helps', { skip }, async () => {
  const { server, client, port } = await pair({ NODE_OPTIONS: '' });
  const { hint } = await client.stays('PEERNOSMC');
  const chk = commandOf(hint, 'isthmus chk');
  assert.equal(chk, `isthmus chk 127.0.0.1:${port}`);
  const { status, stdout } = follow(chk);
  assert.equal(status, 1);
  const run = commandOf(stdout, 'isthmus run');
  const again = stage.start([process.execPath, CLI, ...run.split(' ').slice(1)], { NODE_OPTIONS: '' });
  again.tell('listen');
  client.tell(`connect ${await again.says('port ')}`);
  await client.moves();
  server.child.kill();
});

test('OFF and YOUNG: with the policy that is named they move', { skip }, async () => {
  const patient = { ISTHMUS_POLICY: 'lazy', ISTHMUS_LAZY_MS: '3600000', ISTHMUS_LAZY_BYTES: '1e12' };
  for (const [name, env] of [
    ['OFF', { ISTHMUS_POLICY: 'off' }],
    ['YOUNG', patient],
  ] as const) {
    const { client, port } = await pair({}, env);
    const [, policy] = /ISTHMUS_POLICY=(\w+)/.exec(await asked(client, name)) ?? [];
    const again = stage.run(TALKER, [], { ISTHMUS_POLICY: policy });
    again.tell(`connect ${port}`);
    await again.moves();
  }
});

test('NOBYTE and CHECKING: they move with the next bytes', { skip }, async () => {
  const { server, port } = await listening(stage);
  const client = stage.run(TALKER);
  for (const one of [client, server]) one.tell('quiet');
  client.tell(`connect ${port}`);
  for (const one of [client, server]) await one.stays('NOBYTE');
  client.tell('byte');
  for (const one of [client, server]) await one.stays('CHECKING');
  for (const one of [client, server]) one.tell('talk');
  await move(client, server);
});

test('NOUEID: the command that brings the built-in one back', { skip }, async () => {
  const { client, server, port } = await pair();
  await move(client, server);
  assert.equal(follow('isthmus ueid flush').status, 0);
  client.tell(`connect ${port}`);
  const { hint } = await client.stays('NOUEID');
  assert.equal(follow(commandOf(hint, 'isthmus ueid show')).stdout, '');
  assert.equal(follow(commandOf(hint, 'isthmus ueid add')).status, 0);
  client.tell(`connect ${port}`);
  await client.moves(2);
});

test('NOSMCD2DEV: chk names the two fabrics', { skip }, async () => {
  const other = join(stage.directory, 'other');
  const inBand = { ISTHMUS_IN_BAND: '127.0.0.1:*' };
  const { client, server, port } = await pair({ ...inBand, ISTHMUS_RUNTIME_DIR: other }, inBand);
  await server.stays('NOSMCD2DEV');
  const { hint } = await client.stays('NOSMCD2DEV');
  const { status, stdout } = follow(commandOf(hint, 'isthmus chk'), inBand);
  assert.equal(status, 1);
  for (const directory of [other, stage.directory]) assert.ok(stdout.includes(`${directory}/fabric.sock`), stdout);
  const again = stage.run(TALKER, [], { ...inBand, ISTHMUS_RUNTIME_DIR: other });
  again.tell(`connect ${port}`);
  await again.moves();
});

test('OPTUNSUPP: chk shows why the other end does not want it', { skip }, async () => {
  const inBand = { ISTHMUS_IN_BAND: '127.0.0.1:*' };
  const { client, server } = await pair({ ...inBand, ISTHMUS_RULES: 'deny' }, inBand);
  const { hint } = await client.stays('OPTUNSUPP');
  await server.stays('DENIED');
  const { stdout } = follow(commandOf(hint, 'isthmus chk'), inBand);
  assert.match(stdout, /DENIED/);
  assert.match(follow(commandOf(hint, 'isthmus ss -d')).stdout, /DENIED .*a rule of the policy denies it: deny/);
});

test('NOFABRIC: the command that starts one where it was named', { skip }, async () => {
  const env = { ISTHMUS_FABRIC: join(stage.directory, 'named.sock') };
  const { client, server } = await pair(env, env);
  const { hint } = await client.stays('NOFABRIC');
  const command = commandOf(hint, 'isthmus fabric');
  stage.start([process.execPath, CLI, ...command.split(' ').slice(1)], { NODE_OPTIONS: '' });
  await move(client, server);
});

test('UNTRUSTED: the command that makes the place ours alone', { skip }, async () => {
  const directory = join(stage.directory, 'open');
  mkdirSync(directory);
  const env = { ISTHMUS_RUNTIME_DIR: directory };
  const before = await pair(env, env);
  await move(before.client, before.server);
  chmodSync(directory, 0o777);
  const { client, server } = await pair(env, env);
  const { hint } = await client.stays('UNTRUSTED');
  assert.equal(follow(commandOf(hint, 'chmod')).status, 0);
  await move(client, server);
});

test('FABRICSILENT: the commands that continue it, and that end it', { skip }, async () => {
  for (const beginning of ['kill -CONT', 'kill -9']) {
    const before = await pair();
    await move(before.client, before.server);
    const shown = follow('isthmus fabric status --json');
    process.kill(JSON.parse(shown.stdout).pid, 'SIGSTOP');
    const { client, server } = await pair();
    const { hint } = await client.stays('FABRICSILENT');
    assert.equal(follow(commandOf(hint, beginning)).status, 0);
    await move(client, server);
  }
});

test('FABRICLOST: another fabric is started when it is needed', { skip }, async () => {
  const { client } = await pair({ NODE_OPTIONS: '' });
  await client.stays('PEERNOSMC');
  process.kill(JSON.parse(follow('isthmus fabric status --json').stdout).pid, 'SIGKILL');
  const { hint } = await client.stays('FABRICLOST');
  assert.match(hint, /^nothing: it is started anew/);
  await client.stays('PEERNOSMC');
  const { client: next, server } = await pair();
  await move(next, server);
});

test('RESTORED: accelerate moves it again', { skip }, async () => {
  const { client, server } = await pair();
  await move(client, server);
  client.tell('restore');
  const { hint } = await client.stays('RESTORED');
  client.tell(commandOf(hint, 'accelerate'));
  assert.equal(await client.says('accelerated '), 'SMC-D');
});

test('OVERRIDDEN: methods on the prototype are called', { skip }, async () => {
  /** @param place what has a method of the program's own */
  const counting = (place: string) =>
    TALKER.replace(
      'const sockets',
      `const { connect, Socket: { prototype: { write } } } = net;
       let written = 0;
       const own = { write(...args) { if (++written === 20) tell('called'); return write.apply(this, args); } };
       net.connect = (...all) => { const socket = connect(...all); Object.assign(${place}, own); return socket; };
       const sockets`,
    );
  const { port } = await listening(stage);
  const before = stage.run(counting('socket'));
  before.tell(`connect ${port}`);
  const { hint } = await before.stays('OVERRIDDEN');
  const client = stage.run(counting(commandOf(hint, 'net.Socket')));
  client.tell(`connect ${port}`);
  await client.moves();
  await client.says('called');
});

test('TLS: without localAddress it moves', { skip }, async () => {
  const program = `${PRELUDE}
    import tls from 'node:tls';
    import { readFileSync } from 'node:fs';
    const { info } = await import(${JSON.stringify(INDEX_URL)});
    const [key, cert] = ['key.pem', 'cert.pem'].map((name) => readFileSync(${JSON.stringify(TLS_FILES)} + '/' + name));
    const server = tls.createServer({ key, cert }, (socket) => socket.on('error', () => {}).pipe(socket));
    server.listen(0, '127.0.0.1', () => {
      const socket = tls.connect({ port: server.address().port, host: '127.0.0.1', rejectUnauthorized: false, ...JSON.parse(args[0]) });
      socket.resume();
      setInterval(() => socket.write('.'), 5);
      setInterval(() => { if (info(socket).reason.name === 'TLS') tell('TLS ' + info(socket).reason.hint); }, 20);
    });`;
  const stays = stage.run(program, [JSON.stringify({ localAddress: '127.0.0.1' })]);
  assert.match(await stays.says('TLS '), /sets no `localAddress`/);
  await stage.run(program, ['{}']).moves();
});

test('HTTP2: to an address it moves', { skip }, async () => {
  const program = `${PRELUDE}
    import http2 from 'node:http2';
    const server = http2.createServer().on('stream', (stream) => stream.on('error', () => {}).pipe(stream));
    server.listen(0, '127.0.0.1', () => {
      const lookup = (_name, { all }, found) => all ? found(null, [{ address: '127.0.0.1', family: 4 }]) : found(null, '127.0.0.1', 4);
      const stream = http2.connect('http://' + args[0] + ':' + server.address().port, { lookup }).request({ ':method': 'POST' });
      stream.resume();
      setInterval(() => stream.write('.'), 5);
    });`;
  const { hint } = await stage.run(program, ['some.name.invalid']).stays('HTTP2');
  assert.match(hint, /an address, to localhost/);
  await Promise.all(['127.0.0.1', 'localhost'].map((name) => stage.run(program, [name]).moves()));
});

test('BADPOLICY: a program whose rules are corrected moves when it is started anew', { skip }, async () => {
  const { client, port } = await pair({}, { ISTHMUS_RULES: 'denie' });
  assert.match(await asked(client, 'BADPOLICY'), /correct ISTHMUS_RULES and start the program anew/);
  const again = stage.run(TALKER, [], { ISTHMUS_RULES: 'allow' });
  again.tell(`connect ${port}`);
  await again.moves();
});

test('INTERNALS: doctor tests the Node.js that runs it', { skip }, async () => {
  const change = stage.file(
    'change.mjs',
    `import net from 'node:net'; const { _final } = net.Socket.prototype; net.Socket.prototype._final = function (...all) { return _final.apply(this, all); };`,
  );
  const { client, server } = await pair({ NODE_OPTIONS: `--import=file://${change} ${stage.env().NODE_OPTIONS}` });
  await client.stays('PEERNOSMC');
  const hint = await asked(server, 'INTERNALS');
  const { stdout } = follow(commandOf(hint, 'isthmus doctor'), { NODE_OPTIONS: `--import=file://${change}` });
  assert.match(stdout, /FAIL +Node\.js .*INTERNALS/);
});
