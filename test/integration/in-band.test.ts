/** In-band handshakes on sockets: between programs, and against peers that say something else, nothing, or too little. */
import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect as netConnect, createServer as netCreateServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { readTables } from '../../src/cli/rows.ts';
import { DEFAULT_UEID, parseChid, randomGid } from '../../src/ism/index.ts';
import { type Decline, decodeClc, encodeClc, SMC_CLC_DECL } from '../../src/smc/clc/index.ts';
import { CLC_WAIT_MS } from '../../src/smc/in-band.ts';
import { makeProposal } from '../../src/smc/negotiation.ts';
import { eventually } from '../../src/testing/index.ts';
import { cannotMove, ROOT } from './commands.ts';
import { PRELUDE, Stage } from './two-programs.ts';

const directory = mkdtempSync(join(tmpdir(), 'isthmus-in-band-'));
Object.assign(process.env, { ISTHMUS_RUNTIME_DIR: directory, ISTHMUS_FABRIC_IDLE_MS: '500' });
Object.assign(process.env, { ISTHMUS_LAZY_BYTES: '1e15', ISTHMUS_LAZY_MS: '1e9' });
const isthmus = await import('isthmus');

const skip = cannotMove();
const handshake = 'in-band';
const open = new Set<Server | Socket>();

after(() => {
  for (const one of open) 'destroy' in one ? one.destroy() : one.close();
  rmSync(directory, { recursive: true, force: true });
});

async function listen(server: Server): Promise<number> {
  open.add(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as { port: number }).port;
}

/** A server that shakes hands, and what its program gets. */
async function inBandServer(): Promise<{ port: number; connections: Socket[]; server: Server }> {
  const connections: Socket[] = [];
  const server = isthmus.createServer({ handshake }, (socket) => {
    open.add(socket);
    connections.push(socket);
    socket.on('data', (chunk) => socket.write(`echo ${chunk}`)).on('error', () => {});
  });
  return { port: await listen(server), connections, server };
}

/** A peer that knows nothing of it. */
async function rawClient(port: number): Promise<{ socket: Socket; received: () => string; closed: Promise<unknown> }> {
  const socket = netConnect(port, '127.0.0.1');
  open.add(socket);
  let received = '';
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1');
  });
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  await once(socket, 'connect');
  return { socket, received: () => received, closed };
}

const decline = (diagnosis: number): Buffer => {
  const message: Decline = { type: 'decline', version: 2, diagnosis, outOfSync: false, os: 2 };
  return encodeClc(message);
};

/**
 * What two ends say to each other goes through here.
 * @param change of what the client sends
 * @param backMs how long what the server sends takes
 */
async function relay(to: number, change: (bytes: Buffer) => Buffer = (bytes) => bytes, backMs = 0): Promise<number> {
  return listen(
    netCreateServer({ allowHalfOpen: true }, (socket) => {
      const onwards = netConnect({ port: to, host: '127.0.0.1', allowHalfOpen: true });
      for (const one of [socket, onwards]) {
        open.add(one);
        one.on('error', () => {});
      }
      socket.on('data', (bytes) => onwards.write(change(bytes))).on('end', () => onwards.end());
      const back = (act: () => void) => void (backMs === 0 ? act() : setTimeout(act, backMs));
      onwards.on('data', (bytes) => back(() => socket.write(bytes))).on('end', () => back(() => socket.end()));
    }),
  );
}

describe('through a relay', { skip }, () => {
  // The first one here: only a first contact names a release.
  test('a Decline after the Confirm leaves both on TCP, with all bytes', async () => {
    const otherRelease = (bytes: Buffer): Buffer => {
      const message = decodeClc(bytes);
      if (message.type !== 'confirm' || message.mode !== 'D' || message.version !== 2 || message.fce === null)
        return bytes;
      return encodeClc({ ...message, fce: { ...message.fce, release: 2 } });
    };
    const { port, connections } = await inBandServer();
    let isHandshake = true;
    const change = (bytes: Buffer) => (isHandshake ? otherRelease(bytes) : bytes);
    const socket = isthmus.connect({ port: await relay(port, change), host: '127.0.0.1', handshake });
    socket.write('early');
    socket.once('connect', () => {
      isHandshake = false;
    });
    assert.equal(String(await once(socket, 'data')), 'echo early');
    const both = [socket, connections[0] as Socket].map((one) => isthmus.info(one));
    assert.deepEqual(
      both.map(({ mode, reason }) => [mode, reason.name]),
      [
        ['TCP', 'RELEASEERR'],
        ['TCP', 'RELEASEERR'],
      ],
    );
    assert.deepEqual(both[0]?.bytes, { inTcp: 10, inShm: 0, outTcp: 5, outShm: 0 });
    socket.end('late');
    assert.equal(String(await once(socket, 'data')), 'echo late');
    await once(socket, 'close');
  });

  test('both ends move all the same', async () => {
    const { port, connections } = await inBandServer();
    const socket = isthmus.connect({ port: await relay(port), host: '127.0.0.1', handshake });
    socket.write('hello');
    assert.equal(String(await once(socket, 'data')), 'echo hello');
    assert.deepEqual(
      [socket, connections[0] as Socket].map((one) => isthmus.info(one).mode),
      ['SMC-D', 'SMC-D'],
    );
    socket.end();
    await once(socket, 'close');
  });
});

describe('a server that shakes hands in-band', { skip }, () => {
  test('closes what sends something else, and goes on with others', async () => {
    const { port, connections } = await inBandServer();
    const stranger = await rawClient(port);
    stranger.socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    await stranger.closed;
    assert.equal(connections.length, 0);
    const socket = isthmus.connect({ port, host: '127.0.0.1', handshake });
    socket.write('hello');
    const [answer] = await once(socket, 'data');
    assert.equal(String(answer), 'echo hello');
    assert.equal(isthmus.info(socket).mode, 'SMC-D');
    socket.destroy();
  });

  for (const [name, bytes] of [
    ['nothing', ''],
    ['less than a header', 'e2d4c3'],
    ['half a Proposal', 'e2d4c3d90100e026000000'],
  ] as const) {
    test(`does not show its program a peer that sends ${name} and ends`, async () => {
      const { port, connections } = await inBandServer();
      const stranger = await rawClient(port);
      stranger.socket.end(Buffer.from(bytes, 'hex'));
      await stranger.closed;
      assert.equal(connections.length, 0);
    });
  }

  test('gives its program what stands behind a Decline, and nothing of the Decline', async () => {
    const { port, connections } = await inBandServer();
    const peer = await rawClient(port);
    peer.socket.write(Buffer.concat([decline(SMC_CLC_DECL.NOSMCDEV), Buffer.from('at once')]));
    await eventually('an answer', () => peer.received() === 'echo at once');
    const [socket] = connections;
    assert.ok(socket);
    assert.deepEqual([isthmus.info(socket).mode, isthmus.info(socket).reason.name], ['TCP', 'NOSMCDEV']);
    assert.deepEqual([socket.bytesRead, socket.bytesWritten], [7, 12]);
    peer.socket.end();
    await peer.closed;
  });

  test('gives its program a stream that waits where it has asked to be paused', async () => {
    const server = isthmus.createServer({ handshake, pauseOnConnect: true });
    const port = await listen(server);
    const peer = await rawClient(port);
    peer.socket.write(Buffer.concat([decline(SMC_CLC_DECL.NOSMCDEV), Buffer.from('later')]));
    const [socket] = (await once(server, 'connection')) as [Socket];
    open.add(socket);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(socket.bytesRead, 0);
    socket.resume();
    assert.equal(String(await once(socket, 'data')), 'later');
    peer.socket.destroy();
  });

  test(`waits ${CLC_WAIT_MS} ms for a Proposal, while others get theirs`, async () => {
    const { port, connections } = await inBandServer();
    const silent = await rawClient(port);
    const slow = await rawClient(port);
    slow.socket.write(decline(SMC_CLC_DECL.NOSMCDEV).subarray(0, 20));
    const began = performance.now();
    const socket = isthmus.connect({ port, host: '127.0.0.1', handshake });
    await once(socket, 'connect');
    socket.destroy();
    await Promise.all([silent.closed, slow.closed]);
    assert.ok(performance.now() - began > CLC_WAIT_MS - 500);
    assert.equal(connections.length, 1);
  });

  test('survives peers that reset the connection while it works on their Proposal', async () => {
    const { port, connections } = await inBandServer();
    const device = { gid: randomGid(), chid: parseChid(0xffff) };
    const means = {
      devices: [device],
      ueids: [DEFAULT_UEID],
      seid: null,
      prefixes: null,
      layouts: ['kernel'],
    } as const;
    for (let i = 0; i < 50; i++) {
      const peer = await rawClient(port);
      peer.socket.write(encodeClc(makeProposal(means)));
      setImmediate(() => peer.socket.resetAndDestroy());
      await peer.closed;
    }
    const socket = isthmus.connect({ port, host: '127.0.0.1', handshake });
    await once(socket, 'connect');
    socket.destroy();
    await eventually('its program has it', () => connections.some((one) => isthmus.info(one).mode === 'SMC-D'));
  });

  test('brings a connection back that its program wants on TCP at once', async () => {
    const server = isthmus.createServer({ handshake }, async (socket) => {
      open.add(socket);
      const { mode } = await isthmus.restore(socket);
      socket.end(mode);
    });
    const socket = isthmus.connect({ port: await listen(server), host: '127.0.0.1', handshake });
    assert.equal(String(await once(socket, 'data')), 'TCP');
    socket.destroy();
  });

  test('is a Unix socket: there is no handshake', async () => {
    const server = isthmus.createServer({ handshake }, (socket) => socket.pipe(socket));
    open.add(server);
    const path = join(directory, 'a.sock');
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const socket = isthmus.connect({ path, handshake });
    socket.write('hello');
    assert.equal(String(await once(socket, 'data')), 'hello');
    socket.destroy();
  });

  test('can be closed while a handshake is under way', async () => {
    const { port, server } = await inBandServer();
    const peer = await rawClient(port);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const closed = new Promise((resolve) => server.close(resolve));
    peer.socket.destroy();
    await closed;
  });
});

/** Answers a client's first message, whatever it is. */
async function rawServer(answer: (socket: Socket, message: Buffer) => void): Promise<number> {
  return listen(
    netCreateServer((socket) => {
      open.add(socket);
      socket.on('error', () => {});
      socket.once('data', (message) => answer(socket, message));
    }),
  );
}

async function failure(socket: Socket): Promise<NodeJS.ErrnoException> {
  let connected = false;
  socket.on('connect', () => {
    connected = true;
  });
  const [error] = (await once(socket, 'error').catch((error: unknown) => [error])) as [NodeJS.ErrnoException];
  await new Promise<void>((resolve) => (socket.closed ? resolve() : socket.once('close', () => resolve())));
  assert.equal(connected, false);
  return error;
}

describe('a client that shakes hands in-band', { skip }, () => {
  test('sends a Proposal first, and its program gets what stands behind a Decline', async () => {
    let first = '';
    const port = await rawServer((socket, message) => {
      first = decodeClc(message).type;
      socket.write(Buffer.concat([decline(SMC_CLC_DECL.NOSMCDDEV), Buffer.from('220 ready\r\n')]));
      socket.on('data', (chunk) => socket.write(`got ${chunk}`));
    });
    const socket = isthmus.connect({ port, host: '127.0.0.1', handshake });
    socket.write('early');
    assert.deepEqual([socket.connecting, socket.readyState], [true, 'opening']);
    let received = '';
    socket.on('data', (chunk) => {
      received += chunk;
    });
    await once(socket, 'ready');
    await eventually('all', () => received === '220 ready\r\ngot early');
    assert.equal(first, 'proposal');
    const { mode, reason, bytes } = isthmus.info(socket);
    assert.deepEqual([mode, reason.name], ['TCP', 'NOSMCDDEV']);
    assert.deepEqual(bytes, { inTcp: 20, inShm: 0, outTcp: 5, outShm: 0 });
    assert.deepEqual([socket.bytesRead, socket.bytesWritten], [20, 5]);
    socket.destroy();
  });

  test('fails to connect with EPROTO when the answer is something else', async () => {
    const port = await rawServer((socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'));
    const error = await failure(isthmus.connect({ port, host: '127.0.0.1', handshake }));
    assert.deepEqual([error.code, error.syscall, error.errno], ['EPROTO', 'connect', -71]);
    assert.equal(error.message, `connect EPROTO 127.0.0.1:${port}`);
  });

  test('fails to connect with ECONNRESET when the peer ends', async () => {
    const port = await rawServer((socket) => socket.end());
    const error = await failure(isthmus.connect({ port, host: '127.0.0.1', handshake }));
    assert.equal(error.code, 'ECONNRESET');
  });

  test(`fails to connect with ETIMEDOUT after ${CLC_WAIT_MS} ms without an answer`, async () => {
    const port = await rawServer(() => {});
    const error = await failure(isthmus.connect({ port, host: '127.0.0.1', handshake }));
    assert.equal(error.code, 'ETIMEDOUT');
  });

  test('is not made with a handshake that does not exist', () => {
    const wrong = { port: 1, host: '127.0.0.1', handshake: 'inband' };
    assert.throws(() => isthmus.connect(wrong as never), { code: 'ERR_INVALID_ARG_VALUE' });
    assert.throws(() => isthmus.createServer(wrong as never), { code: 'ERR_INVALID_ARG_VALUE' });
  });

  test('is refused as any other when nobody listens', async () => {
    const server = netCreateServer();
    const port = await listen(server);
    await new Promise((resolve) => server.close(resolve));
    const error = await failure(isthmus.connect({ port, host: '127.0.0.1', handshake }));
    assert.equal(error.code, 'ECONNREFUSED');
  });

  test('can be destroyed by its program meanwhile', async () => {
    const gone = new Promise<void>((resolve) => {
      void rawServer((socket) => socket.on('close', () => resolve())).then((port) => {
        const socket = isthmus.connect({ port, host: '127.0.0.1', handshake });
        setTimeout(() => socket.destroy(), 50);
      });
    });
    await gone;
  });

  test('leaves nothing behind when it is destroyed at whatever moment of the handshake', async () => {
    const { port } = await inBandServer();
    for (let i = 0; i < 150; i++) {
      const socket = isthmus.connect({ port, host: '127.0.0.1', handshake });
      socket.on('error', () => {});
      const closed = once(socket, 'close');
      for (let turn = 0; turn < i % 30; turn++) await new Promise(setImmediate);
      socket.destroy();
      await closed;
    }
    const rows = () => readTables(String(process.pid)).rows.filter(({ state }) => state === 'closed');
    await eventually('all are forgotten', () => rows().length === 0);
  });

  test('runs the listeners of its program in the context of connect', async () => {
    const { port } = await inBandServer();
    const storage = new AsyncLocalStorage<string>();
    const seen = await storage.run('mine', async () => {
      const socket = isthmus.connect({ port, host: '127.0.0.1', handshake });
      const stores: unknown[] = [];
      socket.on('connect', () => stores.push(storage.getStore()));
      socket.on('data', () => stores.push(storage.getStore()));
      await once(socket, 'connect');
      socket.write('x');
      await once(socket, 'data');
      socket.destroy();
      return stores;
    });
    assert.deepEqual(seen, ['mine', 'mine']);
  });

  test('moves also when its program has ended its side already', async () => {
    const { port, connections } = await inBandServer();
    const socket = isthmus.connect({ port, host: '127.0.0.1', handshake });
    socket.end('all there is');
    let mode = '';
    socket.on('connect', () => {
      mode = isthmus.info(socket).mode;
    });
    assert.equal(String(await once(socket, 'data')), 'echo all there is');
    assert.equal(mode, 'SMC-D');
    await once(socket, 'close');
    assert.deepEqual([socket.bytesRead, socket.bytesWritten], [17, 12]);
    assert.equal(connections[0]?.bytesRead, 12);
  });

  test('moves from the first byte on, in both directions', async () => {
    const { port, connections } = await inBandServer();
    const socket = isthmus.connect({ port, host: '127.0.0.1', handshake });
    socket.write('one');
    await once(socket, 'data');
    const [accepted] = connections;
    assert.ok(accepted);
    assert.deepEqual(isthmus.info(socket).bytes, { inTcp: 0, inShm: 8, outTcp: 0, outShm: 3 });
    assert.deepEqual(isthmus.info(accepted).bytes, { inTcp: 0, inShm: 3, outTcp: 0, outShm: 8 });
    // And it can be brought back.
    assert.equal((await isthmus.restore(socket)).mode, 'TCP');
    socket.write('two');
    await once(socket, 'data');
    assert.deepEqual(isthmus.info(accepted).bytes, { inTcp: 3, inShm: 3, outTcp: 8, outShm: 8 });
    socket.destroy();
  });
});

// --- Between programs ---

const SERVER = `${PRELUDE}
  import http from 'node:http';
  const server = http.createServer((request, response) => {
    request.resume().on('end', () => response.end('hello ' + request.socket.bytesRead));
  });
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
`;
const CLIENT = `${PRELUDE}
  import http from 'node:http';
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const get = () => new Promise((resolve, reject) => {
    http.get({ port: args[0], host: '127.0.0.1', agent }, (response) => {
      let text = '';
      response.on('data', (chunk) => { text += chunk; }).on('end', () => resolve(text));
    }).on('error', reject);
  });
  get().then(get).then((text) => tell('got ' + text), (error) => tell('error ' + error.message));
  setInterval(() => {}, 1000);
`;

async function between(
  stage: Stage,
  ofServer: NodeJS.ProcessEnv = {},
  ofClient: NodeJS.ProcessEnv = {},
  [serverCode, clientCode] = [SERVER, CLIENT],
) {
  const server = stage.run(serverCode, [], { ISTHMUS_IN_BAND: '127.0.0.1:*', ISTHMUS_POLICY: 'lazy', ...ofServer });
  const port = await server.says('port ');
  const client = stage.run(clientCode, [port], { ISTHMUS_IN_BAND: `*:${port}`, ISTHMUS_POLICY: 'lazy', ...ofClient });
  return { server, client, answer: await client.says('got ') };
}

describe('programs that know nothing of it, by policy', { skip }, () => {
  const staged = (name: string, body: (stage: Stage) => Promise<void>) =>
    test(name, async () => {
      const stage = new Stage();
      try {
        await body(stage);
      } finally {
        await stage.close();
      }
    });

  staged('move from the first byte on', async (stage) => {
    const { server, client, answer } = await between(stage);
    assert.match(answer, /^hello \d+$/);
    for (const { connections } of [server, client]) {
      const [row] = connections;
      assert.deepEqual([row?.mode, row?.reason.name, row?.bytes.inTcp, row?.bytes.outTcp], ['SMC-D', 'MOVED', 0, 0]);
    }
  });

  staged('take longer over it than a pair that nobody uses is kept', async (stage) => {
    const policy = { ISTHMUS_IN_BAND: '127.0.0.1:*', ISTHMUS_POLICY: 'lazy' };
    const server = stage.run(SERVER, [], { ...policy, ISTHMUS_LINGER_MS: '60000' });
    const port = await relay(Number(await server.says('port ')), undefined, 2000);
    const client = stage.run(CLIENT, [port], { ...policy, ISTHMUS_LINGER_MS: '1000' });
    await client.says('got ');
    for (const { connections } of [server, client])
      assert.deepEqual(
        connections.map(({ mode, reason }) => [mode, reason.name]),
        [['SMC-D', 'MOVED']],
      );
  });

  staged('are kept running by a connection that is being made, and by nothing else', async (stage) => {
    const echo = `${PRELUDE}
      const server = net.createServer((socket) => socket.pipe(socket));
      server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));`;
    // Many, for a token must not be lost that is faster than its DMB.
    const client = `${PRELUDE}
      let left = 60;
      const one = () => {
        const socket = net.connect(args[0], '127.0.0.1', () => socket.end('hello'));
        socket.on('data', () => {}).on('close', (hadError) => hadError ? tell('error') : --left > 0 ? one() : tell('got all'));
      };
      one();`;
    const { client: program } = await between(stage, {}, {}, [echo, client]);
    assert.deepEqual(await program.exited, { code: 0, signal: null });
    assert.deepEqual(program.lines, ['got all']);
  });

  staged('stay on TCP with TLS, and say so', async (stage) => {
    const files = ['key.pem', 'cert.pem'].map((name) => JSON.stringify(join(ROOT, 'test/fixtures/tls', name)));
    const server = `${PRELUDE}
      import https from 'node:https';
      import { readFileSync } from 'node:fs';
      const [key, cert] = [${files}].map((file) => readFileSync(file));
      const server = https.createServer({ key, cert }, (request, response) => response.end('secret'));
      server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));`;
    const client = `${PRELUDE}
      import https from 'node:https';
      const agent = new https.Agent({ keepAlive: true, rejectUnauthorized: false });
      https.get({ port: args[0], host: '127.0.0.1', agent }, (response) => {
        response.on('data', (text) => tell('got ' + text));
      });
      setInterval(() => {}, 1000);`;
    const { answer, ...ends } = await between(stage, {}, {}, [server, client]);
    assert.equal(answer, 'secret');
    assert.deepEqual(
      [ends.server, ends.client].map(({ connections }) => connections[0]?.reason.name),
      ['TLS', 'TLS'],
    );
  });

  staged('see what a listener throws as an exception', async (stage) => {
    const client = `${PRELUDE}
      process.on('uncaughtException', (error) => tell('got ' + error.message));
      process.on('unhandledRejection', () => tell('got a rejection'));
      net.connect(args[0], '127.0.0.1', () => { throw new Error('of mine'); });`;
    const { answer } = await between(stage, {}, {}, [SERVER, client]);
    assert.equal(answer, 'of mine');
  });

  staged('stay on TCP when the policy of one is off, and say so', async (stage) => {
    const { server, client } = await between(stage, {}, { ISTHMUS_POLICY: 'off' });
    const reasons = [client, server].map(({ connections }) => connections[0]?.reason.name);
    assert.deepEqual(reasons, ['OFF', 'OPTUNSUPP']);
  });

  staged('stay on TCP when they use different fabrics', async (stage) => {
    const other = mkdtempSync(join(tmpdir(), 'isthmus-other-'));
    const { server, client } = await between(stage, {}, { ISTHMUS_RUNTIME_DIR: other });
    const reasons = [client, server].map(({ connections }) => connections[0]?.reason.name);
    assert.deepEqual(reasons, ['NOSMCD2DEV', 'NOSMCD2DEV']);
    rmSync(other, { recursive: true, force: true });
  });

  staged('stay on TCP where there is no fabric', async (stage) => {
    const nowhere = { ISTHMUS_FABRIC: join(stage.directory, 'none.sock') };
    const { server } = await between(stage, nowhere, nowhere);
    assert.equal(server.connections[0]?.reason.name, 'NOSMCD2DEV');
  });

  staged('meet when one is a worker thread of the other', async (stage) => {
    const worker = stage.file('worker.mjs', SERVER);
    const both = `${CLIENT.replace('args[0]', 'port')}
      import { Worker } from 'node:worker_threads';
    `.replace('get().then', 'const begin = () => get().then');
    const program = stage.run(
      `let port;\n${both}
      const worker = new Worker(${JSON.stringify(worker)}, { stdout: true });
      worker.stdout.on('data', (text) => { port = String(text).split(' ')[1].trim(); begin(); });`,
      [],
      { ISTHMUS_IN_BAND: '127.0.0.1:*', ISTHMUS_POLICY: 'lazy' },
    );
    assert.match(await program.says('got '), /^hello/);
    assert.deepEqual(
      program.connections.map(({ mode, device }) => [mode, device]),
      [
        ['SMC-D', 'loopback'],
        ['SMC-D', 'loopback'],
      ],
    );
  });
});
