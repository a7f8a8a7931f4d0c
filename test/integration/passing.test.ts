import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { eventually } from '../../src/testing/index.ts';
import { cannotMove } from './commands.ts';
import {
  assertEnded,
  assertExact,
  CLIENT_SEED,
  digest,
  type Ends,
  POLICIES,
  runEnds,
  SIDES,
  standing,
} from './exchange.ts';
import { Stage } from './two-programs.ts';

const skip = cannotMove();
let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

/**
 * The server greets, does not read, and gives the connection to a child, which does the rest. Arguments: 'plain' or 'wait', how
 * to send, and what the child runs under.
 */
const GIVER = `
  import { fork } from 'node:child_process';
  const [, wait, keepOpen, under] = args;
  if (process.argv[2] === 'child') {
    process.once('message', (message, socket) => {
      if (message.word !== 'take it') tell('failed: ' + JSON.stringify(message));
      report(socket, 'socket');
      // Whoever holds it too must let go, before the end can be seen.
      exchange(socket, SERVER_SEED).then(() => { socket.end(); process.disconnect(); });
    });
    process.send('ready');
  } else {
    const env = under === 'without' ? { ...process.env, NODE_OPTIONS: '' } : process.env;
    const child = fork(process.argv[1], ['child'], { env, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    await once(child, 'message');
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      report(socket, 'socket');
      const give = () => {
        try {
          child.send({ word: 'take it' }, socket, { keepOpen: keepOpen === 'keepOpen' });
        } catch (error) {
          tell('refused ' + error.code);
          child.kill();
          exchange(socket.resume(), SERVER_SEED).then(() => { socket.end(); server.close(); process.stdin.destroy(); });
          return;
        }
        child.once('exit', () => { socket.destroy(); server.close(); process.stdin.destroy(); });
      };
      if (wait !== 'wait') { give(); return; }
      let went = false;
      told('go', () => { went = true; give(); });
      const greet = () => { if (!went) { socket.write('.'); setTimeout(greet, 5); } };
      greet();
    });
    server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
  }
`;

/** Skips the greeting. Its first bytes come before the server wants any. */
const TAKER = `
  const socket = net.connect(+args[0], '127.0.0.1');
  report(socket, 'socket');
  const [, wait, , , early] = args;
  const skipped = (chunk) => { let i = 0; while (chunk[i] === 46) i++; return chunk.subarray(i); };
  let rest = streamOf(CLIENT_SEED, LENGTH);
  const ahead = (length) => { socket.write(rest.subarray(0, length)); rest = rest.subarray(length); };
  if (wait === 'wait') {
    told('ahead', () => { ahead(+early); tell('ahead'); });
  }
  const chunks = [];
  let got = 0, began = false;
  const done = new Promise((resolve, reject) => {
    socket.on('data', (chunk) => {
      if (!began) { chunk = skipped(chunk); if (chunk.length === 0) return; began = true; }
      chunks.push(chunk);
      got += chunk.length;
      if (got >= LENGTH) resolve();
    }).on('close', () => reject(new Error('closed after ' + got)));
  });
  const go = async () => { await send(socket, rest); };
  told('go', go);
  if (wait !== 'wait') await go();
  await done;
  tell('got ' + digest(chunks));
  socket.on('end', () => { socket.end(); process.stdin.destroy(); }).resume();
`;

/** Lets the greeting last until both ends have moved. */
async function moved({ server, client }: Ends): Promise<void> {
  const why = () => JSON.stringify([server, client].map((one) => [standing(one), one.lines, one.stderr]));
  await eventually('both ends have moved', () =>
    [server, client].every((one) => standing(one).join() === 'SMC-D'),
  ).catch((error) => assert.fail(`${error.message}: ${why()}`));
}

/** Has the server give the moved connection to its child, and then the client begin. */
async function giveWhenMoved(ends: Ends): Promise<void> {
  await moved(ends);
  ends.server.tell('go');
  await ends.server.says('given');
  ends.client.tell('go');
}

for (const policy of POLICIES) {
  for (const side of SIDES) {
    for (const keepOpen of ['', 'keepOpen']) {
      const how = keepOpen === '' ? '' : ' and kept open';
      test(`a connection sent to a child${how} as soon as it is there: ${policy}, ${side}`, { skip }, async () => {
        const ends = await runEnds(stage, [GIVER, TAKER], policy, side, ['plain', keepOpen]);
        await assertExact(ends);
        await assertEnded(ends);
      });
    }
  }

  for (const keepOpen of ['', 'keepOpen']) {
    const how = keepOpen === '' ? '' : ' and kept open';
    for (const early of [0, 10_000]) {
      test(`a moved connection with ${early} bytes unread sent to a child${how}: ${policy}`, { skip }, async () => {
        const ends = await runEnds(stage, [GIVER, TAKER], policy, 'both ends', ['wait', keepOpen, '', early]);
        await moved(ends);
        if (early > 0) {
          ends.client.tell('ahead');
          await ends.client.says('ahead');
        }
        ends.server.tell('go');
        ends.client.tell('go');
        await assertExact(ends);
        await assertEnded(ends);
      });
    }
  }

  test(`a moved connection with bytes unread is not given to a child without Isthmus: ${policy}`, {
    skip,
  }, async () => {
    const ends = await runEnds(stage, [GIVER, TAKER], policy, 'both ends', ['wait', '', 'without', 10_000]);
    await moved(ends);
    ends.client.tell('ahead');
    await ends.client.says('ahead');
    await eventually('it is there', () => ends.client.connections[0]?.bytes.outShm === 10_000);
    ends.server.tell('go');
    assert.equal(await ends.server.says('refused '), 'ERR_ISTHMUS_PASS');
    ends.client.tell('go');
    await assertExact(ends);
    await assertEnded(ends);
  });
}

/** A child gets the connection as descriptor 3, or as stdin and stdout of a program that is not Node.js. */
const AS_STDIO = `
  import { spawn } from 'node:child_process';
  const [, wait, program] = args;
  if (process.argv[2] === 'child') {
    const socket = new net.Socket({ fd: 3, readable: true, writable: true });
    report(socket, 'socket');
    exchange(socket, SERVER_SEED).then(() => socket.end());
  } else {
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      report(socket, 'socket');
      const give = () => {
        const child = program === 'cat'
          ? spawn('cat', [], { stdio: [socket, socket, 'inherit'] })
          : spawn(process.execPath, [process.argv[1], 'child'], { stdio: ['ignore', 'inherit', 'inherit', socket] });
        tell('given');
        socket.destroy();
        server.close();
        process.stdin.destroy();
      };
      if (wait !== 'wait') { give(); return; }
      let went = false;
      told('go', () => { went = true; try { give(); } catch (error) {
        tell('refused ' + error.code);
        const echo = []; socket.on('data', (chunk) => socket.write(chunk)).on('end', () => { socket.end(); server.close(); process.stdin.destroy(); }).resume();
      } });
      const greet = () => { if (!went) { socket.write('.'); setTimeout(greet, 5); } };
      greet();
    });
    server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
  }
`;

/** Gets back what it sends. */
const ECHOED = TAKER.replace('if (got >= LENGTH) resolve();', 'if (got >= LENGTH) { resolve(); socket.end(); }');

/** The child reads, this process goes on writing, for long enough to move under any policy. */
const SHARER = `
  import { fork } from 'node:child_process';
  if (process.argv[2] === 'child') {
    process.once('message', (message, socket) => {
      receive(socket, LENGTH).then((chunks) => { tell('got ' + digest(chunks)); process.disconnect(); socket.destroy(); });
    });
    process.send('ready');
  } else {
    const child = fork(process.argv[1], ['child'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    await once(child, 'message');
    const server = net.createServer({ pauseOnConnect: true }, async (socket) => {
      report(socket, 'socket');
      child.send('read it', socket, { keepOpen: true });
      const bytes = streamOf(SERVER_SEED, LENGTH), PIECE = LENGTH / 64;
      for (let i = 0; i < 64; i++) { socket.write(bytes.subarray(i * PIECE, (i + 1) * PIECE)); await pause(3); }
      told('end', () => { socket.destroy(); server.close(); process.stdin.destroy(); });
    });
    server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
  }
`;

/** Sends nothing until all has come, and it was told to. */
const TALKER = `
  const socket = net.connect(+args[0], '127.0.0.1');
  report(socket, 'socket');
  const chunks = await receive(socket, LENGTH);
  tell('got ' + digest(chunks));
  tell('half');
  told('go', () => socket.write(streamOf(CLIENT_SEED, LENGTH)));
  told('end', () => { socket.destroy(); process.stdin.destroy(); });
`;

/** Three processes that accept: this one, a child that was sent the server, and one that has it as descriptor. */
const SHARED_SERVER = `
  import { fork, spawn } from 'node:child_process';
  const accepted = (socket) => { report(socket, 'socket'); socket.pipe(socket); };
  process.on('disconnect', () => process.exit());
  if (process.argv[2] === 'child') {
    process.once('message', (message, server) => { server.on('connection', accepted); process.send('ready'); });
  } else if (process.argv[2] === 'descriptor') {
    process.on('message', () => {});
    net.createServer(accepted).listen({ fd: 3 });
  } else {
    const server = net.createServer(accepted).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const child = fork(process.argv[1], ['child'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    child.send('server', server);
    await once(child, 'message');
    const other = spawn(process.execPath, [process.argv[1], 'descriptor'], { stdio: ['ignore', 'inherit', 'inherit', server._handle.fd, 'ipc'] });
    told('end', () => { child.kill(); other.kill(); server.close(); process.stdin.destroy(); });
    tell('port ' + server.address().port);
  }
`;

/** Connections one after the other and at once; each gets back what it sends. */
const MANY = `
  const one = async (i) => {
    const socket = net.connect(+args[0], '127.0.0.1');
    report(socket, 'socket');
    const bytes = streamOf(i + 10, 200_000);
    socket.write(bytes.subarray(0, 1000));
    await pause(60);
    const sent = send(socket, bytes.subarray(1000)).then(() => socket.end());
    const chunks = [];
    for await (const chunk of socket) chunks.push(chunk);
    await sent;
    return digest(chunks) === digest([bytes]);
  };
  let exact = 0;
  for (let round = 0; round < 3; round++) {
    const results = await Promise.all([0, 1, 2, 3].map((i) => one(4 * round + i)));
    exact += results.filter(Boolean).length;
  }
  tell('exact ' + exact);
  told('end', () => process.stdin.destroy());
`;

/** Two workers that answer with what they are sent. */
const CLUSTER = `
  import cluster from 'node:cluster';
  import http from 'node:http';
  if (cluster.isPrimary) {
    const ports = [0, 1].map(() => new Promise((resolve) => cluster.fork().on('message', resolve)));
    const [port] = await Promise.all(ports);
    told('end', () => { cluster.disconnect(); process.stdin.destroy(); });
    tell('port ' + port);
  } else {
    process.stdin.destroy();
    const server = http.createServer((request, response) => request.pipe(response));
    server.listen(0, '127.0.0.1', () => process.send(server.address().port));
  }
`;

const REQUESTS = `
  import http from 'node:http';
  const agent = new http.Agent({ keepAlive: true });
  const ask = async (i) => {
    let exact = true;
    for (let round = 0; round < 4; round++) {
      const bytes = streamOf(i * 4 + round, 100_000);
      const request = http.request({ method: 'POST', port: +args[0], host: '127.0.0.1', agent });
      report(request, 'request');
      request.end(bytes);
      const [response] = await once(request, 'response');
      const chunks = [];
      for await (const chunk of response) chunks.push(chunk);
      exact &&= digest(chunks) === digest([bytes]);
      await pause(20);
    }
    return exact;
  };
  const results = await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(ask));
  agent.destroy();
  tell('exact ' + results.filter(Boolean).length);
  told('end', () => process.stdin.destroy());
`;

for (const policy of POLICIES) {
  for (const wait of ['plain', 'wait']) {
    const what = wait === 'wait' ? 'a moved connection' : 'a connection';
    const isMoved = wait === 'wait';

    test(`${what} as descriptor of a child: ${policy}`, { skip }, async () => {
      const ends = await runEnds(stage, [AS_STDIO, TAKER], policy, 'both ends', [wait, 'node']);
      if (isMoved) await giveWhenMoved(ends);
      await assertExact(ends);
      await assertEnded(ends);
    });

    test(`${what} as stdin and stdout of cat: ${policy}`, { skip }, async () => {
      const ends = await runEnds(stage, [AS_STDIO, ECHOED], policy, 'both ends', [wait, 'cat']);
      if (isMoved) await giveWhenMoved(ends);
      assert.equal(await ends.client.says('got '), digest(CLIENT_SEED));
      await assertEnded(ends);
    });
  }

  test(`a moved connection with bytes unread is refused as stdio, and goes on: ${policy}`, { skip }, async () => {
    const ends = await runEnds(stage, [AS_STDIO, ECHOED], policy, 'both ends', ['wait', 'cat', '', 10_000]);
    await moved(ends);
    ends.client.tell('ahead');
    await eventually('it is there', () => ends.client.connections[0]?.bytes.outShm === 10_000);
    ends.server.tell('go');
    assert.equal(await ends.server.says('refused '), 'ERR_ISTHMUS_PASS');
    ends.client.tell('go');
    assert.equal(await ends.client.says('got '), digest(CLIENT_SEED));
    await assertEnded(ends);
  });

  test(`two processes that hold one connection, of which one reads and one writes: ${policy}`, { skip }, async () => {
    const ends = await runEnds(stage, [SHARER, TALKER], policy, 'both ends');
    await ends.client.says('half');
    ends.client.tell('go');
    await assertExact(ends);
    assert.deepEqual(standing(ends.server), ['GIVENAWAY']);
    for (const one of [ends.server, ends.client]) one.tell('end');
    await assertEnded(ends);
  });

  test(`a server that is sent to a child, or is its descriptor, and accepts here and there: ${policy}`, {
    skip,
  }, async () => {
    const ends = await runEnds(stage, [SHARED_SERVER, MANY], policy, 'both ends');
    assert.equal(await ends.client.says('exact '), '12');
    for (const one of [ends.server, ends.client]) one.tell('end');
    await assertEnded(ends);
  });

  test(`a cluster: ${policy}`, { skip }, async () => {
    const ends = await runEnds(stage, [CLUSTER, REQUESTS], policy, 'both ends');
    assert.equal(await ends.client.says('exact '), '8');
    for (const one of [ends.server, ends.client]) one.tell('end');
    await assertEnded(ends);
  });
}
