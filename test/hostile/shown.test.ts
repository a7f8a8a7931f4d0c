/** What others may say to `isthmus ss`, `isthmus stats` and `isthmus fabric status`. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { encodeMessage, type FabricMessage } from '../../src/fabric/protocol.ts';
import { COUNTER, type ConnectionInfo } from '../../src/net/info.ts';
import { ConnectionTable, FIRST_ROW, ROW_BYTES, TABLE_MAGIC, TABLE_NAME } from '../../src/net/table.ts';
import {
  acceptPackets,
  closeFd,
  createSharedMemory,
  listenPackets,
  receivePacket,
  sendPacket,
} from '../../src/os/index.ts';
import { REASONS } from '../../src/smc/reasons.ts';
import { CLI, cannotMove, Workplace } from '../integration/commands.ts';

let work: Workplace;
beforeEach(() => {
  work = new Workplace();
});
afterEach(() => work.close());

const skip = cannotMove();
const isthmus = (args: readonly string[], env: NodeJS.ProcessEnv = {}) =>
  work.finish(process.execPath, [CLI, ...args], { env: { ...work.env, ...env } });

const ROW = {
  id: '1.0.1',
  pid: 1,
  program: 'program\u001b[2J\u009b\u202e\n.js',
  role: null,
  state: 'open',
  mode: 'TCP',
  reason: 0x49530003,
  device: null,
  access: null,
  local: { address: '127.0.0.1', port: 1 },
  peer: { address: '127.0.0.1', port: 2 },
  movedAtMs: null,
  gid: null,
  peerGid: null,
  linkGroup: null,
  chid: null,
  dmbBytes: null,
};

test('isthmus ss shows of a table what can be true, and prints no control character', { skip }, async () => {
  const table = new ConnectionTable();
  for (const row of [
    ROW,
    { ...ROW, state: '\u001b[31mESTABLISHED' },
    { ...ROW, local: 7 },
    null,
    'x',
    { ...ROW, id: '9.9.9' },
  ])
    table.addRow()?.write(JSON.stringify(row));
  table.addRow()?.write('{"pid":');
  const bad = table.addRow();
  bad?.write(JSON.stringify(ROW));
  bad?.counters.fill(Number.NaN);
  const own = ['--pid', String(process.pid)];
  for (const args of [[], ['-d'], ['--json']]) {
    const { code, stdout, stderr } = await isthmus(['ss', ...own, ...args]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^[ -~\n]*$/);
    if (args[0] !== '--json') {
      assert.equal(stdout.trim().split('\n').length, 3, stdout);
      continue;
    }
    const rows = JSON.parse(stdout) as ConnectionInfo[];
    assert.deepEqual(
      rows.map(({ pid, id, program }) => [pid, id, program]),
      ['0.1', '9.9'].map((rest) => [process.pid, `${process.pid}.${rest}`, ROW.program]),
    );
  }
});

test('isthmus ss lives with tables that are none', { skip }, async () => {
  const empty = createSharedMemory(TABLE_NAME, 8);
  const full = createSharedMemory(TABLE_NAME, FIRST_ROW + 3 * ROW_BYTES);
  const bytes = Buffer.alloc(FIRST_ROW + 3 * ROW_BYTES, 0xfe);
  bytes.write(TABLE_MAGIC, 0, 'latin1');
  writeSync(full, bytes, 0, bytes.length, 0);
  const { code, stdout, stderr } = await isthmus(['ss', '--json', '--pid', String(process.pid)]);
  assert.equal(code, 0, stderr);
  for (const { program } of JSON.parse(stdout) as ConnectionInfo[]) assert.equal(program, ROW.program); // of the test before
  closeFd(empty);
  closeFd(full);
});

test('isthmus stats counts of a table what can be true', { skip }, async () => {
  const table = new ConnectionTable();
  const own = ['-p', String(process.pid)];
  const figures = async () => {
    const { code, stdout, stderr } = await isthmus(['stats', 'json', ...own]);
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout) as { SMCD: Record<string, number>; Isthmus: { fallback: object; device: object } };
  };
  const { statistics } = table;
  const counters = Float64Array.from(Object.keys(COUNTER), (_, i) => i);
  const before = await figures(); // of the tests before
  statistics.ended(counters, { ...REASONS.TLS, code: 0x1234, name: '\u001b[2J' });
  for (let i = 0; i < 1000; i++) statistics.ended(counters, { ...REASONS.TLS, code: 0xffff0000 + i });
  statistics.ended(counters, REASONS.TLS);
  const { SMCD, Isthmus } = await figures();
  assert.equal(SMCD.SMC_RX_BYTES, (before.SMCD.SMC_RX_BYTES ?? 0) + 1002);
  assert.deepEqual(
    { ...Isthmus.fallback, ...before.Isthmus.fallback },
    { ...before.Isthmus.fallback, OTHER: 1001, TLS: 1 },
  );
  table.atOnce(() => {
    statistics.device.fill(Number.MAX_SAFE_INTEGER);
    // What is never done with its changes is shown as it stands.
    const halfway = spawnSync(process.execPath, [CLI, 'stats', '--prometheus', ...own], { encoding: 'utf8' });
    assert.equal(halfway.status, 0, halfway.stderr);
    assert.match(halfway.stdout, /isthmus_sleeps_total\{pid="\d+",thread="0"\} 9007199254740991\n/);
  });
  statistics.device.fill(0);
  // Codes that no program of ours writes there.
  const strange = createSharedMemory(TABLE_NAME, FIRST_ROW);
  const head = Buffer.alloc(FIRST_ROW);
  head.write(TABLE_MAGIC, 0, 'latin1');
  for (let at = 1024; at < 3072; at += 16) {
    head.writeDoubleLE(2 ** 40 + at, at);
    head.writeDoubleLE(1, at + 8);
  }
  writeSync(strange, head, 0, head.length, 0);
  assert.deepEqual((await figures()).Isthmus.fallback, { ...Isthmus.fallback, OTHER: 1001 + 128 });
  closeFd(strange);
  for (const wrong of [Number.NaN, -1, 0.5, Number.POSITIVE_INFINITY]) {
    statistics.device.fill(wrong);
    assert.deepEqual(await figures(), before);
    const { stdout } = await isthmus(['stats', '-d', ...own]);
    assert.match(stdout, /^[ -~\n]*$/);
  }
});

test('isthmus ss takes the number of a process', async () => {
  for (const pid of ['self', '../proc/1', '-1']) assert.equal((await isthmus(['ss', `--pid=${pid}`])).code, 2, pid);
});

/** A fabric that answers whoever connects with these packets. */
async function withFabric<T>(packets: readonly Buffer[], use: (socket: string) => Promise<T>): Promise<T> {
  const socket = join(work.directory, 'fabric.sock');
  const listener = listenPackets(socket);
  const taken: number[] = [];
  const looking = setInterval(() => {
    const fd = acceptPackets(listener);
    if (fd === null) return;
    taken.push(fd);
    receivePacket(fd);
    for (const packet of packets) sendPacket(fd, packet);
  }, 5);
  try {
    return await use(socket);
  } finally {
    clearInterval(looking);
    for (const fd of [listener, ...taken]) closeFd(fd);
  }
}

const reply = (json: string): FabricMessage => ({ type: 'STATUS_REPLY', more: 0, json });
const STATUS = {
  pid: 7,
  socket: '/x',
  uptimeMs: 1,
  memoryBytes: null,
  claims: 0,
  counters: { announced: 1, matched: 2, declined: 3, pairs: 4 },
  partitions: [{ gid: 'g\u001b', pid: 0, uid: 1, program: '\u001b[2J\u009b', claims: 0, pairs: 0 }],
};

for (const [what, message] of [
  ['nothing', reply('')],
  ['null', reply('null')],
  ['an object without fields', reply('{}')],
  ['counters that are none', reply(JSON.stringify({ ...STATUS, counters: null }))],
  ['partitions that are none', reply(JSON.stringify({ ...STATUS, partitions: [null] }))],
  ['texts for numbers', reply(JSON.stringify({ ...STATUS, pid: '\u001b[2J' }))],
  ['control characters', { type: 'REFUSED', reason: 4, text: '\u001b[2J' }],
  ['another message', { type: 'PONG' }],
] as const) {
  test(`isthmus fabric status with a fabric that says ${what}`, { skip }, async () => {
    await withFabric([encodeMessage(message)], async (ISTHMUS_FABRIC) => {
      for (const args of [[], ['--json']]) {
        const { code, stdout, stderr } = await isthmus(['fabric', 'status', ...args], { ISTHMUS_FABRIC });
        assert.equal(code, 1, stdout);
        assert.match(stderr, /^isthmus: the fabric [ -~]+\n$/);
      }
    });
  });
}

test('isthmus fabric status with a packet that is no message', { skip }, async () => {
  await withFabric([Buffer.from('\u001b[2J')], async (ISTHMUS_FABRIC) => {
    const { code, stderr } = await isthmus(['fabric', 'status'], { ISTHMUS_FABRIC });
    assert.equal(code, 1);
    assert.match(stderr, /^isthmus: [ -~]+\n$/);
  });
});

test('isthmus fabric status prints no control character', { skip }, async () => {
  const packets = [JSON.stringify(STATUS).slice(0, 50), JSON.stringify(STATUS).slice(50)].map((json, i) =>
    encodeMessage({ type: 'STATUS_REPLY', more: 1 - i, json }),
  );
  await withFabric(packets, async (ISTHMUS_FABRIC) => {
    for (const args of [[], ['--json']]) {
      const { code, stdout, stderr } = await isthmus(['fabric', 'status', ...args], { ISTHMUS_FABRIC });
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^[ -~\n]*$/);
      if (args[0] === '--json') assert.deepEqual(JSON.parse(stdout), STATUS);
    }
  });
});
