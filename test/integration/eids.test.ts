/** Enterprise ids as people set them: by the commands, for programs that run. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove } from './commands.ts';
import { isListening } from './raw-partition.ts';
import { PRELUDE, type Program, Stage } from './two-programs.ts';

const skip = cannotMove();
const FABRIC = fileURLToPath(new URL('../../isthmus-fabric.js', import.meta.url));

let stage: Stage;
const fabrics: ChildProcess[] = [];
beforeEach(() => {
  stage = new Stage();
});
afterEach(async () => {
  for (const fabric of fabrics.splice(0)) {
    const exit = once(fabric, 'exit');
    if (fabric.kill('SIGKILL')) await exit;
  }
  await stage.close();
});

/** A command, as [exit code, stdout, stderr]. */
async function isthmus(args: string, env: NodeJS.ProcessEnv = {}): Promise<[number, string, string]> {
  const child = spawn(process.execPath, [CLI, ...args.split(' ')], {
    env: stage.env({ NODE_OPTIONS: '', ...env }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said = ['', ''] as [string, string];
  for (const [i, stream] of [child.stdout, child.stderr].entries())
    stream.setEncoding('utf8').on('data', (text: string) => {
      said[i as 0 | 1] += text;
    });
  const [code] = (await once(child, 'close')) as [number];
  return [code, ...said];
}

/** A fabric that stays, at a place that is named. */
async function namedFabric(): Promise<NodeJS.ProcessEnv> {
  const socket = join(stage.directory, 'named.sock');
  fabrics.push(spawn(process.execPath, [FABRIC, JSON.stringify({ socket, idleMs: null })], { stdio: 'ignore' }));
  await eventually('a fabric', () => isListening(socket));
  return { ISTHMUS_FABRIC: socket };
}

const SERVER = `${PRELUDE}
  const server = net.createServer((socket) => socket.pipe(socket));
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
`;
/** Makes a connection when told, and keeps it busy until it is told to end. */
const CLIENT = `${PRELUDE}
  setInterval(() => {}, 1000);
  let end = () => {};
  told('connect', () => {
    let sent = 0, got = 0, wrong = 0;
    const socket = net.connect(+args[0], '127.0.0.1');
    socket.on('data', (chunk) => { for (const byte of chunk) if (byte !== byteAt(got++)) wrong++; });
    const writing = setInterval(() => socket.write(pattern(sent++, 1)), 5);
    end = () => { clearInterval(writing); socket.end(); };
    socket.on('close', () => tell('over ' + (got === sent) + ' ' + wrong));
  });
  told('end', () => end());
`;

/** Makes a connection and waits until it is as it should be. */
async function connectionBecomes(client: Program, expected: string): Promise<void> {
  const before = client.lines.length;
  client.tell('connect');
  const found = () => client.connections.map(({ mode, reason }) => `${mode} ${reason.name}`);
  const end = Date.now() + 15_000;
  while (!found().includes(expected)) {
    assert.ok(Date.now() < end, `${expected}, but ${found()} ${client.stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  client.tell('end');
  await eventually('over', () => client.lines.length > before);
  assert.deepEqual(client.lines.slice(before), ['over true 0']);
}

test('without a UEID connections stay TCP and say so; with another one they move, and so they do in the next fabric', {
  skip,
}, async () => {
  const server = stage.run(SERVER);
  const client = stage.run(CLIENT, [await server.says('port ')]);
  await connectionBecomes(client, 'SMC-D MOVED');
  assert.deepEqual(await isthmus('ueid flush'), [0, '', '']);
  const [code, stdout, stderr] = await isthmus('ueid');
  assert.deepEqual([code, stdout], [0, '']);
  assert.match(stderr, /there is none, so connections stay on TCP/);
  await connectionBecomes(client, 'TCP NOUEID');
  assert.deepEqual(await isthmus('ueid add MY.OWN'), [0, '', '']);
  await connectionBecomes(client, 'SMC-D MOVED');
  // The fabric goes, by itself or not: its table stays.
  await eventually('idle', () => !existsSync(join(stage.directory, 'fabric.sock')));
  assert.deepEqual(await isthmus('ueid show'), [0, 'MY.OWN\n', '']);
  await connectionBecomes(client, 'SMC-D MOVED');
  assert.deepEqual(await isthmus('ueid show'), [0, 'MY.OWN\n', '']);
  assert.deepEqual(await isthmus('ueid del MY.OWN'), [0, '', '']);
  await connectionBecomes(client, 'TCP NOUEID');
});

test('both ends in one program: the same table', { skip }, async () => {
  const stays = { ISTHMUS_LINGER_MS: '60000' }; // in the fabric: without one it has but the built-in UEID
  const both = stage.run(
    `${SERVER}${CLIENT.replace(PRELUDE, '').replace('+args[0]', 'server.address().port')}`,
    [],
    stays,
  );
  await both.says('port ');
  const other = stage.run(CLIENT, [await both.says('port ')]);
  await connectionBecomes(other, 'SMC-D MOVED'); // they have joined the fabric
  await connectionBecomes(both, 'SMC-D MOVED');
  assert.deepEqual(await isthmus('ueid flush'), [0, '', '']);
  await connectionBecomes(other, 'TCP NOUEID');
  await connectionBecomes(both, 'TCP NOUEID');
});

test('show starts no fabric: it shows what one would begin with', { skip }, async () => {
  for (const [args, expected] of [
    ['ueid', 'ISTHMUS\n'],
    ['ueid show', 'ISTHMUS\n'],
    ['ueid show --json', '[\n  "ISTHMUS"\n]\n'],
    ['seid show --json', '{\n  "seid": null,\n  "seidEnabled": false\n}\n'],
    ['seid', 'n/a\n'],
  ] as const)
    assert.deepEqual(await isthmus(args), [0, expected, ''], args);
  assert.ok(!existsSync(join(stage.directory, 'fabric.sock')));
  const file = join(stage.directory, 'fabric.eids');
  writeFileSync(file, 'garbled');
  const [code, stdout, stderr] = await isthmus('ueid show');
  assert.deepEqual([code, stdout], [0, 'ISTHMUS\n']);
  assert.match(stderr, /^isthmus: .*fabric\.eids is passed over: /);
  // A fabric passes over it as well, and writes it anew.
  assert.deepEqual(await isthmus('ueid add A'), [0, '', '']);
  assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), { ueids: ['ISTHMUS', 'A'], seidEnabled: false });
});

test('changes say what is wrong, and wrong calls are none', { skip }, async () => {
  for (const ueid of ['A', 'B', 'C']) assert.deepEqual(await isthmus(`ueid add ${ueid}`), [0, '', '']);
  for (const [args, code, why] of [
    ['ueid add D', 1, /no more fit/],
    ['ueid del D', 1, /no such UEID/],
    ['ueid add lower', 1, /a UEID is/],
    ['ueid add A B', 2, /takes one UEID; isthmus ueid --help/],
    ['ueid add', 2, /takes one UEID; isthmus ueid --help/],
    ['ueid flush A', 2, /takes nothing more; isthmus ueid --help/],
    ['ueid show A', 2, /takes nothing more; isthmus ueid --help/],
    ['ueid flush --json', 2, /--json belongs to show/],
    ['ueid flsh', 2, /there is no 'isthmus ueid flsh'/],
    ['ueid constructor', 2, /there is no 'isthmus ueid constructor'/],
    ['seid add A', 2, /there is no 'isthmus seid add'/],
    ['seid enable', 1, /no SEID/],
    ['seid disable', 1, /no SEID/],
  ] as const) {
    const [exit, stdout, stderr] = await isthmus(args);
    assert.deepEqual([exit, stdout], [code, ''], args);
    assert.match(stderr, why);
  }
  assert.deepEqual(await isthmus('ueid del B'), [0, '', '']);
  assert.deepEqual(await isthmus('ueid add B'), [0, '', '']);
  assert.deepEqual(await isthmus('ueid'), [0, 'ISTHMUS\nA\nC\nB\n', '']);
});

test('a fabric at a named place keeps its own table, and none is started there', { skip }, async () => {
  const nowhere = { ISTHMUS_FABRIC: join(stage.directory, 'nowhere.sock') };
  assert.deepEqual(await isthmus('ueid', nowhere), [0, 'ISTHMUS\n', '']);
  const [code, , stderr] = await isthmus('ueid add A', nowhere);
  assert.equal(code, 1);
  assert.match(stderr, /no fabric answers at .*nowhere\.sock/);
  const named = await namedFabric();
  assert.deepEqual(await isthmus('ueid add A', named), [0, '', '']);
  assert.deepEqual(await isthmus('ueid', named), [0, 'ISTHMUS\nA\n', '']);
  const [, status] = await isthmus('fabric status', named);
  assert.match(status, /^UEIDs: ISTHMUS A; SEID: n\/a$/m);
  const [, json] = await isthmus('fabric status --json', named);
  assert.deepEqual(JSON.parse(json).eids, { ueids: ['ISTHMUS', 'A'], seid: null, seidEnabled: false });
});

test('another user may look, and change nothing', {
  skip: skip || (process.getuid?.() !== 0 && 'needs root to become somebody else'),
}, async () => {
  const named = await namedFabric();
  const socket = named.ISTHMUS_FABRIC as string;
  chmodSync(stage.directory, 0o755);
  chmodSync(socket, 0o666);
  const url = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
  const program = `
    import { askEidChange, askEids } from ${url('fabric/ask.js')};
    import { connectPackets, ffi } from ${url('os/index.js')};
    ffi();
    process.setuid(12345);
    const ask = (what) => what(connectPackets(${JSON.stringify(socket)})).then((one) => JSON.stringify(one), (error) => error.message);
    console.log(await ask(askEids));
    for (const change of [1, 2, 3, 4, 5]) console.log(await ask((fd) => askEidChange(fd, change, 'ISTHMUS')));
    console.log(await ask(askEids));
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  await once(child, 'close');
  const table = '{"ueids":["ISTHMUS"],"seid":null,"seidEnabled":false}';
  assert.deepEqual(output.trimEnd().split('\n'), [
    table,
    ...Array.from({ length: 5 }, () => 'the fabric refused: not allowed'),
    table,
  ]);
});
