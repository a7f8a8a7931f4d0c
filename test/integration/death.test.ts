import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { findFabric } from '../../src/fabric/client.ts';
import { closeFd, peerCredentials } from '../../src/os/index.ts';
import { eventually } from '../../src/testing/index.ts';
import { PRELUDE, type Program, Stage } from './two-programs.ts';

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

/** Answers with what it gets, tells of everything that happens, and does what it is told. */
const SERVER = `${PRELUDE}
  const server = net.createServer({ allowHalfOpen: args[0] === 'half' }, (socket) => {
    let got = 0, wrong = 0;
    tell('accepted');
    socket.on('data', (chunk) => { for (const byte of chunk) if (byte !== byteAt(got++)) wrong++; });
    socket.on('end', () => tell('end ' + got + ' ' + wrong));
    socket.on('error', (error) => tell('error ' + error.code));
    socket.on('close', (hadError) => tell('close ' + hadError + ' ' + got + ' ' + wrong));
    let sent = 0;
    told('write', (length) => { socket.write(pattern(sent, +length), (error) => tell('written ' + (error?.code ?? 'ok'))); sent += +length; tell('wrote ' + length); });
    told('more', (length) => { socket.write(Buffer.alloc(+length), (error) => tell('more ' + (error?.code ?? 'ok'))); tell('wrote ' + length); });
    told('pause', () => { socket.pause(); tell('paused'); });
    told('resume', () => socket.resume());
    told('got', () => tell('got ' + got));
    told('exit', () => process.exit());
    told('end', () => socket.end());
  });
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
`;

const CLIENT = `${PRELUDE}
  let got = 0, wrong = 0, sent = 0;
  const take = (chunk) => { for (const byte of chunk) if (byte !== byteAt(got++)) wrong++; };
  const buffer = Buffer.alloc(4096);
  const onread = { buffer, callback: (length) => { take(buffer.subarray(0, length)); return true; } };
  const options = { port: +args[0], host: '127.0.0.1', allowHalfOpen: args[1] === 'half' };
  const socket = net.connect(args[1] === 'onread' ? { ...options, onread } : options);
  socket.on('connect', () => tell('connected'));
  socket.on('data', take);
  socket.on('end', () => tell('end ' + got + ' ' + wrong));
  socket.on('error', (error) => tell('error ' + error.code));
  socket.on('close', (hadError) => tell('close ' + hadError + ' ' + got + ' ' + wrong));
  told('write', (length) => { socket.write(pattern(sent, +length), (error) => tell('written ' + (error?.code ?? 'ok'))); sent += +length; tell('wrote ' + length); });
  told('pause', () => { socket.pause(); tell('paused'); });
  told('more', (length) => { socket.write(Buffer.alloc(+length), (error) => tell('more ' + (error?.code ?? 'ok'))); tell('wrote ' + length); });
  told('stay', () => setInterval(() => {}, 1000));
  told('resume', () => socket.resume());
  told('got', () => tell('got ' + got));
  told('writeAndExit', (length) => { socket.write(pattern(sent, +length)); process.exit(); });
  told('writeAndExitLoudly', (length) => {
    process.on('exit', () => console.log('exit'));
    for (let i = 0; i < 2; i++) {
      socket.write(pattern(sent, +length), () => { console.log('called'); throw new Error('in a callback'); });
      sent += +length;
    }
    process.exit();
  });
  told('writeAndDestroy', (length) => { socket.write(pattern(sent, +length)); socket.destroy(); });
  told('throw', () => { throw new Error('on purpose'); });
  told('end', () => socket.end());
  told('exit', () => process.exit());
`;

async function connected(env: NodeJS.ProcessEnv = {}, kind = ''): Promise<{ server: Program; client: Program }> {
  const server = stage.run(SERVER, [kind], env);
  const port = await server.says('port ');
  const client = stage.run(CLIENT, [port, kind], env);
  await client.says('connected');
  await server.says('accepted');
  // A byte each way now and then, until both have moved; in all a thousand.
  const wants = env.ISTHMUS_POLICY !== 'off';
  const moved = (program: Program) =>
    program.connections.some(({ mode, bytes }) => mode === 'SMC-D' && bytes.outShm > 0);
  let warm = 0;
  for (; warm < 900 && (warm === 0 || (wants && !(moved(client) && moved(server)))); warm++) {
    client.tell('write 1');
    server.tell('write 1');
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  const why = () => [client, server].map((one) => [one.connections.map(({ reason }) => reason.name), one.stderr]);
  assert.ok(warm < 900, `not moved: ${JSON.stringify(why())}`);
  client.tell(`write ${1000 - warm}`);
  server.tell(`write ${1000 - warm}`);
  for (const program of [client, server]) {
    await eventually('the thousand was read', () => {
      program.tell('got');
      return program.lines.includes('got 1000');
    });
  }
  return { server, client };
}

/** The same on TCP and on shared memory; what the survivor said, without what it said before. */
async function both(run: (env: NodeJS.ProcessEnv) => Promise<unknown>): Promise<void> {
  const plain = await run({ ISTHMUS_POLICY: 'off' });
  const moved = await run({ ISTHMUS_POLICY: 'eager' });
  assert.deepEqual(moved, plain);
}

/** So many bytes have left it, on TCP or in shared memory. */
const hasLeft = (program: Program, count: (bytes: number) => boolean) =>
  eventually('it has left', () => program.connections.some(({ bytes }) => count(bytes.outShm + bytes.outTcp)));

async function nothingIsLeft(): Promise<void> {
  await eventually('the runtime directory is empty but for the lock', () =>
    readdirSync(stage.directory).every((name) => name === 'fabric.lock'),
  );
  assert.deepEqual(
    readdirSync('/dev/shm').filter((name) => name.includes('isthmus')),
    [],
  );
}

test('kill -9 while nothing is under way: the other one sees the end, as on TCP', async () => {
  await both(async (env) => {
    const { server, client } = await connected(env);
    await eventually('all was read', () => client.lines.length > 0 && server.lines.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.child.kill('SIGKILL');
    const close = await server.says('close ');
    const error = server.lines.filter((line) => line.startsWith('error'));
    return { close, end: server.lines.some((line) => line.startsWith('end')), error };
  });
  await nothingIsLeft();
});

test('a writer that ends and exits: a slow reader gets everything, however late, as on TCP', async () => {
  await both(async (env) => {
    const { server, client } = await connected(env);
    server.tell('pause');
    await server.says('paused');
    client.tell('write 40000');
    client.tell('end');
    await client.says('written ok');
    client.tell('exit');
    await client.exited;
    await new Promise((resolve) => setTimeout(resolve, 3000));
    server.tell('resume');
    const [end, close] = [await server.says('end '), await server.says('close ')];
    return { end, close, error: server.lines.filter((line) => line.startsWith('error')) };
  });
  await nothingIsLeft();
});

/** Every connection reads when told so, and says what it got. */
const READERS = `${PRELUDE}
  const readers = [];
  const server = net.createServer((socket) => {
    const number = readers.push(socket);
    let got = 0, wrong = 0;
    socket.once('data', (chunk) => { socket.write('.'); got += chunk.length; socket.pause(); tell('began ' + number);
      socket.on('data', (chunk) => { for (const byte of chunk) if (byte !== byteAt(got++)) wrong++; }); });
    socket.on('error', (error) => tell('error ' + error.code));
    socket.on('close', () => tell('close ' + number + ' ' + got + ' ' + wrong));
  });
  told('read', (number) => readers[number - 1].resume());
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
`;

test('kill -9 of the peer of one that reads into its buffer and has paused: it sees the end when it reads on, however late', async () => {
  const run = async (env: NodeJS.ProcessEnv) => {
    const { server, client } = await connected(env, 'onread');
    client.tell('stay'); // what is not read keeps no program
    client.tell('pause');
    await client.says('paused');
    const before = client.lines.length;
    server.child.kill('SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 11_000)); // longer than a connection without a peer is waited for
    const meanwhile = client.lines.slice(before);
    client.tell('resume');
    await client.says('close ');
    return { meanwhile, after: client.lines.slice(before) };
  };
  const [plain, moved] = await Promise.all([run({ ISTHMUS_POLICY: 'off' }), run({ ISTHMUS_POLICY: 'eager' })]);
  assert.deepEqual(moved, plain);
});

test('kill -9 of the peer of one that reads into its buffer and has paused: what it writes fails, as on TCP', async () => {
  for (const waits of [false, true]) {
    await both(async (env) => {
      const { server, client } = await connected(env, 'onread');
      client.tell('stay');
      client.tell('pause');
      await client.says('paused');
      if (waits) {
        server.tell('pause');
        await server.says('paused');
        client.tell('more 9000000');
        await client.says('wrote 9000000');
      }
      server.child.kill('SIGKILL');
      await server.exited;
      for (let i = 0; i < 300 && !client.lines.some((line) => line.startsWith('close ')); i++) {
        if (!waits) client.tell('write 10');
        await new Promise((resolve) => setTimeout(resolve, 10)); // in three seconds
      }
      const said = client.lines.filter((line) => /^(error|close|end|more) /.test(line));
      return said.map((line) => line.replace(/EPIPE|ECONNRESET/, 'gone')); // of what had waited the kernel knows which
    });
  }
});

test('kill -9 of the last peer: what it has written is kept, also when everything else has ended', async () => {
  const server = stage.run(READERS);
  const port = await server.says('port ');
  const moved = async (number: number) => {
    const client = stage.run(CLIENT, [port]);
    await client.says('connected');
    client.tell('write 1');
    await server.says(`began ${number}`);
    await eventually('moved', () => {
      client.tell('write 1');
      return client.connections.some(({ bytes }) => bytes.outShm > 0);
    });
    return client;
  };
  const [writer, other] = [await moved(1), await moved(2)];
  const sent = () => writer.connections.map(({ bytes }) => bytes.outTcp + bytes.outShm)[0] ?? 0;
  // The first fills the stream's own buffer; the second stays in the ring.
  for (const length of [20000, 40000]) {
    writer.tell('write 20000');
    await eventually('it has left', () => sent() > length);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const all = sent();
  for (const client of [writer, other]) client.child.kill('SIGKILL');
  server.tell('read 2'); // it ends, and what is unused is given back after a while
  await server.says('close 2 ');
  await new Promise((resolve) => setTimeout(resolve, 600));
  server.tell('read 1');
  assert.equal(await server.says('close 1 '), `${all} 0`);
});

test('kill -9 with bytes unread: the other one is reset, as on TCP', async () => {
  await both(async (env) => {
    const { server, client } = await connected(env);
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.tell('pause');
    await client.says('paused');
    server.tell('more 300000');
    await server.says('wrote 300000');
    client.child.kill('SIGKILL');
    return { close: await server.says('close '), error: await server.says('error ') };
  });
  await nothingIsLeft();
});

test('kill -9 of a reader: a writer that waits for room fails at once', async () => {
  await both(async (env) => {
    const { server, client } = await connected(env);
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.tell('pause');
    await client.says('paused');
    for (let i = 0; i < 40; i++) server.tell('more 1000000');
    const wrote = () => server.lines.filter((line) => line === 'wrote 1000000').length;
    await eventually('all is written', () => wrote() === 40);
    const from = Date.now();
    client.child.kill('SIGKILL');
    const error = await server.says('error ');
    assert.ok(Date.now() - from < 8000, 'without the delay of one whose peer is not heard of (ORPHAN_MS)');
    return { error, close: (await server.says('close ')).split(' ')[0] };
  });
});

test('kill -9 of a writer in mid-stream: what had left it arrives, then the end', async () => {
  const { server, client } = await connected();
  client.tell('write 60000');
  await hasLeft(client, (bytes) => bytes === 61_000);
  client.child.kill('SIGKILL');
  assert.equal(await server.says('close '), 'false 61000 0');
  await nothingIsLeft();
});

test('kill -9 of a writer that a reader who has stopped has left room: all arrives, then the end', async () => {
  const { server, client } = await connected();
  server.tell('pause');
  await server.says('paused');
  client.tell('write 500000');
  await hasLeft(client, (bytes) => bytes === 501_000);
  client.child.kill('SIGKILL');
  await client.exited;
  server.tell('resume');
  assert.equal(await server.says('close '), 'false 501000 0');
  await nothingIsLeft();
});

test('kill -9 of a writer that waits for room: what had left it arrives, then it is reset', async () => {
  const { server, client } = await connected({ ISTHMUS_MAX_DMB_BYTES: '16384' });
  server.tell('pause');
  await server.says('paused');
  client.tell('write 500000');
  await hasLeft(client, (bytes) => bytes > 60_000);
  client.child.kill('SIGKILL');
  await client.exited;
  await new Promise((resolve) => setTimeout(resolve, 100));
  server.tell('resume');
  assert.equal(await server.says('error '), 'ECONNRESET');
  const [hadError, got, wrong] = (await server.says('close ')).split(' ');
  assert.deepEqual([hadError, wrong], ['true', '0']);
  assert.ok(Number(got) > 60_000 && Number(got) < 501_000, got);
  assert.ok(!server.lines.some((line) => line.startsWith('end')));
  await nothingIsLeft();
});

for (const length of [1, 60_000, 1_000_000]) {
  test(`write(${length}); process.exit() delivers all, then the end`, async () => {
    await both(async (env) => {
      const { server, client } = await connected(env);
      await new Promise((resolve) => setTimeout(resolve, 100));
      client.tell(`writeAndExit ${length}`);
      return server.says('close ');
    });
  });
}

test('at process.exit() no callback of a write is called, and listeners of the program run', async () => {
  await both(async (env) => {
    const { server, client } = await connected(env);
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.tell('writeAndExitLoudly 150000');
    return { close: await server.says('close '), exit: await client.exited, lines: client.lines.slice(-1) };
  });
});

test('an uncaught exception ends as on TCP', async () => {
  await both(async (env) => {
    const { server, client } = await connected(env);
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.tell('throw');
    return { close: await server.says('close '), exit: await client.exited };
  });
});

test('a peer that exits with bytes unread resets, as on TCP', async () => {
  await both(async (env) => {
    const { server, client } = await connected(env);
    await new Promise((resolve) => setTimeout(resolve, 100));
    server.tell('pause');
    await server.says('paused');
    client.tell('write 300000');
    await client.says('wrote 300000');
    server.tell('exit');
    return { close: (await client.says('close ')).split(' ')[0], error: await client.says('error ') };
  });
});

test('half closed, the writer goes on; killed then, it is seen', async () => {
  await both(async (env) => {
    const { server, client } = await connected(env, 'half');
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.tell('end');
    await server.says('end ');
    server.tell('more 100000');
    await server.says('more ok');
    await new Promise((resolve) => setTimeout(resolve, 200));
    client.child.kill('SIGKILL');
    await client.exited;
    await new Promise((resolve) => setTimeout(resolve, 100));
    for (let i = 0; i < 3; i++) {
      server.tell('more 1000');
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return (await server.says('error ')).length > 0;
  });
});

test('the fabric may die or stop: established connections and their ends go on', async () => {
  for (const signal of ['SIGKILL', 'SIGSTOP'] as const) {
    const { server, client } = await connected();
    const fabric = fabricPid();
    process.kill(fabric, signal);
    try {
      client.tell('write 200000');
      await eventually('bytes go on', () => {
        server.tell('got');
        return server.lines.includes('got 201000');
      });
      client.tell('end');
      assert.equal(await server.says('close '), 'false 201000 0');
      assert.equal((await client.says('close ')).split(' ')[0], 'false');
    } finally {
      if (signal === 'SIGSTOP') process.kill(fabric, 'SIGKILL');
    }
  }
});

function fabricPid(): number {
  const found = findFabric({ ISTHMUS_RUNTIME_DIR: stage.directory });
  assert.ok(found, 'a fabric runs');
  const { pid } = peerCredentials(found.fd);
  closeFd(found.fd);
  return pid;
}

test('while the fabric is stopped new connections stay on TCP and say so; they move once it goes on', async () => {
  await connected(); // the fabric runs
  const fabric = fabricPid();
  process.kill(fabric, 'SIGSTOP');
  const server = stage.run(SERVER);
  const client = stage.run(CLIENT, [await server.says('port ')]);
  await client.says('connected');
  client.tell('write 1000');
  await server.says('accepted');
  await eventually('a reason that names the fabric', () => {
    client.tell('write 1');
    server.tell('write 1');
    return client.connections.some(
      ({ mode, reason }) => mode === 'TCP' && /^(FABRICSILENT|FABRICLOST|NOFABRIC)$/.test(reason.name),
    );
  });
  process.kill(fabric, 'SIGCONT');
  await eventually('moved', () => {
    client.tell('write 1');
    server.tell('write 1');
    return client.connections.some(({ mode }) => mode === 'SMC-D');
  });
  client.tell('end');
  assert.match(await server.says('close '), /^false \d+ 0$/);
});

test('after the fabric was killed a new one is started and new connections move', async () => {
  const first = await connected();
  process.kill(fabricPid(), 'SIGKILL');
  const second = await connected();
  assert.notEqual(second.client.connections[0]?.gid, first.client.connections[0]?.gid);
  // The old pair goes on.
  first.client.tell('write 100');
  await eventually('old connection alive', () => {
    first.server.tell('got');
    return first.server.lines.includes('got 1100');
  });
});
