/** Programs in two network namespaces that share nothing of the network but a wire: one fabric introduces them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove, ROOT } from './commands.ts';
import { cannotMakeNetworks, Networks, sh } from './networks.ts';
import { TALKER } from './talker.ts';
import { ECHO_CLIENT, ECHO_SERVER, PRELUDE, Program, Stage } from './two-programs.ts';

const skip = cannotMove() || cannotMakeNetworks();
const SERVER_ADDRESS = '10.77.0.2';
/** Known to the client alone: translated where the server is. */
const SERVICE = { address: '10.99.0.9', port: 80 };
/** Translated where it is. */
const PUBLISHED = { address: '127.0.0.9', port: 80 };
const PORT = 7777;

const networks = new Networks();
let clientNetwork: string;
let serverNetwork: string;
let stage: Stage;
let fabric: Program;
before(async () => {
  if (skip) return;
  clientNetwork = networks.add();
  serverNetwork = networks.add();
  networks.wire(
    { network: clientNetwork, address: '10.77.0.1/24' },
    { network: serverNetwork, address: `${SERVER_ADDRESS}/24` },
  );
  sh(`ip -n ${clientNetwork} route add default via ${SERVER_ADDRESS}`);
  sh(
    `ip netns exec ${serverNetwork} nft -f -`,
    `table ip isthmus {
      chain service {
        type nat hook prerouting priority -100
        ip daddr ${SERVICE.address} tcp dport ${SERVICE.port} dnat to ${SERVER_ADDRESS}:${PORT}
      }
      chain published {
        type nat hook output priority -100
        ip daddr ${PUBLISHED.address} tcp dport ${PUBLISHED.port} dnat to 127.0.0.1:${PORT}
      }
    }\n`,
  );
  stage = new Stage();
  const socket = join(stage.directory, 'fabric.sock');
  fabric = new Program([process.execPath, CLI, 'fabric', '--socket', socket], stage.env({ NODE_OPTIONS: '' }));
  await fabric.says('fabric at');
});
after(async () => {
  if (skip) return;
  fabric.child.kill();
  await fabric.exited;
  await stage.close();
  networks.close();
});

const CERTIFICATE = JSON.stringify(join(ROOT, 'test/fixtures/tls'));

const TLS_SERVER = ECHO_SERVER.replace(
  'net.createServer({',
  `(await import('node:tls')).createServer({
    key: (await import('node:fs')).readFileSync(${CERTIFICATE} + '/key.pem'),
    cert: (await import('node:fs')).readFileSync(${CERTIFICATE} + '/cert.pem'),`,
);
const TLS_CLIENT = ECHO_CLIENT.replace(
  'net.connect(+args[1], args[0])',
  `(await import('node:tls')).connect({ port: +args[1], host: args[0], rejectUnauthorized: false })`,
);

const HTTP2_SERVER = `${PRELUDE}
  const server = (await import('node:http2')).createServer();
  server.on('stream', (stream) => stream.pipe(stream));
  server.on('session', (session) => { server.close(); session.on('close', () => process.exit()); });
  server.listen(+args[0], () => tell('listening'));
`;
const HTTP2_CLIENT = ECHO_CLIENT.replace(
  'net.connect(+args[1], args[0])',
  `(await import('node:http2')).connect('http://' + args[0] + ':' + args[1]).request({ ':method': 'POST' })`,
).replace("tell('closed '", "socket.session.close(), tell('closed '");

const TCP = [ECHO_SERVER, ECHO_CLIENT] as const;

for (const [what, [serverCode, clientCode], { address, port }, network] of [
  ['in another network namespace', TCP, { address: SERVER_ADDRESS, port: PORT }, () => clientNetwork],
  ['in another one, and its server is translated', TCP, SERVICE, () => clientNetwork],
  ['in one with its server, which is translated', TCP, PUBLISHED, () => serverNetwork],
  ['in another one: TLS', [TLS_SERVER, TLS_CLIENT], { address: SERVER_ADDRESS, port: PORT }, () => clientNetwork],
  [
    'in another one: HTTP/2',
    [HTTP2_SERVER, HTTP2_CLIENT],
    { address: SERVER_ADDRESS, port: PORT },
    () => clientNetwork,
  ],
] as const) {
  test(`a client moves ${what}`, { skip }, async () => {
    const env = { ISTHMUS_FABRIC: join(stage.directory, 'fabric.sock') };
    const server = stage.run(serverCode, [PORT], env, ['ip', 'netns', 'exec', serverNetwork]);
    await server.says('listening');
    const client = stage.run(clientCode, [address, port], env, ['ip', 'netns', 'exec', network()]);
    await Promise.all([client.moves(), server.moves()]);
    client.tell('end');
    assert.equal(await client.says('closed '), 'true 0');
    await server.exited;
  });
}

const inNetwork = (network: string) => ['ip', 'netns', 'exec', network];
const fabricEnv = () => ({ ISTHMUS_FABRIC: join(stage.directory, 'fabric.sock') });

/** Of the fabric. */
function counters(env: NodeJS.ProcessEnv = fabricEnv()): Record<'shown' | 'challenged' | 'matched', number> {
  const status = spawnSync(process.execPath, [CLI, 'fabric', 'status', '--json'], {
    env: stage.env({ ...env, NODE_OPTIONS: '' }),
  });
  return JSON.parse(String(status.stdout)).counters;
}

test('NOTLOCAL: with one fabric for both, as it says, they move', { skip }, async () => {
  const ends = async (env: NodeJS.ProcessEnv) => {
    const server = stage.run(TALKER, [], env, inNetwork(serverNetwork));
    server.tell(`listen ${SERVER_ADDRESS}`);
    const client = stage.run(TALKER, [], env, inNetwork(clientNetwork));
    client.tell(`connect ${await server.says('port ')} ${SERVER_ADDRESS}`);
    for (const one of [client, server]) await one.says('connection');
    return [client, server] as const;
  };
  for (const one of await ends({})) {
    one.tell('ask NOTLOCAL');
    const { hint } = JSON.parse(await one.says('reason '));
    assert.match(hint, /both programs with ISTHMUS_FABRIC=PATH/);
  }
  await Promise.all((await ends(fabricEnv())).map((one) => one.moves()));
});

test('a client whose own address is translated is taken for nobody, and both say that the other end is not there', {
  skip,
}, async () => {
  sh(
    `ip netns exec ${clientNetwork} nft -f -`,
    `table ip isthmus_out {
      chain out {
        type nat hook postrouting priority 100
        ip daddr ${SERVER_ADDRESS} tcp dport ${PORT} masquerade to :20000-20100
      }
    }\n`,
  );
  try {
    const before = counters();
    const server = stage.run(ECHO_SERVER, [PORT], fabricEnv(), inNetwork(serverNetwork));
    await server.says('listening');
    const client = stage.run(ECHO_CLIENT, [SERVER_ADDRESS, PORT], fabricEnv(), inNetwork(clientNetwork));
    for (const one of [client, server]) await one.stays('PEERNOSMC');
    const [mine, theirs] = [client.connections[0], server.connections[0]];
    assert.notEqual(mine?.local?.port, theirs?.peer?.port);
    client.tell('end');
    assert.equal(await client.says('closed '), 'true 0');
    assert.deepEqual(counters().matched, before.matched);
  } finally {
    sh(`ip netns exec ${clientNetwork} nft delete table ip isthmus_out`);
  }
});

test('UNPROVEN: a program that has SO_OOBINLINE set gets no byte that its peer has not sent', { skip }, async () => {
  const ffi = new URL('../../src/os/ffi.js', import.meta.url).href;
  const inline = `const { declare } = await import(${JSON.stringify(ffi)});
    const setsockopt = declare('setsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'u32']);
    const inline = (socket) => setsockopt(socket._handle.fd, 1, 10, Buffer.from([1, 0, 0, 0]), 4);\n`;
  const code = ECHO_SERVER.replace('const server', `${inline}const server`).replace(
    'server.close();',
    'server.close(); tell("set " + inline(socket));',
  );
  const before = counters();
  const server = stage.run(code, [PORT], fabricEnv(), inNetwork(serverNetwork));
  await server.says('listening');
  const client = stage.run(ECHO_CLIENT, [SERVER_ADDRESS, PORT], fabricEnv(), inNetwork(clientNetwork));
  assert.equal(await server.says('set '), '0');
  await server.stays('UNPROVEN');
  await client.stays('PEERNOSMC');
  client.tell('end');
  assert.equal(await client.says('closed '), 'true 0');
  const { challenged, matched } = counters();
  assert.deepEqual([challenged, matched], [before.challenged, before.matched]);
});

/** Says a byte, reads when told to, and tells what it got. */
const SLOW_READER = TALKER.replace(
  "socket.on('error', () => {}).resume();",
  `let got = 0, wrong = 0;
   socket.on('error', () => {}).pause().write('.');
   isQuiet = true;
   socket.on('data', (chunk) => { for (const byte of chunk) if (byte !== byteAt(got++)) wrong++; }).pause();
   socket.on('end', () => tell('end ' + got + ' ' + wrong));`,
);
/** Writes as much as is taken, but for when it is told to halt, until it is told to end. */
const WRITER = TALKER.replace(
  "socket.on('error', () => {}).resume();",
  `let sent = 0;
   isQuiet = true;
   const piece = pattern(0, 65536);
   let isHalted = false;
   told('halt', () => { isHalted = true; });
   told('go', () => { isHalted = false; more(); });
   const more = () => {
     isFull.refresh();
     if (socket.writableEnded || isHalted) return;
     sent += piece.length;
     if (socket.write(piece)) setImmediate(more);
   };
   const isFull = setTimeout(() => tell('full'), 300);
   socket.on('error', () => {}).resume().on('drain', more);
   more();
   told('end', () => { socket.end(); tell('sent ' + sent); });`,
);

test('UNPROVEN: a fabric that is killed with an urgent byte under way to who does not read leaves every byte in its place, and so does the next', {
  skip,
}, async () => {
  const socket = join(stage.directory, 'another', 'fabric.sock');
  mkdirSync(dirname(socket));
  const env = { ISTHMUS_FABRIC: socket };
  const startFabric = () => stage.start([process.execPath, CLI, 'fabric', '--socket', socket], { NODE_OPTIONS: '' });
  const server = stage.run(SLOW_READER, [], env, inNetwork(serverNetwork));
  server.tell(`listen ${SERVER_ADDRESS}`);
  const client = stage.run(WRITER, [], env, inNetwork(clientNetwork));
  client.tell(`connect ${await server.says('port ')} ${SERVER_ADDRESS}`);
  await client.says('full');
  const first = startFabric();
  await first.says('fabric at');
  await eventually('asked for proof', () => counters(env).challenged > 0);
  first.child.kill('SIGKILL');
  await first.exited;
  await startFabric().says('fabric at');
  // Both, unless one was too slow to show its socket, and has announced it anew.
  await eventually('given up', () =>
    [client, server].some(({ connections }) => connections[0]?.reason.name === 'UNPROVEN'),
  );
  assert.equal(counters(env).matched, 0);
  client.tell('halt'); // in a stream at full speed the fabric's byte is read past before it is seen
  server.tell('resume');
  for (const one of [client, server]) one.tell('accelerate');
  const isProven = ({ connections: [one] }: Program) =>
    ['CHECKING', 'AGREED', 'MOVED'].includes(one?.reason.name ?? '');
  await eventually('proven', () => [client, server].every(isProven));
  client.tell('go');
  await Promise.all([client.moves(), server.moves()]);
  client.tell('end');
  assert.equal(await server.says('end '), `${await client.says('sent ')} 0`);
});

/** One side hands on what it is sent, with the port of its client; the other makes a connection of the same names of it. */
const RELAY = `${PRELUDE}
  const [side, path, address, port, from] = args;
  const fail = (error) => tell('failed ' + error.code);
  if (side === 'front') {
    net.createServer({ allowHalfOpen: true }, (socket) => {
      const back = net.connect({ path, allowHalfOpen: true });
      const head = Buffer.alloc(2);
      head.writeUInt16BE(socket.remotePort);
      back.write(head);
      socket.on('error', fail).pipe(back.on('error', fail)).pipe(socket);
    }).listen(+port, address, () => tell('ready'));
  } else {
    net.createServer({ allowHalfOpen: true }, (front) => front.once('readable', () => {
      const localPort = front.read(2).readUInt16BE();
      const socket = net.connect({ host: address, port: +port, localAddress: from, localPort, allowHalfOpen: true });
      front.on('error', fail).pipe(socket.on('error', fail)).pipe(front);
    })).listen(path, () => tell('ready'));
  }
`;

test('the ends of two connections that a relay between networks of the same addresses makes of one are not taken for its ends', {
  skip,
}, async () => {
  const [clients, front, back, servers] = Array.from({ length: 4 }, () => networks.add()) as [
    string,
    string,
    string,
    string,
  ];
  for (const [near, far] of [
    [clients, front],
    [back, servers],
  ] as const)
    networks.wire({ network: near, address: '10.77.0.1/24' }, { network: far, address: `${SERVER_ADDRESS}/24` });
  const plain = stage.env({ NODE_OPTIONS: '' });
  const path = join(stage.directory, 'relay.sock');
  const file = stage.file('relay.mjs', RELAY);
  const relays = [
    ['back', back],
    ['front', front],
  ].map(
    ([side, network]) =>
      new Program(
        [
          ...['ip', 'netns', 'exec', network as string, process.execPath, file],
          ...[side as string, path, SERVER_ADDRESS, String(PORT), '10.77.0.1'],
        ],
        plain,
      ),
  );
  try {
    for (const relay of relays) await relay.says('ready');
    const env = { ISTHMUS_FABRIC: join(stage.directory, 'fabric.sock') };
    const server = stage.run(ECHO_SERVER, [PORT], env, ['ip', 'netns', 'exec', servers]);
    await server.says('listening');
    const client = stage.run(ECHO_CLIENT, [SERVER_ADDRESS, PORT], env, ['ip', 'netns', 'exec', clients]);
    const { challenged, matched } = counters();
    await eventually('they are asked for proof', () => counters().challenged > challenged);
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(counters().matched, matched);
    for (const { connections } of [client, server])
      assert.deepEqual(
        connections.map(({ mode, reason }) => [mode, reason.name]),
        [['TCP', 'PEERNOSMC']],
      );
    const [mine, theirs] = [client.connections[0], server.connections[0]];
    assert.deepEqual([mine?.local?.port, mine?.peer?.port], [theirs?.peer?.port, theirs?.local?.port]);
    client.tell('end');
    assert.equal(await client.says('closed '), 'true 0');
    await server.exited;
  } finally {
    for (const relay of relays) relay.child.kill('SIGKILL');
    await Promise.all(relays.map(({ exited }) => exited));
  }
});
