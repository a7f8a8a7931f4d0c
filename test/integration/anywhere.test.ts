/** Programs that have little in common but the host and the socket of a fabric: other users, namespaces, containers. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove, ROOT } from './commands.ts';
import { cannotMakeNetworks, cannotRun, isRoot, Networks } from './networks.ts';
import { ECHO_CLIENT, ECHO_SERVER, Program, Stage } from './two-programs.ts';

const PORT = 7778;
const SKIP = cannotMove() || cannotBecomeOthers();
const SKIP_NETWORKS = SKIP || cannotMakeNetworks();
const SKIP_PODMAN = SKIP_NETWORKS || cannotRun({ podman: 'podman', runc: 'runc' });

function cannotBecomeOthers(): string | false {
  if (!isRoot()) return 'users and namespaces are changed by root';
  // Others have to be able to read the package.
  const [file = '', ...args] = [...asUser(1001), 'test', '-r', CLI];
  if (spawnSync(file, args).status !== 0) return `${ROOT} cannot be read by other users`;
  const isolated = spawnSync('unshare', ['-mpiuUr', '--fork', '--mount-proc', 'true']);
  return isolated.status === 0 ? false : `unshare: ${isolated.error?.message ?? isolated.stderr}`;
}

function asUser(uid: number): string[] {
  return ['setpriv', '--reuid', String(uid), '--regid', String(uid), '--clear-groups'];
}

/** Everything private but the network. */
const ISOLATED = ['unshare', '-mpiuUr', '--fork', '--kill-child', '--mount-proc'];

const networks = new Networks();
let stage: Stage;
/** With a socket for everybody, `all`, and two for one domain each, `a` and `b`. */
let fabric: Program;
const socketOf = (name: string) => join(stage.directory, name, 'fabric.sock');

async function startFabric(under: readonly string[] = []): Promise<void> {
  const sockets = ['all', 'a', 'b'].map(socketOf) as [string, string, string];
  for (const socket of sockets) mkdirSync(dirname(socket), { recursive: true });
  const [all, a, b] = sockets;
  const options = ['--socket', all, '--mode', '666', '--domain', a, '--domain', b];
  fabric = new Program([...under, process.execPath, CLI, 'fabric', ...options], stage.env({ NODE_OPTIONS: '' }));
  await fabric.says('fabric at');
}

beforeEach(() => {
  if (SKIP) return;
  stage = new Stage();
  for (const directory of [stage.directory, stage.files]) chmodSync(directory, 0o755);
});
afterEach(async () => {
  if (SKIP) return;
  fabric.child.kill();
  await fabric.exited;
  await stage.close();
});

interface End {
  readonly socket: string;
  /** The beginning of its command line. */
  readonly under: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

const LOCALHOST = '127.0.0.1';

async function start(server: End, client: End, address = LOCALHOST): Promise<[server: Program, client: Program]> {
  const env = (end: End) => ({ ISTHMUS_FABRIC: end.socket, ...end.env });
  const one = stage.run(ECHO_SERVER, [PORT], env(server), server.under);
  await one.says('listening');
  return [one, stage.run(ECHO_CLIENT, [address, PORT], env(client), client.under)];
}

/** All bytes are as they were sent. */
async function endWell([server, client]: readonly [Program, Program]): Promise<void> {
  client.tell('end');
  assert.equal(await client.says('closed '), 'true 0');
  await server.exited;
}

async function bothMove(server: End, client: End, address?: string): Promise<void> {
  const programs = await start(server, client, address);
  await Promise.all(programs.map((one) => one.moves()));
  await endWell(programs);
}

/** And with this hint. */
async function bothStay(server: End, client: End, reason: string, hint = /./): Promise<void> {
  const programs = await start(server, client);
  for (const one of programs)
    await eventually(`${reason}: ${JSON.stringify(one.connections)}`, () =>
      one.connections.some((row) => row.reason.name === reason && hint.test(row.reason.hint)),
    );
  await endWell(programs);
}

for (const access of ['mapped', 'store']) {
  test(`programs of two users move in a fabric that is open to both: ${access}`, { skip: SKIP }, async () => {
    await startFabric();
    const end = (uid: number) => ({ socket: socketOf('all'), under: asUser(uid), env: { ISTHMUS_ACCESS: access } });
    await bothMove(end(1001), end(1002));
  });
}

test('users that the fabric cannot tell apart stay on TCP, but for those of a domain', { skip: SKIP }, async () => {
  await startFabric(['unshare', '-U', '--map-root-user']); // knows none but root
  const end = (uid: number, name: string) => ({ socket: socketOf(name), under: asUser(uid) });
  await bothStay(end(1001, 'all'), end(1002, 'all'), 'UNKNOWNUSER');
  await bothMove(end(1001, 'a'), end(1002, 'b'));
});

test('UNKNOWNUSER: with a fabric in its user namespace, and a user of its own, it moves', { skip: SKIP }, async () => {
  const end = (uid: number) => ({ socket: socketOf('all'), under: asUser(uid) });
  const hint = /in one user namespace, and the program as a user of its own, not as nobody/;
  await startFabric(['unshare', '-U', '--map-root-user']);
  await bothStay(end(1001), end(1001), 'UNKNOWNUSER', hint);
  fabric.child.kill();
  await fabric.exited;
  await startFabric();
  await bothMove(end(1001), end(1001));
  await bothStay(end(65534), end(65534), 'UNKNOWNUSER', hint);
});

test('programs whose user is mapped to nobody move', { skip: SKIP }, async () => {
  await startFabric();
  const end = { socket: socketOf('all'), under: [...asUser(1001), 'unshare', '-U'] };
  await bothMove(end, end);
});

/** @param hidden folders that are empty for the program */
function readOnlyRoot(hidden: readonly string[]): string[] {
  const script = [
    'mount --make-rprivate / && mount -o remount,bind,ro /',
    ...hidden.map((folder) => `mount -t tmpfs -o ro none ${folder}`),
    'exec "$@"',
  ].join(' && ');
  return ['unshare', '-m', 'sh', '-c', script, 'sh'];
}

test('programs without /proc, /dev/shm and a place to write move', { skip: SKIP }, async () => {
  await startFabric();
  const end = { socket: socketOf('all'), under: readOnlyRoot(['/proc', '/dev/shm']) };
  await bothMove(end, end);
});

test('access store needs /proc, and says so', { skip: SKIP }, async () => {
  await startFabric();
  const end = { socket: socketOf('all'), under: readOnlyRoot(['/proc']), env: { ISTHMUS_ACCESS: 'store' } };
  await bothStay(end, end, 'SYSTEM');
});

test('the root of a domain is not the root of the fabric', { skip: SKIP }, async () => {
  await startFabric();
  for (const args of [
    ['fabric', 'status'],
    ['ueid', 'add', 'MINE'],
  ]) {
    const inDomain = spawnSync(process.execPath, [CLI, ...args], { env: stage.env({ ISTHMUS_FABRIC: socketOf('a') }) });
    assert.equal(inDomain.status, 1, String(inDomain.stderr));
    const outside = spawnSync(process.execPath, [CLI, ...args], {
      env: stage.env({ ISTHMUS_FABRIC: socketOf('all') }),
    });
    assert.equal(outside.status, 0, String(outside.stderr));
  }
});

test('sockets of a fabric stand in directories of their own, which no other fabric has', { skip: SKIP }, async () => {
  await startFabric();
  const run = (...args: string[]) => String(spawnSync(process.execPath, [CLI, 'fabric', ...args]).stderr);
  const free = join(stage.directory, 'fabric.sock');
  assert.match(run('--socket', free, '--domain', `${free}2`), /a directory of its own/);
  assert.match(run('--socket', free, '--domain', socketOf('a')), /another fabric runs in/);
  assert.ok(existsSync(socketOf('a')), 'it was left alone');
});

// --- Networks of their own ---

const [ONE, TWO, HOST] = ['10.78.0.1', '10.78.0.2', '10.78.1.1'];
const TWO_TO_HOST = '10.78.1.2';
let one: string;
let two: string;
before(() => {
  if (SKIP_NETWORKS) return;
  one = networks.add();
  two = networks.add();
  networks.wire({ network: one, address: `${ONE}/24` }, { network: two, address: `${TWO}/24` });
  networks.wire({ network: null, address: `${HOST}/24` }, { network: two, address: `${TWO_TO_HOST}/24` });
});
after(() => networks.close());

const isolatedIn = (network: string, uid: number) => ['ip', 'netns', 'exec', network, ...asUser(uid), ...ISOLATED];

test('a container with a private everything and the host', { skip: SKIP_NETWORKS }, async () => {
  await startFabric();
  const [inside, outside] = [
    { socket: socketOf('a'), under: isolatedIn(two, 1001) },
    { socket: socketOf('all'), under: [] },
  ];
  await bothMove(inside, outside, TWO_TO_HOST);
});

test('two containers with nothing in common but the host', { skip: SKIP_NETWORKS }, async () => {
  await startFabric();
  const server = { socket: socketOf('b'), under: isolatedIn(two, 1002) };
  await bothMove(server, { socket: socketOf('a'), under: isolatedIn(one, 1001) }, TWO);
});

/** A container whose only common thing with others is a bind mount of its socket's directory. */
class Container {
  readonly #root = mkdtempSync(join(tmpdir(), 'isthmus-root-'));
  readonly #name: string;

  constructor(name: string) {
    this.#name = `isthmus-${process.pid}-${name}`;
    for (const folder of ['usr', 'proc', 'dev', 'sys', 'tmp', 'etc', 'run']) mkdirSync(join(this.#root, folder));
    for (const link of ['bin', 'lib', 'lib64', 'sbin']) symlinkSync(`usr/${link}`, join(this.#root, link));
  }

  end(network: string, fabricDirectory: string): End {
    const under = this.command(`ns:/run/netns/${network}`, `${fabricDirectory}:/run/isthmus:ro`);
    return { socket: '/run/isthmus/fabric.sock', under };
  }

  command(network: string, mount: string): string[] {
    const readable = new Set(['/usr', ROOT, stage.files, dirname(process.execPath)]);
    // The defaults of podman ask for more descriptors and processes than some hosts give.
    const limits = ['nofile', 'nproc'].flatMap((limit) => ['--ulimit', `${limit}=1024:1024`]);
    const mounts = [...[...readable].map((path) => `${path}:${path}:ro`), mount];
    return [
      ...['podman', '--runtime', 'runc', 'run', '-i', '--rm', '--name', this.#name, '--read-only', '--env-host'],
      ...limits,
      ...['--network', network],
      ...mounts.flatMap((one) => ['-v', one]),
      ...['--rootfs', this.#root],
    ];
  }

  remove(): void {
    spawnSync('podman', ['rm', '-f', this.#name]);
    rmSync(this.#root, { recursive: true, force: true });
  }
}

test('two containers of podman with nothing in common but a bind mount', { skip: SKIP_PODMAN }, async () => {
  await startFabric();
  const containers = [new Container('server'), new Container('client')] as const;
  const [server, client] = containers;
  try {
    await bothMove(server.end(two, dirname(socketOf('b'))), client.end(one, dirname(socketOf('b'))), TWO);
    await bothMove(server.end(two, dirname(socketOf('b'))), client.end(one, dirname(socketOf('a'))), TWO);
  } finally {
    for (const container of containers) container.remove();
  }
});

test('two containers of podman, and a fabric in one of its own without a network', { skip: SKIP_PODMAN }, async () => {
  const containers = [new Container('fabric'), new Container('server'), new Container('client')] as const;
  const [own, server, client] = containers;
  const directory = join(stage.directory, 'volume');
  mkdirSync(directory);
  const command = [process.execPath, CLI, 'fabric', '--socket', '/run/isthmus/fabric.sock', '--mode', '666'];
  fabric = new Program(
    [...own.command('none', `${directory}:/run/isthmus`), ...command],
    stage.env({ NODE_OPTIONS: '' }),
  );
  try {
    await fabric.says('fabric at');
    await bothMove(server.end(two, directory), client.end(one, directory), TWO);
  } finally {
    for (const container of containers) container.remove();
  }
});
