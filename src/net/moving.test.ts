import assert from 'node:assert/strict';
import { AsyncResource } from 'node:async_hooks';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type OnReadOpts, type Socket } from 'node:net';
import { test } from 'node:test';
import { REASONS } from '../smc/reasons.ts';
import { eventually } from '../testing/index.ts';
import { type Internals, testInternals } from './internals.ts';
import { Mover } from './mover.ts';
import { Partition } from './partition.ts';
import { guardPassing } from './passing.ts';
import { DEFAULT_POLICY } from './policy.ts';

const internals = testInternals() as Internals;
const context = new AsyncResource('ISTHMUS');

test('this Node.js is as expected', () => assert.notEqual(typeof internals, 'string', String(internals)));

interface Ends {
  readonly client: Socket;
  readonly server: Socket;
  readonly movers: readonly [Mover, Mover];
  close(): void;
}

/** A connection inside this loop, with both ends on their way. */
async function pair(options: { allowHalfOpen?: boolean; dmbBytes?: number; onread?: OnReadOpts } = {}): Promise<Ends> {
  const partition = await Partition.create({ ...DEFAULT_POLICY, dmbBytes: options.dmbBytes ?? 16384 }, () => {});
  const listener = createServer({ allowHalfOpen: options.allowHalfOpen ?? false });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as { port: number };
  const { onread } = options;
  const client = connect({
    port,
    host: '127.0.0.1',
    allowHalfOpen: options.allowHalfOpen ?? false,
    ...(onread === undefined ? {} : { onread }),
  });
  const [[server]] = (await Promise.all([once(listener, 'connection'), once(client, 'connect')])) as [
    [Socket],
    unknown,
  ];
  const movers = [
    new Mover(client, 'client', partition, internals, context),
    new Mover(server, 'server', partition, internals, context),
  ] as const;
  for (const mover of movers) mover.start();
  return {
    client,
    server,
    movers,
    close() {
      client.destroy();
      server.destroy();
      listener.close();
    },
  };
}

async function moved({ movers, client, server }: Ends): Promise<void> {
  client.write('a');
  server.write('b');
  await eventually('both directions moved', () => movers.every((mover) => mover.isWhollyMoved));
}

function collect(socket: Socket): { text: string } {
  const got = { text: '' };
  socket.on('data', (chunk) => (got.text += chunk));
  return got;
}

test('a connection inside one loop moves, and its bytes go through memory', async () => {
  const ends = await pair();
  const [atClient, atServer] = [collect(ends.client), collect(ends.server)];
  await moved(ends);
  ends.client.write('to the server');
  ends.server.write('to the client');
  await eventually('arrived', () => atServer.text === 'ato the server' && atClient.text === 'bto the client');
  const [client] = ends.movers;
  assert.equal(client.carrier?.traffic.nativeWritten, 1);
  assert.equal(ends.client.bytesWritten, 14);
  assert.equal(ends.client.bytesRead, 14);
  ends.close();
});

test('it comes back to TCP and moves again', async () => {
  const ends = await pair();
  const [atClient, atServer] = [collect(ends.client), collect(ends.server)];
  await moved(ends);
  ends.client.write('1');
  ends.server.write('2');
  await ends.movers[0].restore();
  assert.ok(!ends.movers[0].isMoved);
  ends.client.write('3');
  ends.server.write('4');
  await eventually('arrived', () => atServer.text === 'a13' && atClient.text === 'b24');
  assert.ok((ends.movers[0].carrier?.traffic.nativeWritten ?? 0) >= 2);
  ends.movers[0].retry();
  await eventually('moved again', () => ends.movers.every((mover) => mover.isWhollyMoved));
  ends.client.write('5');
  ends.server.write('6');
  await eventually('arrived', () => atServer.text === 'a135' && atClient.text === 'b246');
  ends.close();
});

test('more than the ring holds goes through, both ways at once', async () => {
  const ends = await pair();
  await moved(ends);
  const sizes = { client: 0, server: 0 };
  ends.client.on('data', ({ length }) => (sizes.client += length));
  ends.server.on('data', ({ length }) => (sizes.server += length));
  const bytes = Buffer.alloc(1_000_000, 1);
  ends.client.write(bytes);
  ends.server.write(bytes);
  await eventually('arrived', () => sizes.client === 1_000_001 && sizes.server === 1_000_001);
  ends.close();
});

test('the end of a moved direction comes after its bytes', async () => {
  const ends = await pair({ allowHalfOpen: true });
  await moved(ends);
  const got = collect(ends.server);
  const end = once(ends.server, 'end');
  ends.client.end(`${'x'.repeat(50_000)}!`);
  await end;
  assert.equal(got.text.length, 50_002);
  ends.server.end('bye');
  const back = collect(ends.client);
  await once(ends.client, 'close');
  assert.equal(back.text, 'bbye');
  ends.close();
});

test('an offer of a peer that has closed is not taken up', async () => {
  const ends = await pair({ allowHalfOpen: true });
  await moved(ends);
  const { client, server, movers } = ends;
  server.resume();
  const end = once(server, 'end');
  await movers[1].restore();
  await eventually('the client offers again', () => movers[1].connection?.out.mayCut ?? false);
  client.destroy();
  await end;
  movers[1].retry();
  assert.equal(movers[1].connection?.out.isMoved, false);
  // To a peer that is gone, as on TCP.
  server.on('error', () => {}).end(Buffer.alloc(100_000));
  await once(server, 'close');
  ends.close();
});

test('buffers that the program makes for what it reads hold it, moved and back again, and are left alone then', async () => {
  const taken: { buffer: Uint8Array; copy: Buffer }[] = [];
  const text = () => Buffer.concat(taken.map(({ copy }) => copy)).toString();
  const ends = await pair({
    onread: {
      buffer: () => new Uint8Array(100),
      callback: (length, buffer) => {
        taken.push({ buffer, copy: Buffer.from(buffer.subarray(0, length)) });
        return true;
      },
    },
  });
  let expected = 'b';
  const says = async (words: string) => {
    ends.server.write(words);
    expected += words;
    await eventually('arrived', () => text().length >= expected.length);
    assert.equal(text(), expected);
  };
  await moved(ends);
  await says('moved ');
  await says('m'.repeat(350));
  await ends.movers[0].restore();
  await says('back');
  await says('t'.repeat(350));
  ends.movers[0].retry();
  await eventually('moved again', () => ends.movers.every((mover) => mover.isWhollyMoved));
  await says('again');
  for (const { buffer, copy } of taken) assert.ok(copy.equals(buffer.subarray(0, copy.length)));
  ends.close();
});

test('an error that the program passes on from another socket destroys at once', async () => {
  const ends = await pair();
  await moved(ends);
  const { client, server } = ends;
  client.on('error', () => {}).pause();
  server.on('error', () => {}).write('unread');
  const closed = new Promise((resolve) => client.on('close', resolve));
  client.destroy(Object.assign(new Error('read ECONNRESET'), { errno: -104, code: 'ECONNRESET', syscall: 'read' }));
  assert.ok(client.destroyed);
  await closed;
  ends.close();
});

test('bytes that came and were not looked at make a close a reset', async () => {
  const ends = await pair();
  await moved(ends);
  const { client, server } = ends;
  client.resume();
  server.resume();
  await eventually('all is read', () => server.bytesRead === 1 && client.bytesRead === 1);
  const failed = once(client, 'error');
  client.write('unseen'); // in the ring at once; the server has had no turn to look
  server.destroy();
  const [error] = (await failed) as [NodeJS.ErrnoException];
  assert.equal(error.code, 'ECONNRESET');
  ends.close();
});

test('what has been brought back goes behind what the stream holds', async () => {
  const ends = await pair();
  await moved(ends);
  const { client, server } = ends;
  client.on('readable', () => {}); // reads ahead, and nobody takes it
  for (const digit of ['1', '2', '3', '4']) {
    server.write(digit.repeat(25_000));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const sent = `b${['1', '2', '3', '4'].map((digit) => digit.repeat(25_000)).join('')}`;
  const passing = {
    giveAway: () => ends.movers[0].bringBackNow(REASONS.GIVENAWAY, 500) ?? Buffer.alloc(0),
    loadsIsthmus: () => false,
  };
  guardPassing(
    () => passing,
    () => [],
  );
  const child = fork('-', { stdio: 'ignore', execArgv: ['-e', 'setTimeout(() => {}, 5000)'] });
  try {
    assert.throws(() => child.send('take it', client), { code: 'ERR_ISTHMUS_PASS' });
  } finally {
    child.kill();
  }
  let text = '';
  client.removeAllListeners('readable').on('data', (chunk) => (text += chunk));
  await eventually('arrived', () => text.length >= sent.length);
  assert.equal(text, sent);
  ends.close();
});

/** An end of the peer's that stands behind what the program does not read: what the peer writes before it moves, and then. */
const BEHIND = {
  'bytes on TCP': { onTcp: 300_000, inRing: 0 },
  'bytes in the ring': { onTcp: 1, inRing: 100_000 },
  'bytes in the stream': { onTcp: 1, inRing: 65_536 }, // one chunk, after which it wants no more
} as const;

for (const [what, { onTcp, inRing }] of Object.entries(BEHIND)) {
  test(`a peer that ended and has gone: its end is shown behind ${what}, however late`, async (t) => {
    const ends = await pair({ dmbBytes: 262_144 });
    t.after(() => ends.close());
    const { client, server, movers } = ends;
    client.resume().write('a'.repeat(onTcp));
    server.write('b');
    await eventually('both ends write into rings', () => movers.every((mover) => mover.connection?.out.isMoved));
    client.end('c'.repeat(inRing));
    await eventually('there is more to show', () => movers[1].carrier?.hasMoreToShow === true);
    t.mock.timers.enable({ apis: ['setTimeout'] });
    movers[1].peerGone();
    for (let minute = 0; minute < 3; minute++) t.mock.timers.tick(60_000);
    t.mock.timers.reset();
    assert.ok(!server.destroyed);
    const got = collect(server);
    await once(server, 'end');
    assert.equal(got.text, 'a'.repeat(onTcp) + 'c'.repeat(inRing));
  });
}

test('a peer that ended and has gone: who was shown the end ends by itself, however late', async (t) => {
  const ends = await pair({ allowHalfOpen: true });
  t.after(() => ends.close());
  await moved(ends);
  const { client, server, movers } = ends;
  client.resume().end();
  server.resume();
  await once(server, 'end');
  t.mock.timers.enable({ apis: ['setTimeout'] });
  movers[1].peerGone();
  for (let minute = 0; minute < 3; minute++) t.mock.timers.tick(60_000);
  t.mock.timers.reset();
  assert.ok(!server.destroyed);
  server.end();
  await once(server, 'close');
});

test('a peer that ended and has gone: a write that waits fails, though its end was not read', async (t) => {
  const ends = await pair({ allowHalfOpen: true, dmbBytes: 262_144 });
  t.after(() => ends.close());
  await moved(ends);
  const { client, server, movers } = ends;
  client.pause();
  server.pause().on('error', () => {});
  client.end('c'.repeat(65_536)); // one chunk, after which it wants no more
  await eventually('the end of TCP is seen', () => movers[1].carrier?.hasMoreToShow === true);
  const failed = new Promise((resolve) => server.write('s'.repeat(600_000), resolve));
  t.mock.timers.enable({ apis: ['setTimeout'] });
  movers[1].peerGone();
  for (let minute = 0; minute < 3; minute++) t.mock.timers.tick(60_000);
  t.mock.timers.reset();
  await failed;
  assert.ok(server.destroyed);
});

test('a peer that has gone without an end: what it wrote is read, however late, then comes a reset', async (t) => {
  const ends = await pair({ dmbBytes: 262_144 });
  t.after(() => ends.close());
  await moved(ends);
  const { client, server, movers } = ends;
  client.on('error', () => {}).write('c'.repeat(100_000));
  await eventually('bytes wait in the ring', () => (movers[1].carrier?.unread ?? 0) > 0);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  movers[1].peerGone();
  for (let minute = 0; minute < 3; minute++) t.mock.timers.tick(60_000);
  assert.ok(!server.destroyed);
  const got = collect(server);
  while (got.text.length < 100_001) await once(server, 'data');
  assert.ok(!server.destroyed);
  const failed = once(server, 'error');
  t.mock.timers.tick(60_000);
  assert.ok(server.destroyed);
  assert.equal(((await failed)[0] as NodeJS.ErrnoException).code, 'ECONNRESET');
});

test('what is held behind a ring that has been read is given away, too', async () => {
  const ends = await pair({ dmbBytes: 1 << 20 });
  await moved(ends);
  const { client, server, movers } = ends;
  const unread = () => movers[1].carrier?.unread;
  client.write(Buffer.alloc(2 * 65_536)); // the stream takes one half ahead, and the other when that is read
  await eventually('read ahead', () => unread() === 65_536);
  void movers[0].restore();
  await eventually('the client is back', () => movers[1].connection?.in.state === 'DRAIN');
  client.write('held');
  await eventually('it is held', () => unread() === 65_536 + 4);
  while (server.read() !== null); // from Node.js 26 on it gives a chunk at a time
  await eventually('the ring is read', () => unread() === 4);
  assert.equal(String(movers[1].bringBackNow(REASONS.GIVENAWAY, 500)), 'held');
  ends.close();
});

test('a connection whose other end has sent all and ended is brought back at once', async () => {
  const ends = await pair({ allowHalfOpen: true });
  await moved(ends);
  const { client, server, movers } = ends;
  client.end('bye');
  while (movers[0].connection?.out.state !== 'CLOSED') await new Promise((resolve) => process.nextTick(resolve));
  assert.equal(String(movers[1].bringBackNow(REASONS.GIVENAWAY, 500)), 'bye');
  const end = once(server.resume(), 'end');
  server.end('and from TCP');
  await end;
  const got = collect(client);
  await once(client, 'end');
  assert.equal(got.text, 'band from TCP');
  ends.close();
});
