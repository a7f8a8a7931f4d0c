import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { readTables } from '../../src/cli/rows.ts';
import { eventually } from '../../src/testing/index.ts';
import { cannotMove } from './commands.ts';
import {
  assertEnded,
  assertExact,
  CLIENT_SEED,
  digest,
  type Ends,
  EXCHANGE,
  INDEX_URL,
  POLICIES,
  runEnds,
  SIDES,
  standing,
  TLS_FILES,
} from './exchange.ts';
import { Stage } from './two-programs.ts';

const skip = cannotMove();
let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

/** Defines `insist`: the other end may be kept from answering in time. What was read meanwhile would not be given along. */
const INSIST = `
  const insist = async (socket, give) => {
    for (let tries = 1; ; tries++) {
      try {
        return await give();
      } catch (error) {
        if (error.code !== 'ERR_ISTHMUS_PASS' || socket.readableLength > 0 || tries === 5) throw error;
        await pause(100);
      }
    }
  };
`;

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

/** Gives the moved connection to a child, and forgets it; says so once nothing here holds the socket any more. */
const FORGETTER = `${INSIST}
  import { fork } from 'node:child_process';
  import { setFlagsFromString } from 'node:v8';
  import { runInNewContext } from 'node:vm';
  if (process.argv[2] === 'child') {
    process.once('message', (_, socket) => {
      report(socket, 'socket');
      exchange(socket, SERVER_SEED).then(() => { socket.end(); process.disconnect(); });
    });
    process.send('ready');
  } else {
    const child = fork(process.argv[1], ['child'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    await once(child, 'message');
    child.once('exit', () => { server.close(); process.stdin.destroy(); });
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc');
    const sayWhenGone = async (given) => {
      do {
        await pause(10); // what was looked at is held until the end of the turn
        collectGarbage();
      } while (given.deref() !== undefined);
      tell('forgotten');
    };
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      report(socket, 'socket');
      const greeting = setInterval(() => socket.write('.'), 5);
      told('go', async () => {
        acts.delete('go');
        clearInterval(greeting);
        await insist(socket, () => child.send('take it', socket));
        sayWhenGone(new WeakRef(socket));
      });
    });
    server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
  }
`;

/** The other way: a child accepts and greets, and gives the connection to this process. */
const RETURNER = `
  import { fork } from 'node:child_process';
  if (process.argv[2] === 'child') {
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      report(socket, 'socket');
      const give = () => {
        try {
          process.send({ word: 'take it' }, socket);
        } catch (error) {
          tell('refused ' + error.code);
          exchange(socket.resume(), SERVER_SEED).then(() => { socket.end(); end(); });
          return;
        }
        end();
      };
      const end = () => { server.close(); process.disconnect(); };
      if (args[1] !== 'wait') { give(); return; }
      let went = false;
      process.once('message', () => { went = true; give(); });
      const greet = () => { if (!went) { socket.write('.'); setTimeout(greet, 5); } };
      greet();
    });
    server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }));
  } else {
    const child = fork(process.argv[1], ['child', args[1]], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    tell('child ' + child.pid);
    told('go', () => child.send('go'));
    child.on('message', ({ port, word }, socket) => {
      if (port !== undefined) { tell('port ' + port); return; }
      if (word !== 'take it') tell('failed: ' + word);
      report(socket, 'socket');
      exchange(socket, SERVER_SEED).then(() => socket.end());
    }).on('exit', () => process.stdin.destroy());
  }
`;

/** Reads the beginning, which is one chunk, and gives the connection and what it has read to one of two children, which are servers of HTTP. */
const STICKY = `${INSIST}
  import { fork } from 'node:child_process';
  import http from 'node:http';
  if (process.argv[2] === 'child') {
    const server = http.createServer((request, response) => request.pipe(response));
    process.on('message', ({ head }, socket) => {
      report(socket, 'socket');
      server.emit('connection', socket);
      socket.emit('data', Buffer.from(head, 'base64'));
      socket.resume();
    });
    process.on('disconnect', () => process.exit());
    process.send('ready');
  } else {
    const start = () => fork(process.argv[1], ['child'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const children = [start(), start()];
    await Promise.all(children.map((child) => once(child, 'message')));
    let next = 0;
    const server = net.createServer((socket) => {
      report(socket, 'socket');
      socket.once('data', async (head) => {
        socket.pause();
        if (args[1] === 'wait') await pause(100);
        const child = children[next++ % 2];
        await insist(socket, () => child.send({ head: head.toString('base64') }, socket));
      });
    });
    server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
    told('end', () => { for (const child of children) child.disconnect(); server.close(); process.stdin.destroy(); });
  }
`;

/** Attaches what it was sent. */
const ATTACHER = `
  import { fork } from 'node:child_process';
  if (process.argv[2] === 'child') {
    const { attach } = await import(process.env.INDEX_URL);
    process.once('message', (_, socket) => {
      report(socket, 'socket');
      attach(socket, 'server');
      let went = false;
      const greet = () => { if (!went) { socket.write('.'); setTimeout(greet, 5); } };
      greet();
      socket.once('data', () => { went = true; }).pipe(socket).on('close', () => process.exit());
    });
    process.send('ready');
  } else {
    const child = fork(process.argv[1], ['child'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    await once(child, 'message');
    tell('child ' + child.pid);
    child.once('exit', () => { server.close(); process.stdin.destroy(); });
    const server = net.createServer({ pauseOnConnect: true }, (socket) => child.send('take it', socket));
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

/** The connection of a process that a test did not start itself, and of its client. */
async function haveMoved(pid: string, { client }: Ends): Promise<void> {
  await eventually('both ends have moved', () =>
    [pid, String(client.pid)].every(
      (one) =>
        readTables(one)
          .rows.map(({ mode }) => mode)
          .join() === 'SMC-D',
    ),
  );
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
const AS_STDIO = `${INSIST}
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
      told('go', async () => { went = true; try { await insist(socket, give); } catch (error) {
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
  if (args[1] === 'none') cluster.schedulingPolicy = cluster.SCHED_NONE;
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
      const bytes = streamOf(i * 4 + round, round === 0 && args[2] === 'small' ? 100 : 100_000);
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

  for (const schedule of ['round robin', 'none']) {
    test(`a cluster, its scheduling ${schedule}: ${policy}`, { skip }, async () => {
      const ends = await runEnds(stage, [CLUSTER, REQUESTS], policy, 'both ends', [schedule]);
      assert.equal(await ends.client.says('exact '), '8');
      for (const one of [ends.server, ends.client]) one.tell('end');
      await assertEnded(ends);
    });
  }

  for (const wait of ['plain', 'wait']) {
    test(`connections given on with their first bytes (${wait}): ${policy}`, { skip }, async () => {
      const ends = await runEnds(stage, [STICKY, REQUESTS], policy, 'both ends', [wait, 'small']);
      assert.equal(await ends.client.says('exact '), '8');
      for (const one of [ends.server, ends.client]) one.tell('end');
      await assertEnded(ends);
    });
  }

  test(`a connection sent to the parent as soon as it is there: ${policy}`, { skip }, async () => {
    const ends = await runEnds(stage, [RETURNER, TAKER], policy, 'both ends', ['plain']);
    await assertExact(ends);
    await assertEnded(ends);
  });

  for (const early of [0, 10_000]) {
    test(`a moved connection with ${early} bytes unread sent to the parent: ${policy}`, { skip }, async () => {
      const ends = await runEnds(stage, [RETURNER, TAKER], policy, 'both ends', ['wait', '', '', early]);
      await haveMoved(await ends.server.says('child '), ends);
      if (early > 0) {
        ends.client.tell('ahead');
        await ends.client.says('ahead');
        await eventually('it is there', () => ends.client.connections[0]?.bytes.outShm === early);
      }
      ends.server.tell('go');
      if (early > 0) assert.equal(await ends.server.says('refused '), 'ERR_ISTHMUS_PASS');
      ends.client.tell('go');
      await assertExact(ends);
      await assertEnded(ends);
    });
  }
}

test('a moved connection sent to a child leaves nothing behind, while the child goes on with it', {
  skip,
}, async () => {
  const ends = await runEnds(stage, [FORGETTER, TAKER], 'eager', 'both ends', ['wait']);
  await moved(ends);
  ends.server.tell('go');
  await ends.server.says('forgotten');
  assert.deepEqual(ends.server.connections, []);
  ends.client.tell('go');
  await assertExact(ends);
  await assertEnded(ends);
});

/** Has a child write to the connection that it is given in this way, and writes on itself. */
const LENDER = `${INSIST}
  import { execFileSync, execSync, fork, spawn, spawnSync } from 'node:child_process';
  if (process.argv[2] === 'child') {
    process.once('message', (_, handle) => new net.Socket({ handle }).write('child ', () => process.exit()));
    process.send('ready');
  } else {
    const stdio = (entry) => ({ stdio: ['ignore', entry, 'inherit'] });
    const WAYS = {
      'spawn, handle': (socket) => once(spawn('printf', ['child '], stdio(socket._handle)), 'exit'),
      'spawn, descriptor': (socket) => once(spawn('printf', ['child '], stdio(socket._handle.fd)), 'exit'),
      'spawn, what has the handle': (socket) => once(spawn('printf', ['child '], stdio({ _handle: socket._handle, pause() {}, _readableState: {} })), 'exit'),
      'spawnSync, what has the descriptor': (socket) => spawnSync('printf', ['child '], stdio({ fd: socket._handle.fd })),
      'execFileSync, handle': (socket) => execFileSync('printf', ['child '], stdio(socket._handle)),
      'execSync, descriptor': (socket) => execSync('printf "child "', stdio(socket._handle.fd)),
      'send, handle': async (socket) => {
        const child = fork(process.argv[1], ['child'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
        await once(child, 'message');
        try { child.send('', socket._handle); } catch (error) { child.kill(); throw error; }
        await once(child, 'exit');
      },
    };
    const server = net.createServer((socket) => {
      report(socket, 'socket');
      socket.resume();
      let went = false;
      told('go', async () => {
        went = true;
        socket.write('before ');
        try {
          await insist(socket, () => WAYS[args[1]](socket));
        } catch (error) {
          tell('refused ' + error.code);
        }
        socket.end('after');
        server.close();
        process.stdin.destroy();
      });
      const greet = () => { if (!went) { socket.write('.'); setTimeout(greet, 5); } };
      greet();
    });
    server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
  }
`;

/** Says all that came after the greeting. */
const LISTENER = `
  const socket = net.connect(+args[0], '127.0.0.1');
  report(socket, 'socket');
  let text = '';
  socket.on('data', (chunk) => { text += chunk; });
  const greet = setInterval(() => socket.write('.'), 5);
  told('stop', () => { clearInterval(greet); tell('stopped ' + socket.bytesWritten); });
  socket.on('end', () => { tell('got ' + text.replace(/^\\.*/, '')); process.stdin.destroy(); });
`;

for (const way of [
  'spawn, handle',
  'spawn, descriptor',
  'spawn, what has the handle',
  'spawnSync, what has the descriptor',
  'execFileSync, handle',
  'execSync, descriptor',
  'send, handle',
]) {
  test(`a moved connection that a child gets by other names is whole: ${way}`, { skip }, async () => {
    const ends = await runEnds(stage, [LENDER, LISTENER], 'eager', 'both ends', [way]);
    await moved(ends);
    ends.client.tell('stop');
    const sent = Number(await ends.client.says('stopped '));
    await eventually('all was read', () => {
      const { inTcp = 0, inShm = 0 } = ends.server.connections[0]?.bytes ?? {};
      return inTcp + inShm === sent;
    });
    ends.server.tell('go');
    assert.equal(await ends.client.says('got '), 'before child after');
    await assertEnded(ends);
    for (const { lines } of [ends.server, ends.client]) assert.doesNotMatch(lines.join('\n'), /error|refused/);
  });
}

test('a connection that was received moves when it is attached', { skip }, async () => {
  const ends = await runEnds(stage, [ATTACHER, ECHOED], 'eager', 'both ends', ['wait']);
  await haveMoved(await ends.server.says('child '), ends);
  ends.client.tell('go');
  assert.equal(await ends.client.says('got '), digest(CLIENT_SEED));
  await assertEnded(ends);
});

/** Gives a connection to a child when its client has ended, and tells what the child gets. */
const LATE_GIVER = `
  import { fork } from 'node:child_process';
  if (process.argv[2] === 'child') {
    process.once('message', (_, socket) => {
      report(socket, 'socket');
      const chunks = [];
      socket.on('data', (chunk) => chunks.push(chunk)).on('end', () => { tell('got ' + digest(chunks)); process.disconnect(); });
    });
    process.send('ready');
  } else {
    const child = fork(process.argv[1], ['child'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    await once(child, 'message');
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      report(socket, 'socket');
      told('ended', async () => {
        await pause(50); // the end of TCP is seen
        try {
          child.send('take it', socket);
        } catch (error) {
          tell('got ' + error.code);
          child.kill();
          socket.destroy();
        }
        server.close();
        process.stdin.destroy();
      });
    });
    server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
  }
`;

/** Writes in shared memory and ends: there, or back on TCP, with or without bytes on it. */
const QUICK = `
  const { info, restore } = await import(process.env.INDEX_URL);
  const socket = net.connect(+args[0], '127.0.0.1');
  report(socket, 'socket');
  await once(socket, 'connect');
  const bytes = streamOf(CLIENT_SEED, 20_000);
  const late = args[1] === 'back with bytes' ? 10_000 : 0;
  socket.write(bytes.subarray(0, 20_000 - late));
  tell('mode ' + info(socket).mode);
  if (args[1] !== 'in shared memory') { void restore(socket); await pause(20); }
  socket.end(bytes.subarray(20_000 - late), () => tell('ended'));
  socket.resume().on('close', () => process.stdin.destroy());
`;

for (const way of ['in shared memory', 'back on TCP', 'back with bytes']) {
  test(`a connection whose client has written all and ended, ${way}, sent to a child`, { skip }, async () => {
    const env = { TLS_FILES, INDEX_URL, ISTHMUS_IN_BAND: '127.0.0.1:*' };
    const server = stage.run(EXCHANGE + LATE_GIVER, ['0'], env);
    const client = stage.run(EXCHANGE + QUICK, [await server.says('port '), way], env);
    assert.equal(await client.says('mode '), 'SMC-D');
    await client.says('ended');
    server.tell('ended');
    assert.equal(await server.says('got '), digest(CLIENT_SEED, 20_000));
    await assertEnded({ server, client });
  });
}

/** Posts each connection to a thread, which echoes; in-band it has moved before its first byte. */
const POSTER = `
  import { Worker, isMainThread, parentPort } from 'node:worker_threads';
  if (!isMainThread) {
    parentPort.on('message', ({ socket }) => socket.pipe(socket));
  } else {
    const { createServer } = await import(process.env.INDEX_URL);
    const worker = new Worker(new URL(import.meta.url), { argv: args });
    const server = createServer({ pauseOnConnect: true, ...(args[1] === 'in-band' ? { handshake: 'in-band' } : {}) }, (socket) => {
      report(socket, 'socket');
      try {
        worker.postMessage({ socket }, [socket]);
      } catch (error) {
        tell('refused ' + error.code);
        socket.pipe(socket);
        socket.resume();
      }
    });
    server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
    told('end', () => { worker.terminate(); server.close(); process.stdin.destroy(); });
  }
`;

const SPEAKER = ECHOED.replace(
  "net.connect(+args[0], '127.0.0.1')",
  "(await import(process.env.INDEX_URL)).connect({ port: +args[0], host: '127.0.0.1', ...(args[5] === 'in-band' ? { handshake: 'in-band' } : {}) })",
);

const cannotPost =
  skip || (Number.parseInt(process.versions.node, 10) < 24 && 'Node.js 24 or newer posts sockets to threads');

for (const handshake of ['by the fabric', 'in-band']) {
  test(`a connection posted to a thread, its handshake ${handshake}`, { skip: cannotPost }, async () => {
    const server = stage.run(EXCHANGE + POSTER, ['0', handshake], { TLS_FILES, INDEX_URL });
    const args = [await server.says('port '), 'plain', '', '', '', handshake];
    const client = stage.run(EXCHANGE + SPEAKER, args, { TLS_FILES, INDEX_URL });
    assert.equal(await client.says('got '), digest(CLIENT_SEED));
    if (handshake === 'in-band') assert.equal(await server.says('refused '), 'ERR_ISTHMUS_PASS');
    else assert.doesNotMatch(server.lines.join(), /refused/);
    server.tell('end');
    await assertEnded({ server, client });
  });
}
