/** What the policy file and the rules say is what two programs do that run with it, also when it changes meanwhile. */
import assert from 'node:assert/strict';
import { chmodSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { ReasonName } from '../../src/smc/reasons.ts';
import { eventually } from '../../src/testing/index.ts';
import { cannotMove, ROOT } from './commands.ts';
import { EXCHANGE, TLS_FILES } from './exchange.ts';
import { PRELUDE, type Program, Stage } from './two-programs.ts';

const skip = cannotMove();

let stage: Stage;
let file: string;
beforeEach(() => {
  stage = new Stage();
  file = join(stage.directory, 'policy.conf');
});
afterEach(() => stage.close());

/** Listens, connects, and tells of its connections in the order in which it got them. */
const PEER = `${PRELUDE}
  const { accelerate, info } = await import(process.env.INDEX_URL);
  const sockets = [];
  const keep = (socket) => { sockets.push(socket); socket.resume().on('error', () => {}); };
  const servers = [];
  told('listen', (port) => {
    const server = net.createServer(keep).listen(+port, '127.0.0.1', () => tell('port ' + servers.push(server) + ' ' + server.address().port));
  });
  told('connect', (port) => {
    const socket = net.connect(+port, '127.0.0.1', () => keep(socket));
    const traffic = setInterval(() => socket.write('tick'), 5);
    socket.on('close', () => clearInterval(traffic));
  });
  told('ask', (id) => tell('answer ' + id + ' ' + JSON.stringify(sockets.map((socket) => info(socket)))));
  told('accelerate', async (index) => tell('accelerated ' + (await accelerate(sockets[index], { timeoutMs: 300 })).reason.name));
  setInterval(() => {}, 1000);
  tell('ready');
`;

const INDEX_URL = `file://${join(ROOT, 'dist/lib/index.js')}`;

function run(env: NodeJS.ProcessEnv, code = PEER): Program {
  return stage.run(code, [], { INDEX_URL, TLS_FILES, ...env });
}

/** In one step, so that nobody reads half of it. */
function write(text: string, mode = 0o600): void {
  writeFileSync(`${file}.new`, text, { mode });
  chmodSync(`${file}.new`, mode);
  renameSync(`${file}.new`, file);
}

interface Told {
  readonly mode: string;
  readonly reason: { readonly name: string; readonly text: string; readonly hint: string };
}

/** As `eventually`, of what has to be asked for. */
async function comesAbout(what: string, holds: () => Promise<boolean>): Promise<void> {
  let is = false;
  let isAsking = false;
  const ask = async () => {
    isAsking = true;
    is = await holds();
    isAsking = false;
  };
  await eventually(what, () => {
    if (!is && !isAsking) void ask();
    return is;
  });
}

let asked = 0;
async function connectionsOf(program: Program): Promise<Told[]> {
  const id = ++asked;
  program.tell(`ask ${id}`);
  return JSON.parse(await program.says(`answer ${id} `)) as Told[];
}

/** Waits until the connection has come to this. */
async function comesTo(program: Program, index: number, reason: ReasonName): Promise<Told> {
  let found: Told | undefined;
  await comesAbout(`connection ${index} ${reason}, not ${found?.reason.name}`, async () => {
    found = (await connectionsOf(program))[index];
    return found?.reason.name === reason;
  });
  return found as Told;
}

async function connect(client: Program, port: string | undefined): Promise<void> {
  await client.says('ready');
  client.tell(`connect ${port}`);
}

/** One after the other, until one that came after the first is seen there with this reason. */
async function connectsUntil(
  client: Program,
  port: string | undefined,
  at: Program,
  reason: ReasonName,
): Promise<void> {
  const before = (await connectionsOf(at)).length;
  await comesAbout(`a connection is ${reason}`, async () => {
    await connect(client, port);
    await pause(100);
    return (await connectionsOf(at)).slice(before).some((told) => told.reason.name === reason);
  });
}

async function listen(server: Program, count = 1): Promise<string[]> {
  await server.says('ready');
  const ports: string[] = [];
  for (let i = 1; i <= count; i++) {
    server.tell('listen 0');
    ports.push(await server.says(`port ${i} `));
  }
  return ports;
}

const names = () => userInfo().username;

/** [what, rules with A for a port, why at the server, why at the client, of its connection; of that to another port] */
type Row = readonly [string, string, readonly ReasonName[], readonly ReasonName[]];
const MOVED: readonly ReasonName[] = ['MOVED', 'MOVED'];

const ROWS: readonly Row[] = [
  ['by port', 'deny *:A', ['DENIED', 'DENIED'], MOVED],
  ['by address and port', 'deny 127.0.0.0/8:A', ['DENIED', 'DENIED'], MOVED],
  ['by another address not', 'deny 10.0.0.0/8:*', MOVED, MOVED],
  ['by direction: who connects', 'deny connect *:A', ['PEERNOSMC', 'DENIED'], MOVED],
  ['by direction: who accepts', 'deny accept *:A', ['DENIED', 'PEERNOSMC'], MOVED],
  ['by number of the user', `deny user ${process.geteuid?.()} *:A`, ['DENIED', 'DENIED'], MOVED],
  ['by name of the user', `deny user ${names()} *:A`, ['DENIED', 'DENIED'], MOVED],
  ['by another user not', 'deny user 4711\ndeny user no-such-user', MOVED, MOVED],
  ['by program', 'deny program program-0.mjs *:A', ['DENIED', 'PEERNOSMC'], MOVED],
  ['by a path', 'deny program /*/program-1.* *:A', ['PEERNOSMC', 'DENIED'], MOVED],
  ['by the first rule that fits', 'allow *:A\ndeny', MOVED, ['DENIED', 'DENIED']],
];

for (const [what, rules, ofFirst, ofSecond] of ROWS) {
  test(`a connection is denied ${what}`, { skip }, async () => {
    const server = run({ ISTHMUS_CONFIG: file });
    write('ISTHMUS_POLICY=eager\n');
    const [first = '', second = ''] = await listen(server, 2);
    write(rules.replaceAll('*:A', `*:${first}`).replaceAll('8:A', `8:${first}`));
    const client = run({ ISTHMUS_CONFIG: file });
    await client.says('ready');
    for (const [index, [port, reasons]] of [
      [first, ofFirst],
      [second, ofSecond],
    ].entries() as IterableIterator<[number, [string, readonly ReasonName[]]]>) {
      await connect(client, port);
      for (const [i, program] of [server, client].entries()) {
        const { reason } = await comesTo(program, index, reasons[i] as ReasonName);
        if (reason.name === 'DENIED') assert.match(reason.hint, new RegExp(`${file}:[12]$`));
      }
    }
    assert.equal(server.stderr + client.stderr, '');
  });
}

test('rules of the environment come before those of the file', { skip }, async () => {
  write('deny\n');
  const server = run({ ISTHMUS_CONFIG: file, ISTHMUS_RULES: 'allow accept' });
  const [port] = await listen(server);
  const client = run({ ISTHMUS_CONFIG: file, ISTHMUS_RULES: `deny connect *:1; allow connect *:${port}` });
  await connect(client, port);
  for (const program of [client, server]) await comesTo(program, 0, 'MOVED');
});

test('what is denied loads nothing that could move it, and is not accelerated', { skip }, async () => {
  const server = run({ ISTHMUS_RULES: 'deny' });
  const [port] = await listen(server);
  const client = run({ ISTHMUS_RULES: `deny *:${port}` });
  await connect(client, port);
  const { reason } = await comesTo(client, 0, 'DENIED');
  assert.match(`${reason.text} ${reason.hint}`, /deny \*:\d+ .*ISTHMUS_RULES/);
  client.tell('accelerate 0');
  assert.equal(await client.says('accelerated '), 'DENIED');
  for (const program of [client, server]) {
    await comesTo(program, 0, 'DENIED');
    assert.doesNotMatch(readFileSync(`/proc/${program.pid}/maps`, 'utf8'), /koffi/);
  }
});

test('a file that is rewritten holds for the connections that come, and leaves those that have moved', {
  skip,
}, async () => {
  write('deny\n');
  const [server, client] = [run({ ISTHMUS_CONFIG: file }), run({ ISTHMUS_CONFIG: file })];
  const [port] = await listen(server);
  await connectsUntil(client, port, client, 'DENIED');
  write('allow\n');
  await connectsUntil(client, port, client, 'MOVED');
  const moved = (await connectionsOf(client)).findIndex(({ mode }) => mode === 'SMC-D');
  write('deny\n');
  for (const program of [client, server]) await connectsUntil(client, port, program, 'DENIED');
  await comesTo(client, moved, 'MOVED');
  assert.equal(server.stderr + client.stderr, '');
});

test('a file with a mistake keeps all on TCP, says where it is, and is read again', { skip }, async () => {
  write('# a policy\nISTHMUS_POLCY=eager\ndeny 5432\n');
  const server = run({});
  const [port] = await listen(server);
  const client = run({ ISTHMUS_CONFIG: file });
  await connect(client, port);
  const { reason } = await comesTo(client, 0, 'BADPOLICY');
  const mistake = `${file}:2: there is no setting ISTHMUS_POLCY (did you mean ISTHMUS_POLICY?)`;
  assert.ok(reason.text.includes(mistake), reason.text);
  assert.match(client.stderr, /IsthmusWarning/);
  assert.ok(client.stderr.includes(mistake), client.stderr);
  write('ISTHMUS_POLICY=eager\n');
  await connectsUntil(client, port, client, 'MOVED');
  assert.equal(client.stderr.split('IsthmusWarning').length, 2, client.stderr);
});

test('a mistake that comes later leaves the policy as it was, with one warning', { skip }, async () => {
  const server = run({});
  const [first = '', second = ''] = await listen(server, 2);
  write(`deny *:${first}\n`);
  const client = run({ ISTHMUS_CONFIG: file });
  await connect(client, first);
  await comesTo(client, 0, 'DENIED');
  write('allow all\n');
  let made = 0;
  await comesAbout('warned', async () => {
    await connect(client, first);
    made++;
    await pause(100);
    return client.stderr.includes(`${file}:1: `);
  });
  await connect(client, second);
  await comesTo(client, ++made, 'MOVED');
  const before = (await connectionsOf(client)).slice(0, made);
  assert.ok(before.every(({ reason }) => ['DENIED', 'YOUNG'].includes(reason.name)));
  assert.match(client.stderr, /stays as it was/);
  assert.equal(client.stderr.split('IsthmusWarning').length, 2, client.stderr);
});

/** [what, what makes it so, in words] */
const UNUSABLE: readonly (readonly [string, () => void, RegExp])[] = [
  ['can be written by others', () => write('allow\n', 0o622), /can be written by others/],
  ['can be written by its group', () => write('allow\n', 0o660), /can be written by others/],
  ['is not there although it was named', () => rmSync(file, { force: true }), /there is no such file/],
];
for (const [what, make, words] of UNUSABLE) {
  test(`a file that ${what} is not used, and all stays on TCP`, { skip }, async () => {
    make();
    const server = run({ ISTHMUS_CONFIG: file });
    const [port] = await listen(server);
    const client = run({});
    await connect(client, port);
    const { reason } = await comesTo(server, 0, 'BADPOLICY');
    assert.match(reason.text, words);
    assert.match(server.stderr, words);
  });
}

test('off in the file can be turned on without a restart; off in the environment cannot', { skip }, async () => {
  write('ISTHMUS_POLICY=off\n');
  const env = { ISTHMUS_CONFIG: file, ISTHMUS_POLICY: '' };
  const [server, client] = [run(env), run(env)];
  const never = run({ ...env, ISTHMUS_POLICY: 'off' });
  const [port] = await listen(server);
  for (const one of [client, never]) await connect(one, port);
  const { reason } = await comesTo(client, 0, 'OFF');
  assert.ok(reason.text.includes(`${file}:1`));
  write('ISTHMUS_POLICY=eager\n');
  await connectsUntil(client, port, client, 'MOVED');
  await comesTo(never, 0, 'OFF');
});

test('more handshakes than may be under way at once wait for their turn, and move', { skip }, async () => {
  const code = `${PRELUDE}
    import { subscribe } from 'node:diagnostics_channel';
    const { info } = await import(process.env.INDEX_URL);
    const COUNT = 20, waited = new Set(), sockets = [];
    subscribe('isthmus:connection', ({ socket, info }) => { if (info.reason.name === 'HANDSHAKES') waited.add(socket); });
    told('connect', (port) => {
      for (let i = 0; i < COUNT; i++) {
        const socket = net.connect(+port, '127.0.0.1').resume();
        sockets.push(socket);
        setInterval(() => socket.write('tick'), 5);
      }
      setInterval(() => { if (sockets.every((one) => info(one).mode === 'SMC-D')) tell('all ' + (waited.size > 0)); }, 20);
    });
    setInterval(() => {}, 1000); // stdin alone does not keep it running
    tell('ready');
  `;
  const server = run({});
  const [port] = await listen(server);
  const client = run({ ISTHMUS_MAX_HANDSHAKES: '2' }, code);
  await connect(client, port);
  assert.equal(await client.says('all '), 'true');
});

test('TLS and HTTP/2 on a connection that is denied read and write its handle', { skip }, async () => {
  const code = `${EXCHANGE}
    import http2 from 'node:http2';
    const { info } = await import(process.env.INDEX_URL);
    const secure = tls.createServer({ key, cert }, (socket) => tell('server ' + (socket._handle.fd >= 0)));
    await once(secure.listen(0, '127.0.0.1'), 'listening');
    const plain = http2.createServer((_request, response) => response.end('hello'));
    await once(plain.listen(0, '127.0.0.1'), 'listening');
    plain.on('session', (session) => tell('h2 server ' + (session.socket._handle === undefined ? 'led' : 'native')));
    const socket = tls.connect({ port: secure.address().port, host: '127.0.0.1', ca: cert, servername: 'localhost' }, () => {
      tell('client ' + (socket._handle.fd >= 0) + ' ' + info(socket).reason.name);
    });
    const session = http2.connect('http://127.0.0.1:' + plain.address().port);
    const [headers] = await once(session.request({ ':path': '/' }).resume(), 'response');
    tell('status ' + headers[':status']);
  `;
  for (const [rules, isNative] of [
    ['deny', true],
    ['allow', false],
  ] as const) {
    const program = run({ ISTHMUS_RULES: rules }, code);
    assert.equal(await program.says('server '), String(isNative));
    assert.match(await program.says('client '), new RegExp(`^${isNative}`));
    assert.equal(await program.says('status '), '200');
    program.child.kill();
  }
});

test('connections that shake hands in-band may stand in the file', { skip }, async () => {
  write('ISTHMUS_IN_BAND=127.0.0.1:*\n');
  const [server, client] = [run({ ISTHMUS_CONFIG: file }), run({ ISTHMUS_CONFIG: file })];
  const [port] = await listen(server);
  await connect(client, port);
  for (const program of [client, server]) {
    await comesTo(program, 0, 'MOVED');
    const [told] = (await connectionsOf(program)) as unknown as { bytes: { outTcp: number; inTcp: number } }[];
    assert.equal((told?.bytes.inTcp ?? -1) + (told?.bytes.outTcp ?? -1), 0);
  }
});

test('a connection that is denied declines in-band, and goes on', { skip }, async () => {
  const env = { ISTHMUS_IN_BAND: '127.0.0.1:*' };
  const [server, client] = [run({ ...env, ISTHMUS_RULES: 'deny' }), run(env)];
  const [port] = await listen(server);
  await connect(client, port);
  await comesTo(server, 0, 'DENIED');
  await comesTo(client, 0, 'OPTUNSUPP');
});

test('variables that are none, or out of range, are said to be so', { skip }, async () => {
  const program = run({ ISTHMUS_POLICI: 'off', ISTHMUS_DMB_BYTES: '17000', ISTHMUS_NOTHING_LIKE_IT: '1' });
  await listen(program);
  program.tell('connect 1');
  await eventually('warned', () => program.stderr.split('IsthmusWarning').length === 4);
  assert.match(program.stderr, /there is no setting ISTHMUS_POLICI \(did you mean ISTHMUS_POLICY\?\)/);
  assert.match(program.stderr, /there is no setting ISTHMUS_NOTHING_LIKE_IT\n/);
  assert.match(program.stderr, /ISTHMUS_DMB_BYTES=17000 is no power of two from 16384 to 1048576; 65536 is used/);
});

test('rules that make no sense in the environment keep all on TCP', { skip }, async () => {
  const server = run({});
  const [port] = await listen(server);
  const client = run({ ISTHMUS_RULES: `deny port ${port}` });
  await connect(client, port);
  await comesTo(client, 0, 'BADPOLICY');
  assert.match(client.stderr, /ISTHMUS_RULES: port is none of connect, accept, user, program/);
});
