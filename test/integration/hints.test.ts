/**
 * What helps, as `isthmus ss -d` shows it, done word for word, leads out of it: the next connection moves, or this one does. The reasons of
 * a fabric and of peers are followed where they are provoked, in reasons-of-peers.test.ts; what `isthmus doctor` and `chk` advise in chk.test.ts.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { constants } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { readTables } from '../../src/cli/rows.ts';
import type { ReasonName } from '../../src/smc/reasons.ts';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove } from './commands.ts';
import { INDEX_URL, TLS_FILES } from './exchange.ts';
import { cannotFilter, FILTER } from './seccomp.ts';
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
  return spawnSync('sh', ['-c', shell], { env: settings, encoding: 'utf8', timeout: 60_000, maxBuffer: 1 << 30 });
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

/** Stops the fabric that has introduced two programs by now. */
function stopFabric(): number {
  const { pid } = JSON.parse(follow('isthmus fabric status --json').stdout);
  process.kill(pid, 'SIGSTOP');
  return pid;
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

test('NOBYTE: it is looked at with its first byte, and moves', { skip }, async () => {
  const { server, port } = await listening(stage);
  const client = stage.run(TALKER);
  for (const one of [client, server]) one.tell('quiet');
  client.tell(`connect ${port}`);
  for (const one of [client, server]) await one.stays('NOBYTE');
  client.tell('byte');
  await move(client, server);
});

test('AGREED: it moves with the next bytes', { skip }, async () => {
  const enough = { ISTHMUS_POLICY: 'lazy', ISTHMUS_LAZY_MS: '3600000', ISTHMUS_LAZY_BYTES: '2' };
  const { server, port } = await listening(stage, enough);
  const client = stage.run(TALKER, [], enough);
  for (const one of [client, server]) one.tell('quiet');
  client.tell(`connect ${port}`);
  await client.says('connection');
  for (let i = 0; i < 2; i++) client.tell('byte');
  for (const one of [client, server]) await one.stays('AGREED'); // they had passed when it was looked at
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
    stopFabric();
    const { client, server } = await pair();
    const { hint } = await client.stays('FABRICSILENT');
    assert.equal(follow(commandOf(hint, beginning)).status, 0);
    await move(client, server);
  }
});

test('FABRICLOST: another fabric is started when it is needed', { skip }, async () => {
  // It passes at once.
  const telling = `${TALKER}
    const { subscribe } = await import('node:diagnostics_channel');
    subscribe('isthmus:connection', ({ info }) => tell(info.reason.name + ' ' + info.reason.hint));
    tell('tells');`;
  const { port } = await listening(stage, { NODE_OPTIONS: '' });
  const client = stage.run(telling);
  await client.says('tells');
  client.tell(`connect ${port}`);
  await client.stays('PEERNOSMC');
  let pid = 0;
  await eventually('it is announced', () => {
    const { stdout } = follow('isthmus fabric status --json');
    if (stdout === '' || JSON.parse(stdout).counters.announced === 0) return false;
    pid = JSON.parse(stdout).pid;
    return true;
  });
  process.kill(pid, 'SIGKILL');
  assert.match(await client.says('FABRICLOST '), /^nothing: it is started anew/);
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

test('DENIED: without the rule in the line that is named it moves', { skip }, async () => {
  const file = stage.file('policy.conf', '# by us\ndeny connect *:*\n');
  chmodSync(file, 0o600);
  const { client, port } = await pair({}, { ISTHMUS_CONFIG: file });
  const [, path = '', line] = /the rule stands in (.+):(\d+)$/.exec(await asked(client, 'DENIED')) ?? [];
  assert.deepEqual([path, line], [file, '2']);
  assert.equal(follow(`sed -i ${line}d ${path}`).status, 0);
  const again = stage.run(TALKER, [], { ISTHMUS_CONFIG: file });
  again.tell(`connect ${port}`);
  await again.moves();
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

/** Has as many descriptors as leave so many of 128. */
const hoarding = (left: number) =>
  TALKER.replace(
    "told('connect', ",
    `const { openSync, readdirSync } = await import('node:fs');
     const hoard = () => { for (let used = readdirSync('/proc/self/fd').length - 1; used < 128 - ${left}; used++) openSync('/dev/null'); };
     told('hoard', hoard);
     told('connect', `,
  );
const limitedBy = (command: string) => ['sh', '-c', `${command}; exec "$@"`, 'sh'];

test('SYSTEM: few descriptors, however few, are no riddle; with the limit that is named it moves', {
  skip,
}, async () => {
  const before = await pair(); // a fabric is there, with all that it needs
  await move(before.client, before.server);
  const hints = new Set<string>();
  const clients = [1, 3, 5, 7, 9].map((left) => stage.run(hoarding(left), [], {}, limitedBy('ulimit -n 128')));
  for (const client of clients) for (const line of ['hoard', `connect ${before.port}`]) client.tell(line);
  for (const client of clients) {
    await client.says('connection');
    client.tell('ask SYSTEM');
  }
  for (const client of clients) {
    const said = () => client.lines.find((line) => line.startsWith('reason '));
    const hasMoved = () => client.connections.some(({ mode }) => mode === 'SMC-D');
    await eventually(`SYSTEM, or moved: ${client.lines}`, () => said() !== undefined || hasMoved());
    const line = said();
    if (line !== undefined) hints.add(JSON.parse(line.slice('reason '.length)).hint);
  }
  assert.equal(hints.size, 1);
  const [hint = ''] = hints;
  const again = stage.run(hoarding(1), [], {}, limitedBy(commandOf(hint, 'ulimit')));
  for (const line of ['hoard', `connect ${before.port}`]) again.tell(line);
  await again.moves();
});

test('SYSTEM and KERNEL: doctor names the call, uname the kernel; where the call is allowed it moves', {
  skip: cannotFilter(),
}, async () => {
  const filter = `--import=file://${stage.file('filter.mjs', FILTER)}`;
  const { port } = await listening(stage);
  for (const [errno, name, command, shown] of [
    ['EIO', 'SYSTEM', 'isthmus doctor', /FAIL +kernel .* SYSTEM: .*getsockopt EIO/],
    ['EPERM', 'SYSTEM', null, /./],
    ['ENOPROTOOPT', 'KERNEL', 'uname -r', /^\d+\.\d+/],
  ] as const) {
    const ERRNO = String(constants.errno[errno]);
    const client = stage.run(TALKER, [], { ERRNO, NODE_OPTIONS: `${filter} ${stage.env().NODE_OPTIONS}` });
    client.tell(`connect ${port}`);
    const hint = await asked(client, name);
    if (command === null) assert.match(hint, /filter \(seccomp\).*allow the program this call/);
    else assert.match(follow(commandOf(hint, command), { ERRNO, NODE_OPTIONS: filter }).stdout, shown);
  }
  const again = stage.run(TALKER);
  again.tell(`connect ${port}`);
  await again.moves();
});

test('HANDSHAKES: its turn comes, and the variable that is named allows more', { skip }, async () => {
  const { server, port } = await listening(stage);
  const start = async (env: NodeJS.ProcessEnv) => {
    const client = stage.run(TALKER, [], env);
    client.tell(`connect ${port}`);
    await client.moves();
    const fabric = stopFabric(); // what is announced now is under way for as long
    for (let i = 0; i < 2; i++) client.tell(`connect ${port}`);
    return { client, fabric };
  };
  const few = await start({ ISTHMUS_MAX_HANDSHAKES: '1' });
  const { hint } = await few.client.stays('HANDSHAKES');
  assert.match(hint, /^nothing: its turn comes/);
  process.kill(few.fabric, 'SIGCONT');
  await Promise.all([few.client.moves(3), server.moves(3)]);
  const [variable = ''] = /ISTHMUS_\w+/.exec(hint) ?? [];
  const more = await start({ [variable]: '2' });
  const names = () => more.client.connections.map(({ reason }) => reason.name).sort();
  await eventually('both are announced', () => names().join() === 'FABRICSILENT,FABRICSILENT,MOVED');
  process.kill(more.fabric, 'SIGCONT');
  await more.client.moves(3);
});

test('HANDSHAKES in-band: further ones move when fewer are under way', { skip }, async () => {
  const inBand = { ISTHMUS_IN_BAND: '127.0.0.1:*' };
  const { server, port } = await listening(stage, { ...inBand, ISTHMUS_MAX_HANDSHAKES: '1' });
  const silent = connect(Number(port), '127.0.0.1').on('error', () => {});
  await once(silent, 'connect');
  const client = stage.run(TALKER, [], inBand);
  client.tell(`connect ${port}`);
  const { hint } = await server.stays('HANDSHAKES');
  await client.stays('OPTUNSUPP');
  assert.match(hint, /^further connections move when fewer are under way/);
  silent.destroy();
  client.tell(`connect ${port}`);
  await move(client, server);
});

/** Gives each connection to a child, which attaches it. `make` is how the server is made, `when` it is given. */
const giving = (make: string, when: string) => `${PRELUDE}
  import { fork } from 'node:child_process';
  const { attach } = await import(${JSON.stringify(INDEX_URL)});
  const took = (socket) => { socket.on('error', () => {}).resume(); setInterval(() => socket.write('.'), 5); attach(socket, 'server'); };
  if (args[0] === 'child') {
    process.once('message', (_, socket) => took(socket)).on('disconnect', () => process.exit());
    process.send('ready');
  } else {
    const child = fork(process.argv[1], ['child'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    process.stdin.on('end', () => child.kill());
    child.once('message', () => {
      tell('child ' + child.pid);
      const server = net.${make};
      const give = (socket) => child.send('take it', socket, { keepOpen: true });
      server.on('connection', (socket) => ${when});
      server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
    });
  }
`;
async function given(make: string, when: string): Promise<{ parent: Program; client: Program; child: string }> {
  const parent = stage.run(giving(make, when));
  const child = await parent.says('child ');
  const client = stage.run(TALKER);
  client.tell(`connect ${await parent.says('port ')}`);
  return { parent, client, child };
}

test('PASSEDON and GIVENAWAY: passed on before its first byte, and attached there, it moves there', {
  skip,
}, async () => {
  const late = await given('createServer()', `socket.once('data', () => give(socket))`);
  const rowOf = (child: string) => readTables(child).rows[0];
  await eventually('PASSEDON', () => rowOf(late.child)?.reason.name === 'PASSEDON');
  const advised = commandOf(rowOf(late.child)?.reason.hint ?? '', 'createServer');
  const early = await given(advised, 'give(socket)');
  const { hint } = await early.parent.stays('GIVENAWAY');
  assert.match(hint, /once `attach` is called for it, if no byte had passed/);
  await eventually('moved in the child', () => rowOf(early.child)?.mode === 'SMC-D');
  await early.client.moves();
});

/** Of a later version: it answers in words that are none of ours. */
const LATER_FABRIC = `
  const os = await import(${JSON.stringify(new URL('../../src/os/index.js', import.meta.url).href)});
  const listener = os.listenPackets(process.argv[2]);
  console.log('listens');
  const answer = (fd) => {
    const hello = os.receivePacket(fd);
    if (hello === null) { setTimeout(answer, 10, fd); return; }
    if (hello === 'end') return;
    try {
      os.sendPacket(fd, Buffer.from('something new'));
      os.ringSocket(hello.fds[0]);
    } catch {} // it has given up
  };
  setInterval(() => {
    for (let fd; (fd = os.acceptPackets(listener)) !== null; ) answer(fd);
  }, 10);
`;

test('PROTOCOL: the command that ends a fabric of another version', { skip }, async () => {
  const later = stage.run(LATER_FABRIC, [join(stage.directory, 'fabric.sock')], { NODE_OPTIONS: '' });
  await later.says('listens');
  const { client, server } = await pair();
  const { hint } = await client.stays('PROTOCOL');
  assert.equal(follow(commandOf(hint, 'kill')).status, 0);
  await later.exited;
  await move(client, server);
});
