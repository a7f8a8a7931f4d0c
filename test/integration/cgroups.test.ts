/** Programs in control groups with limits: no memory is a reason, and never the end of the program. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, beforeEach, test } from 'node:test';
import { eventually } from '../../src/testing/index.ts';
import { cannotMove, ROOT } from './commands.ts';
import { isRoot } from './networks.ts';
import { PRELUDE, Stage } from './two-programs.ts';

/** A new group with one limit, of whichever version has the controller; null where none can be made. */
function makeGroup(controller: 'memory' | 'cpu', v2: readonly [string, string], v1: readonly [string, string]) {
  const name = `isthmus-${process.pid}-${controller}`;
  for (const [root, [file, value]] of [
    ['/sys/fs/cgroup', v2],
    [`/sys/fs/cgroup/${controller}`, v1],
  ] as const) {
    if (!existsSync(join(root, 'cgroup.procs'))) continue;
    const folder = join(root, name);
    try {
      if (existsSync(join(root, 'cgroup.subtree_control')))
        appendFileSync(join(root, 'cgroup.subtree_control'), `+${controller}`);
      mkdirSync(folder);
      writeFileSync(join(folder, file), value);
      return folder;
    } catch {
      if (existsSync(folder)) rmdirSync(folder);
    }
  }
  return null;
}

const groups = isRoot()
  ? {
      memory: makeGroup('memory', ['memory.max', '128M'], ['memory.limit_in_bytes', '128M']),
      cpu: makeGroup('cpu', ['cpu.max', '150000 100000'], ['cpu.cfs_quota_us', '150000']),
    }
  : { memory: null, cpu: null };
after(async () => {
  for (const folder of Object.values(groups)) if (folder !== null) await eventually('empty', () => isRemoved(folder));
});

/** False while a process is in it: the fabric that a program has started is, for a moment longer. */
function isRemoved(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch {
    return false;
  }
}

const inside = (folder: string | null) => ['sh', '-c', `echo $$ > ${folder}/cgroup.procs && exec "$@"`, 'sh'];
const skipWithout = (folder: string | null) =>
  cannotMove() || (folder === null && 'no control group with this limit can be made (root, cgroup v1 or v2)');

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

const CONNECTIONS = 150;

const SERVER = `${PRELUDE}
  const server = net.createServer((socket) => void socket.on('error', () => {}).pipe(socket));
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
`;

/** Makes connections and keeps them, with a byte there and back now and then. */
const CLIENT = `${PRELUDE}
  const sockets = [];
  const echo = async (socket, text) => {
    socket.write(text);
    return String(await new Promise((resolve) => socket.once('data', resolve)));
  };
  const connect = async () => {
    const socket = net.connect(+args[0], '127.0.0.1');
    await echo(socket, 'a');
    sockets.push(socket);
  };
  for (let i = 0; i < ${CONNECTIONS}; i++) await connect();
  tell('all');
  told('connect', () => void connect().then(() => tell('connected')));
  let isOver = false;
  told('end', () => { isOver = true; });
  // What ends it may come within a round: all are asked once more.
  for (let isLast = false, exact = 0; !isLast; ) {
    isLast = isOver;
    exact = 0;
    for (const socket of sockets) if ((await echo(socket, 'b')) === 'b') exact++;
    if (isLast) tell('exact ' + exact);
    else await new Promise((resolve) => setTimeout(resolve, 20));
  }
  for (const socket of sockets) socket.destroy();
  process.exit();
`;

test('buffers up to the limit, then TCP, and nobody is killed', { skip: skipWithout(groups.memory) }, async () => {
  const env = { ISTHMUS_DMB_BYTES: String(1 << 20) };
  const server = stage.run(SERVER, [], { ISTHMUS_DMB_BYTES: '16384' });
  const port = await server.says('port ');
  const client = stage.run(CLIENT, [port], env, inside(groups.memory));
  await client.says('all');
  const names = () => client.connections.map(({ reason }) => reason.name);
  await eventually(
    `some have moved, others not: ${names()}`,
    () => names().includes('MOVED') && names().includes('MEM'),
  );
  // What helps: a higher limit, or less for each.
  const { hint } = await client.stays('MEM');
  const [, advised] = /cgroup \((memory\.max)\)/.exec(hint) ?? [];
  const limit = ['memory.max', 'memory.limit_in_bytes']
    .map((file) => join(groups.memory as string, file))
    .find(existsSync);
  assert.ok(advised !== undefined && limit !== undefined);
  const moved = () => names().filter((one) => one === 'MOVED').length;
  const before = moved();
  writeFileSync(limit, '512M');
  client.tell('connect');
  await client.says('connected');
  await eventually('one more has moved', () => moved() > before);
  client.tell('end');
  assert.equal(await client.says('exact '), String(CONNECTIONS + 1));
  assert.deepEqual(await client.exited, { code: 0, signal: null });
  const usage = join(groups.memory as string, limit.endsWith('max') ? 'memory.current' : 'memory.usage_in_bytes');
  await eventually('the server has let go of it', () => Number(readFileSync(usage, 'utf8')) < 32 << 20);
  writeFileSync(limit, '128M');
  const [, value] = /ISTHMUS_DMB_BYTES=(\d+)/.exec(hint) ?? [];
  const small = { ISTHMUS_DMB_BYTES: value };
  const frugal = stage.run(CLIENT, [port], small, inside(groups.memory));
  await frugal.moves(CONNECTIONS);
});

test('a quota of time is seen', { skip: skipWithout(groups.cpu) }, () => {
  const script = `import('${ROOT}dist/src/os/index.js').then(({ cgroupCpus }) => console.log(cgroupCpus()))`;
  const [file = '', ...args] = [...inside(groups.cpu), process.execPath, '-e', script];
  assert.equal(execFileSync(file, args, { encoding: 'utf8' }).trim(), '1.5');
});
