/** Programs and threads that use the ISM layer themselves: devices that the fabric introduces, and rings between them. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove, ROOT } from './commands.ts';
import { type Program, Stage, PRELUDE as TALK } from './two-programs.ts';

const skip = cannotMove();
/** They are no programs of `isthmus run`. */
const ENV = { NODE_OPTIONS: '' };

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

const lib = (name: string) => JSON.stringify(pathToFileURL(join(ROOT, 'dist/lib', name, 'index.js')));

/** Begins programs and threads: `meet` makes a ring, `talkOver` moves bytes through it by signals alone. */
const RAW = `
  import { Ring } from ${lib('ism')};
  import { openHostDevice } from ${lib('devices/host')};
  const later = () => { let resolve; const promise = new Promise((one) => { resolve = one; }); return { promise, resolve }; };

  /** @param give tells the other one our token @param token resolves to its */
  async function meet(device, gid, give, token) {
    if (!(await device.queryRemoteGid(gid))) throw new Error('not reached');
    let talk = null;
    const client = { name: 'test', addDevice() {}, removeDevice() {}, handleSignal: () => talk?.look(), handleEvent() {} };
    const dmb = await device.registerDmb({ peer: gid, lengthBytes: 16384, client });
    give(String(dmb.token));
    const ring = new Ring(dmb, await device.attachDmb(BigInt(await token)));
    talk = Object.assign(talkOver(ring), { dmb });
    return talk;
  }

  function talkOver(ring) {
    const waiting = [];
    const talk = {
      ring,
      received: () => {},
      send(bytes) { waiting.push(bytes); talk.look(); },
      look() {
        for (let more = true; more; ) {
          const bytes = Buffer.alloc(5000);
          const length = ring.read(bytes);
          if (length > 0) talk.received(bytes.subarray(0, length));
          let sent = 0;
          while (waiting.length > 0) {
            const written = ring.write(waiting[0]);
            sent += written;
            if (written < waiting[0].length) { waiting[0] = waiting[0].subarray(written); break; }
            waiting.shift();
          }
          if (sent > 0) ring.signal();
          more = length > 0 || (waiting.length > 0 && ring.askForRoom());
        }
      },
    };
    return talk;
  }
`;

test('the example: two programs pass bytes by a ring', { skip }, async () => {
  const example = join(ROOT, 'examples/ring.mjs');
  const program = stage.start([process.execPath, example, '--seconds', '0.3', '--json'], ENV);
  assert.deepEqual(await program.exited, { code: 0, signal: null }, program.stderr);
  const { count, p50, bytesPerSecond } = JSON.parse(program.lines[0] ?? '') as Record<string, number>;
  for (const value of [count, p50, bytesPerSecond]) assert.ok((value as number) > 0, program.lines[0]);
});

const END = `${TALK}${RAW}
  const device = await openHostDevice({ access: args[0] });
  device.setEventListener(({ type, gid }) => tell(type + ' ' + gid));
  const token = later();
  let talk, got = 0, wrong = 0;
  told('token', token.resolve);
  told('meet', async (gid) => {
    talk = await meet(device, gid, (token) => tell('token ' + token), token.promise);
    talk.received = (bytes) => { for (const byte of bytes) if (byte !== byteAt(got++)) wrong++; };
    talk.look(); // for what came before
    tell('met');
  });
  told('send', (length) => talk.send(pattern(0, +length)));
  told('spin', () => { tell('spins'); while (talk.ring.spinForBytes(1e6)) talk.look(); tell('spun'); });
  told('got', () => tell('got ' + got + ' ' + wrong));
  told('reaches', async (gid) => tell('reaches ' + await device.queryRemoteGid(gid)));
  told('close', async () => { await device.close(); process.stdin.destroy(); });
  tell('gid ' + device.gid);
`;

async function meet(one: Program, other: Program): Promise<void> {
  one.tell(`meet ${await other.says('gid ')}`);
  other.tell(`meet ${await one.says('gid ')}`);
  one.tell(`token ${await other.says('token ')}`);
  other.tell(`token ${await one.says('token ')}`);
  await Promise.all([one.says('met'), other.says('met')]);
}

async function gets(program: Program, bytes: number): Promise<void> {
  await eventually(`${bytes} bytes, none of them wrong: ${program.lines} ${program.stderr}`, () => {
    program.tell('got');
    return program.lines.at(-1) === `got ${bytes} 0`;
  });
}

for (const [one, other] of [
  ['mapped', 'mapped'],
  ['store', 'mapped'],
] as const) {
  test(`two programs, ${one} and ${other}: bytes both ways by signals alone, and an end`, { skip }, async () => {
    const [a, b] = [stage.run(END, [one], ENV), stage.run(END, [other], ENV)];
    await meet(a, b);
    a.tell('send 100000');
    b.tell('send 50000');
    await Promise.all([gets(b, 100_000), gets(a, 50_000)]);
    a.tell('close');
    assert.deepEqual(await a.exited, { code: 0, signal: null }, a.stderr);
    await b.says(`peer-gone ${await a.says('gid ')}`);
    b.tell('close');
    assert.deepEqual(await b.exited, { code: 0, signal: null }, b.stderr);
  });
}

test('a program that spins for one that was killed has what it wrote, and learns of it in its event loop', {
  skip,
}, async () => {
  const [a, b] = [stage.run(END, ['mapped'], ENV), stage.run(END, ['mapped'], ENV)];
  await meet(a, b);
  a.tell('send 1000');
  a.tell('got');
  await a.says('got'); // and has written before
  b.tell('spin');
  await b.says('spins');
  a.child.kill('SIGKILL');
  await b.says('spun');
  await b.says('peer-gone');
  await gets(b, 1000);
  b.tell(`reaches ${await a.says('gid ')}`);
  assert.equal(await b.says('reaches '), 'false');
});

test('rings go on while the fabric is stopped and when it has gone; nobody else is reached then', {
  skip,
}, async () => {
  const socket = join(stage.directory, 'fabric.sock');
  const fabric = stage.start([process.execPath, CLI, 'fabric', '--socket', socket]);
  await fabric.says('fabric at');
  const env = { ...ENV, ISTHMUS_FABRIC: socket };
  const run = () => stage.run(END, ['mapped'], env);
  const [a, b, c] = [run(), run(), run()];
  await meet(a, b);
  const gid = await c.says('gid ');
  fabric.child.kill('SIGSTOP');
  a.tell(`reaches ${gid}`);
  assert.equal(await a.says('reaches '), 'false');
  const late = run();
  await eventually(`no device: ${late.stderr}`, () => /says nothing/.test(late.stderr));
  a.lines.length = 0;
  fabric.child.kill('SIGKILL');
  await fabric.exited;
  a.tell('send 100000');
  await gets(b, 100_000);
  a.tell(`reaches ${gid}`);
  assert.equal(await a.says('reaches '), 'false');
  assert.deepEqual(
    [a, b].map(({ lines }) => lines.filter((line) => line.startsWith('peer-gone'))),
    [[], []],
  );
});

const WORKER = `${RAW}
  import { parentPort, workerData } from 'node:worker_threads';
  const device = await openHostDevice();
  parentPort.postMessage(device.gid);
  const token = later();
  parentPort.once('message', token.resolve);
  const talk = await meet(device, workerData, (token) => parentPort.postMessage(token), token.promise);
  talk.received = (bytes) => talk.send(bytes);
  talk.look();
  parentPort.on('message', () => { parentPort.close(); device.close(); });
`;

const MAIN = `${TALK}${RAW}
  import { once } from 'node:events';
  import { readdirSync } from 'node:fs';
  import { Worker } from 'node:worker_threads';
  const device = await openHostDevice();
  const gone = [];
  const descriptors = () => readdirSync('/proc/self/fd').length;
  let most = 0;
  device.setEventListener(({ gid }) => gone.push(gid));
  for (const end of ['close', 'terminate', 'terminate', 'terminate']) {
    const worker = new Worker(args[0], { workerData: device.gid });
    const [gid] = await once(worker, 'message');
    const token = once(worker, 'message').then(([token]) => token);
    const talk = await meet(device, gid, (token) => worker.postMessage(token), token);
    let got = 0, wrong = 0;
    await new Promise((resolve) => {
      talk.received = (bytes) => {
        for (const byte of bytes) if (byte !== byteAt(got++)) wrong++;
        if (got >= 100_000) resolve();
      };
      talk.send(pattern(0, 100_000));
    });
    const ended = once(worker, 'exit');
    if (end === 'close') worker.postMessage('close');
    else await worker.terminate();
    await ended;
    while (!gone.includes(gid)) await new Promise((resolve) => setTimeout(resolve, 1));
    await device.unregisterDmb(talk.dmb);
    tell(end + ' ' + got + ' ' + wrong);
    most ||= descriptors();
  }
  for (let i = 0; i < 1000 && descriptors() > most; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  tell(descriptors() <= most ? 'nothing left' : 'left: ' + descriptors() + ' of ' + most);
  await device.close();
  process.stdin.destroy();
`;

test('threads of one program open a device each; one that is terminated is gone for the other', { skip }, async () => {
  const program = stage.run(MAIN, [stage.file('worker.mjs', WORKER)], ENV);
  assert.deepEqual(await program.exited, { code: 0, signal: null }, program.stderr);
  const rounds = ['close', 'terminate', 'terminate', 'terminate'].map((end) => `${end} 100000 0`);
  assert.deepEqual(program.lines, [...rounds, 'nothing left']);
});

test('without a fabric to be had, a device is an error that says why', { skip }, async () => {
  const code = `${RAW}
    openHostDevice().catch(({ code, message }) => console.log(code + ' ' + message));`;
  const program = stage.run(code, [], { ...ENV, ISTHMUS_FABRIC: '/nowhere/fabric.sock' });
  await program.says('ERR_ISTHMUS_FABRIC no fabric answers at /nowhere/fabric.sock');
  assert.deepEqual(await program.exited, { code: 0, signal: null }, program.stderr);
});
