/**
 * Where connections cannot move: the same programs, with Isthmus at both ends, at one, or at none, do the same, over TCP, and each end
 * says why. What the system refuses is in refused.test.ts, what Node.js has changed in internals.test.ts.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { closeFd, listenPackets } from '../../src/os/index.ts';
import type { ReasonName } from '../../src/smc/reasons.ts';
import { cannotMove, copyWithoutKoffi, ROOT } from './commands.ts';
import { EXCHANGE, TLS_FILES } from './exchange.ts';
import { type Program, Stage } from './two-programs.ts';

const skip = cannotMove();

/** In the place of the stage's folder, in values of variables. */
const HERE = '$HERE';

let stage: Stage;
/** Sockets of fabrics that nobody serves. */
let fabrics: number[] = [];
beforeEach(() => {
  stage = new Stage();
  if (skip) return;
  fabrics = ['mute', 'open/fabric.sock'].map((name) => {
    const path = join(stage.directory, name);
    mkdirSync(dirname(path), { recursive: true });
    return listenPackets(path);
  });
  chmodSync(join(stage.directory, 'open'), 0o777);
});
afterEach(async () => {
  for (const fd of fabrics.splice(0)) closeFd(fd);
  await stage.close();
});

/** Sends back whatever it gets, by each protocol. */
const SERVER = `${EXCHANGE}
  import http from 'node:http';
  import http2 from 'node:http2';
  const { info } = await import(process.env.INDEX_URL);
  const seen = { net: [], http: [] };
  const answer = (request, response) => {
    if (request.httpVersion === '1.1' && !seen.http.includes(request.socket)) seen.http.push(request.socket);
    request.pipe(response);
  };
  const servers = {
    net: net.createServer((socket) => { seen.net.push(socket); report(socket, 'net'); socket.pipe(socket); }),
    http: Object.assign(http.createServer(answer), { keepAliveTimeout: 0 }),
    tls: tls.createServer({ key, cert }, (socket) => { report(socket, 'tls'); socket.pipe(socket); }),
    h2c: http2.createServer(answer),
    h2: http2.createSecureServer({ key, cert }, answer),
  };
  const ports = {};
  for (const [name, server] of Object.entries(servers)) {
    await once(server.listen(0, '127.0.0.1'), 'listening');
    ports[name] = server.address().port;
  }
  const standing = () => Object.entries(seen).flatMap(([name, sockets]) =>
    sockets.filter(({ destroyed }) => !destroyed).map((socket) => [name, info(socket).mode, info(socket).reason.name]));
  told('tell', async (why) => {
    for (let i = 0; i < 200 && why !== 'null' && !standing().every(([, , reason]) => reason === why); i++) await pause(10);
    tell('standing ' + JSON.stringify(standing()));
  });
  told('end', () => process.exit());
  tell('ports ' + JSON.stringify(ports));
`;

/** Says what it got by each protocol, and how its ends stand once they have had the time to come to that. */
const CLIENT = `${EXCHANGE}
  import http from 'node:http';
  import http2 from 'node:http2';
  const { info } = await import(process.env.INDEX_URL);
  const ports = JSON.parse(args[0]), host = '127.0.0.1';
  const results = {}, seen = {};
  const pieces = (seed) => [1, 1000, 100_000].map((length, i) => streamOf(seed + i, length));
  const collect = async (stream) => digest(await stream.toArray());

  const onStream = async (name, stream) => {
    const bytes = Buffer.concat(pieces(1));
    const back = receive(stream, bytes.length);
    for (const piece of pieces(1)) { stream.write(piece); await pause(10); }
    results[name] = digest(await back) === digest([bytes]);
  };
  const socket = net.connect(ports.net, host);
  report(socket, 'net');
  seen.net = socket;
  await onStream('net', socket);
  const secure = tls.connect({ port: ports.tls, host, ca: cert, servername: 'localhost' });
  report(secure, 'tls');
  await onStream('tls', secure);

  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const post = async (bytes) => {
    const request = http.request({ agent, host, port: ports.http, method: 'POST' }).end(bytes);
    const [response] = await once(request, 'response');
    seen.http = response.socket;
    return await collect(response);
  };
  results.http = [];
  for (const bytes of pieces(2)) results.http.push(await post(bytes) === digest([bytes]));
  results.fetch = [];
  for (const body of pieces(3)) {
    const response = await fetch('http://' + host + ':' + ports.http, { method: 'POST', body });
    results.fetch.push(digest([Buffer.from(await response.arrayBuffer())]) === digest([body]));
  }
  for (const [name, url] of [['h2c', 'http://' + host + ':' + ports.h2c], ['h2', 'https://localhost:' + ports.h2]]) {
    const session = http2.connect(url, { ca: cert, lookup: (_name, options, found) => options.all ? found(null, [{ address: host, family: 4 }]) : found(null, host, 4) });
    report(session, name);
    const all = await Promise.all(pieces(4).map(async (bytes) => {
      const request = session.request({ ':method': 'POST' });
      request.end(bytes);
      return await collect(request) === digest([bytes]);
    }));
    results[name] = all;
    session.close();
  }
  const standing = () => Object.entries(seen).map(([name, socket]) => [name, info(socket).mode, info(socket).reason.name]);
  const isThere = () => standing().every(([, , reason]) => reason === args[1]);
  for (let i = 0; i < 200 && args[1] !== '' && !isThere(); i++) {
    socket.write('.');
    await post(Buffer.from('.'));
    await pause(20);
  }
  tell('results ' + JSON.stringify(results));
  tell('standing ' + JSON.stringify(standing()));
  told('end', () => process.exit());
`;

const DIST = join(ROOT, 'dist');

/** What an end is like. Null: as any other. */
interface End {
  readonly env?: NodeJS.ProcessEnv;
  /** Without koffi. */
  readonly isBare?: boolean;
  /** Loaded before Isthmus. */
  readonly change?: string;
}

const USUAL: End = {};
const WITHOUT: End = { env: { NODE_OPTIONS: '' } };
const OFF: End = { env: { ISTHMUS_POLICY: 'off' } };
const BARE: End = { isBare: true };
const FOREIGN: End = { change: `Object.defineProperty(process, 'platform', { value: 'darwin' });` };
const CHANGED: End = {
  change: `import net from 'node:net'; const { _final } = net.Socket.prototype; net.Socket.prototype._final = function (...all) { return _final.apply(this, all); };`,
};
const PATIENT: End = { env: { ISTHMUS_POLICY: 'lazy', ISTHMUS_LAZY_MS: '600000', ISTHMUS_LAZY_BYTES: '100000000' } };

const fabricAt = (socket: string): End => ({ env: { ISTHMUS_FABRIC: `${HERE}/${socket}` } });
const ownFabricIn = (folder: string): End => ({ env: { ISTHMUS_RUNTIME_DIR: `${HERE}/${folder}` } });

/** [what, server, client, why at the server, why at the client]; null: it knows nothing of Isthmus */
type Row = readonly [string, End, End, ReasonName | null, ReasonName | null];

const ROWS: readonly Row[] = [
  ['neither end has Isthmus', WITHOUT, WITHOUT, null, null],
  ['the server has no Isthmus', WITHOUT, USUAL, null, 'PEERNOSMC'],
  ['the client has no Isthmus', USUAL, WITHOUT, 'PEERNOSMC', null],
  ['the policy of both is off', OFF, OFF, 'OFF', 'OFF'],
  ['the policy of the server is off', OFF, USUAL, 'OFF', 'PEERNOSMC'],
  ['the policy of the client is off', USUAL, OFF, 'PEERNOSMC', 'OFF'],
  ['neither end is old enough', PATIENT, PATIENT, 'YOUNG', 'YOUNG'],
  ['the server is not old enough', PATIENT, USUAL, 'YOUNG', 'PEERNOSMC'],
  ['neither end has koffi', BARE, BARE, 'FFI', 'FFI'],
  ['the server has no koffi', BARE, USUAL, 'FFI', 'PEERNOSMC'],
  ['the client has no koffi', USUAL, BARE, 'PEERNOSMC', 'FFI'],
  ['the system is none that is known', FOREIGN, FOREIGN, 'PLATFORM', 'PLATFORM'],
  ['Node.js of the server has changed inside', CHANGED, USUAL, 'INTERNALS', 'PEERNOSMC'],
  ['Node.js of the client has changed inside', USUAL, CHANGED, 'PEERNOSMC', 'INTERNALS'],
  ['there is no fabric where one was named', fabricAt('none'), fabricAt('none'), 'NOFABRIC', 'NOFABRIC'],
  ['only the client finds no fabric', USUAL, fabricAt('none'), 'PEERNOSMC', 'NOFABRIC'],
  ['no fabric can be started', ownFabricIn('no/such'), ownFabricIn('no/such'), 'NOFABRIC', 'NOFABRIC'],
  ['each end has a fabric of its own', USUAL, ownFabricIn('other'), 'PEERNOSMC', 'PEERNOSMC'],
  ['anybody may have put the fabric there', ownFabricIn('open'), ownFabricIn('open'), 'UNTRUSTED', 'UNTRUSTED'],
  ['the fabric does not speak', fabricAt('mute'), fabricAt('mute'), 'FABRICSILENT', 'FABRICSILENT'],
];

/** What these rows need is found out before the system is called. */
const ANYWHERE: readonly (ReasonName | null)[] = [null, 'OFF', 'YOUNG'];

for (const row of ROWS) {
  const [what, , , ...reasons] = row;
  const needsSystem = !reasons.every((reason) => ANYWHERE.includes(reason));
  test(
    `${what}: TCP, ${reasons.map((reason) => reason ?? 'nothing said').join(' and ')}`,
    { skip: needsSystem && skip },
    () => play(row),
  );
}

function start(code: string, args: readonly string[], { env = {}, isBare = false, change }: End): Program {
  const dist = isBare ? join(stage.directory, 'bare/dist') : DIST;
  if (isBare) copyWithoutKoffi(join(stage.directory, 'bare'));
  const first = change === undefined ? '' : `--import=file://${stage.file('change.mjs', change)} `;
  return stage.run(code, args, {
    TLS_FILES,
    INDEX_URL: `file://${dist}/lib/index.js`,
    NODE_OPTIONS: `${first}--import=file://${dist}/lib/register.cjs`,
    ...Object.fromEntries(Object.entries(env).map(([name, value]) => [name, value?.replace(HERE, stage.directory)])),
  });
}

/** Every protocol has brought every byte back, and all is as is expected of it. */
async function play([what, atServer, atClient, serverWhy, clientWhy]: Row): Promise<void> {
  const server = start(SERVER, [], atServer);
  const client = start(CLIENT, [await server.says('ports '), clientWhy ?? ''], atClient);
  const results = JSON.parse(await client.says('results ')) as Record<string, unknown>;
  const all = [true, true, true];
  assert.deepEqual(results, { net: true, tls: true, http: all, fetch: all, h2c: all, h2: all }, what);
  const stands = async (one: Program, why: ReasonName | null) => {
    const standing = JSON.parse(await one.says('standing ')) as [string, string, string][];
    for (const [name, mode, reason] of standing) {
      assert.equal(mode, 'TCP', name);
      if (why !== null) assert.equal(reason, why, name);
    }
    assert.ok(standing.length >= 2);
    assert.doesNotMatch(one.lines.join('\n'), /^failed|error|excess/m);
    assert.equal(one.stderr, '');
  };
  await stands(client, clientWhy);
  server.tell(`tell ${serverWhy}`);
  await stands(server, serverWhy);
  for (const one of [client, server]) {
    one.tell('end');
    assert.deepEqual(await one.exited, { code: 0, signal: null });
  }
}
