/** The package as somebody gets it who installs it. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { ConnectionInfo } from '../../src/net/info.ts';
import { cannotMove, type Finished, ROOT, Workplace } from './commands.ts';

interface Manifest {
  readonly version: string;
  readonly bin: Record<string, string>;
  readonly exports: Record<string, string | Record<string, string>>;
}
const MANIFEST = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;
/** What npm says when there is no registry to be reached. */
const NO_NETWORK = /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ENOTCACHED|E40\d|E50\d/;

let work: Workplace;
let project: string;
let packed: readonly string[] = [];
let tarball = '';
/** Why the package could not be installed here. */
let notInstalled: string | null = null;

/** For npm, which may be slow to get what it needs. */
const NPM_MS = 240_000;

before(async () => {
  work = new Workplace();
  project = join(work.directory, 'a "project" %20');
  mkdirSync(project);
  write('package.json', JSON.stringify({ name: 'project', private: true }));
  const packing = ['pack', '--ignore-scripts', '--json', '--pack-destination', project];
  const pack = await work.finish('npm', packing, { cwd: ROOT }, NPM_MS);
  assert.equal(pack.code, 0, pack.stderr);
  const [{ filename, files }] = JSON.parse(pack.stdout) as [{ filename: string; files: { path: string }[] }];
  packed = files.map(({ path }) => path);
  tarball = filename;
  const installing = ['install', '--no-audit', '--no-fund', `./${filename}`];
  const install = await work.finish('npm', installing, { cwd: project }, NPM_MS);
  if (install.code !== 0) {
    assert.match(install.stderr, NO_NETWORK, 'npm install works where there is a network');
    notInstalled = 'npm cannot reach a registry';
  } else if (!existsSync(join(project, 'node_modules/koffi'))) {
    notInstalled = 'npm could not get koffi from the registry';
  }
});
after(() => work.close());

function write(name: string, text: string): string {
  const path = join(project, name);
  writeFileSync(path, text);
  return path;
}

/** Skips a test, with the reason, when there is nothing to test. */
function needsInstallation(t: TestContext, moves = false): boolean {
  const reason = notInstalled ?? (moves ? cannotMove() || null : null);
  if (reason !== null) t.skip(reason);
  return reason === null;
}

const inProject = (file: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Finished> =>
  work.finish(file, args, { cwd: project, env: { ...work.env, ...env } });

const SERVER = `
  const server = require('node:net').createServer((socket) => socket.pipe(socket));
  server.listen(0, '127.0.0.1', () => console.log('port ' + server.address().port));
`;
/** Goes on until it is killed; says so when a wrong byte comes back. */
const CLIENT = `
  const socket = require('node:net').connect(Number(process.argv[2]), '127.0.0.1');
  let sent = 0, got = 0;
  setInterval(() => socket.write(Buffer.from([sent++ & 255])), 5);
  socket.on('data', (chunk) => { for (const byte of chunk) if (byte !== (got++ & 255)) throw new Error('a wrong byte'); });
`;

/** Runs a server and a client; waits until \`npx isthmus ss\` shows both ends of their connection in shared memory. */
async function moves(command: string, before: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<void> {
  const options = { cwd: project, env: { ...work.env, ...env } };
  const server = work.start(command, [...before, write('server.cjs', SERVER)], options);
  const port = (await server.says(/port (\d+)/))[1] ?? '';
  const client = work.start(command, [...before, write('client.cjs', CLIENT), port], options);
  let ends: ConnectionInfo[] = [];
  for (const end = Date.now() + 30_000; ends.length < 2; ) {
    assert.ok(Date.now() < end, `not moved: ${JSON.stringify(ends)} ${server.stderr} ${client.stderr}`);
    const { code, stdout } = await inProject('npx', ['isthmus', 'ss', '--json', '--smcd']);
    assert.equal(code, 0);
    ends = (JSON.parse(stdout) as ConnectionInfo[]).filter((one) => [one.local?.port, one.peer?.port].includes(+port));
  }
  assert.deepEqual(ends.map(({ role }) => role).sort(), ['client', 'server']);
  assert.equal(client.child.exitCode, null, client.stderr);
  for (const { pid, finished } of [client, server]) {
    process.kill(-pid, 'SIGKILL');
    await finished;
  }
}

test('the pack has all that is exported and run, and no tests', () => {
  const targets = Object.values(MANIFEST.exports).flatMap((one) =>
    typeof one === 'string' ? one : Object.values(one),
  );
  const programs = ['echo-client', 'echo-server', 'http-client', 'http-server', 'ring'].map(
    (name) => `examples/${name}.mjs`,
  );
  for (const path of [
    ...[...targets, ...Object.values(MANIFEST.bin)].map((path) => path.replace(/^\.\//, '')),
    ...programs,
    'dist/isthmus-fabric.js',
    'dist/bench/suite.js',
    'dist/bench/programs/main.js',
    'LICENSE',
  ])
    assert.ok(packed.includes(path), path);
  assert.deepEqual(
    packed.filter((path) => /\.test\.|^dist\/test\/|^(src|test|scripts)\//.test(path)),
    [],
  );
});

test('npx isthmus run: the connections of two programs move', async (t) => {
  if (needsInstallation(t, true)) await moves('npx', ['isthmus', 'run', 'node']);
});

test('FFI: npm install koffi, where isthmus is, and its connections move', async (t) => {
  if (!needsInstallation(t, true)) return;
  const bare = join(work.directory, 'bare');
  mkdirSync(bare);
  cpSync(join(project, tarball), join(bare, tarball)); // of a plain path, which npm takes as it is
  writeFileSync(join(bare, 'package.json'), JSON.stringify({ name: 'bare', private: true }));
  const inBare = (command: string) =>
    work.finish('sh', ['-c', command], { cwd: bare, env: { ...work.env, npm_config_prefer_offline: 'true' } });
  const without = await inBare(`npm install --omit=optional --no-audit --no-fund ./${tarball}`);
  assert.equal(without.code, 0, without.stderr);
  const program = `
    const { connect, createServer, info } = require('isthmus');
    const server = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1', () => {
      const socket = connect(server.address().port, '127.0.0.1').resume();
      setInterval(() => {
        socket.write('.');
        const { mode, reason } = info(socket);
        if (mode === 'TCP' && reason.name !== 'FFI') return;
        console.log(mode, reason.text, reason.hint);
        process.exit();
      }, 10);
    });`;
  writeFileSync(join(bare, 'program.cjs'), program);
  const { stdout } = await inBare('node program.cjs');
  assert.match(stdout, /^TCP .*koffi is missing/);
  const [install = '', doctor = ''] = [...stdout.matchAll(/`([^`]+)`/g)].map(([, command]) => command);
  assert.match((await inBare(`npx ${doctor}`)).stdout, /^FAIL +FFI /m);
  const installed = await inBare(install);
  assert.equal(installed.code, 0, installed.stderr);
  assert.match((await inBare('node program.cjs')).stdout, /^SMC-D /);
  assert.equal((await inBare(`npx ${doctor}`)).code, 0);
});

test('the preload twice, and two copies of the package, do no harm', async (t) => {
  if (!needsInstallation(t, true)) return;
  const copy = join(project, 'a second copy');
  cpSync(join(project, 'node_modules/isthmus'), join(copy, 'node_modules/isthmus'), { recursive: true });
  cpSync(join(project, 'node_modules/koffi'), join(copy, 'node_modules/koffi'), { recursive: true });
  const registers = [project, copy, project].map((where) =>
    pathToFileURL(join(where, 'node_modules/isthmus/dist/lib/register.cjs')),
  );
  await moves(
    process.execPath,
    registers.flatMap(({ href }) => ['--import', href]),
    { ISTHMUS_POLICY: 'eager' },
  );
});

const BOTH_ENDS = `
  const server = createServer((socket) => socket.end('hello'));
  server.listen(0, '127.0.0.1', () => {
    connect(server.address().port, '127.0.0.1').on('data', (data) => console.log(String(data))).on('end', () => server.close());
  });
`;

test('the package from an ES module and from CommonJS', async (t) => {
  if (!needsInstallation(t)) return;
  for (const [name, text] of [
    ['module.mjs', `import { connect, createServer } from 'isthmus';`],
    ['common.cjs', `const { connect, createServer } = require('isthmus');`],
  ] as const) {
    const { code, stdout, stderr } = await inProject(process.execPath, [write(name, `${text}${BOTH_ENDS}`)]);
    assert.deepEqual([code, stdout], [0, 'hello\n'], `${name}: ${stderr}`);
  }
});

test('every entry can be imported', async (t) => {
  if (!needsInstallation(t)) return;
  const names = Object.keys(MANIFEST.exports).map((entry) => entry.replace(/^\./, 'isthmus'));
  const imports = names.map((name) =>
    name.endsWith('.json') ? `await import('${name}', { with: { type: 'json' } });` : `await import('${name}');`,
  );
  const { code, stderr } = await inProject(process.execPath, [write('entries.mjs', imports.join('\n'))]);
  assert.equal(code, 0, stderr);
  const inside = await inProject(process.execPath, [
    write('inside.mjs', `await import('isthmus/dist/src/os/index.js');`),
  ]);
  assert.match(inside.stderr, /ERR_PACKAGE_PATH_NOT_EXPORTED/);
});

test('types resolve', async (t) => {
  if (!needsInstallation(t)) return;
  const entries = Object.keys(MANIFEST.exports).filter((entry) => entry !== '.' && !entry.endsWith('.json'));
  write(
    'consumer.mts',
    `import { type ConnectionInfo, connect, info } from 'isthmus';
${entries.map((entry) => `import '${entry.replace(/^\./, 'isthmus')}';`).join('\n')}
export const mode: ConnectionInfo['mode'] = info(connect(80)).mode;
// @ts-expect-error: the types are there
info('no socket');
`,
  );
  const compilerOptions = {
    module: 'nodenext',
    strict: true,
    noEmit: true,
    types: ['node'],
    typeRoots: [join(ROOT, 'node_modules/@types')],
  };
  write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['consumer.mts'] }));
  const { code, stdout } = await inProject(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc')]);
  assert.equal(code, 0, stdout);
});

test('the command line says its version and explains itself', async (t) => {
  if (!needsInstallation(t)) return;
  assert.equal((await inProject('npx', ['isthmus', '--version'])).stdout, `${MANIFEST.version}\n`);
  for (const command of ['run', 'ss', 'fabric', 'demo', 'bench']) {
    const { code, stdout, stderr } = await inProject('npx', ['isthmus', command, '--help']);
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, new RegExp(`^Usage: isthmus ${command}`));
  }
});
