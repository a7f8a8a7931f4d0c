/** What programs count, as `isthmus stats` finds it: exact after a known exchange, while a program is busy, and after a connection. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { FIGURES, MISSING_KEYS, type Sums, sumOf } from '../../src/cli/figures.ts';
import { readPartitions, readTables } from '../../src/cli/rows.ts';
import { formatPrometheus } from '../../src/cli/stats.ts';
import { COUNTER } from '../../src/net/info.ts';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove, type Finished, Workplace } from './commands.ts';
import { PRELUDE, type Program, Stage } from './two-programs.ts';

const skip = cannotMove();

let stage: Stage;
let work: Workplace;
beforeEach(() => {
  stage = new Stage();
  work = new Workplace();
});
afterEach(async () => {
  await stage.close();
  await work.close();
});

/** Says how many bytes each connection has brought; `answer N` writes so many to all, `block FILE` stops until the file has gone. */
const SERVER = `${PRELUDE}
  import { existsSync } from 'node:fs';
  const sockets = new Set();
  let bytes = 0;
  const server = net.createServer({ allowHalfOpen: false }, (socket) => {
    sockets.add(socket);
    socket.on('data', (chunk) => { bytes += chunk.length; tell('has ' + bytes); });
    socket.on('close', () => { sockets.delete(socket); tell('closed'); });
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
  told('answer', (length) => { for (const socket of sockets) socket.write(Buffer.alloc(+length)); });
  told('block', (file) => { tell('blocks'); while (existsSync(file)); tell('goes on'); });
`;

const CLIENT = `${PRELUDE}
  const socket = net.connect(args[0], '127.0.0.1');
  let bytes = 0;
  socket.on('data', (chunk) => { bytes += chunk.length; tell('has ' + bytes); });
  told('send', (length) => socket.write(Buffer.alloc(+length)));
  told('end', () => socket.end());
`;

const sums = (...programs: Program[]): Sums => sumOf(programs.flatMap(({ pid }) => readPartitions(String(pid)).tables));
const counted = ({ counters }: Sums) =>
  Object.fromEntries(Object.entries(COUNTER).map(([name, i]) => [name, counters[i] ?? 0])) as Record<
    keyof typeof COUNTER,
    number
  >;
const isthmus = (...args: string[]): Promise<Finished> => work.finish(process.execPath, [CLI, ...args]);

/** A client and a server that have moved, and how many bytes the client has sent for it: an idle connection does not move. */
async function movedPair(): Promise<{ server: Program; client: Program; port: string; sent: number }> {
  const env = { ISTHMUS_MAX_DMB_BYTES: '65536' }; // buffers stay as long as they are
  const server = stage.run(SERVER, [], env);
  const port = await server.says('port ');
  const client = stage.run(CLIENT, [port], env);
  let sent = 0;
  await eventually('both ends have moved', () => {
    client.tell('send 1');
    sent++;
    return [server, client].every(({ connections }) => connections.some(({ mode }) => mode === 'SMC-D'));
  });
  await server.says(`has ${sent}`);
  return { server, client, port, sent };
}

test('after a known exchange both ends have counted it, to the byte', { skip }, async () => {
  const { server, client, sent } = await movedPair();
  client.tell('send 300000');
  await server.says(`has ${sent + 300_000}`);
  server.tell('answer 70000');
  await client.says('has 70000');
  await eventually('both ends tell the same', () => {
    const [one, other] = [counted(sums(client)), counted(sums(server))];
    return one.outShm === other.inShm && one.inShm === other.outShm && other.reads > 0;
  });
  const [ofClient, ofServer] = [sums(client), sums(server)];
  const [out, back] = [counted(ofClient), counted(ofServer)];
  assert.equal(out.outTcp + out.outShm, sent + 300_000);
  assert.equal(back.inTcp + back.inShm, sent + 300_000);
  assert.equal(back.outTcp + back.outShm, 70_000);
  assert.equal(out.inTcp + out.inShm, 70_000);
  assert.ok(out.outShm > 0 && out.writes > 0 && back.reads > 0, JSON.stringify([out, back]));
  // 300000 bytes at once do not fit into a buffer of 64 KiB.
  assert.ok(out.full > 0, JSON.stringify(out));
  assert.deepEqual(
    [ofClient.connections, ofClient.moved],
    [
      [1, 0],
      [1, 0],
    ],
  );
  assert.deepEqual(
    [ofServer.connections, ofServer.moved],
    [
      [0, 1],
      [0, 1],
    ],
  );
  assert.deepEqual(ofServer.open, { smcd: 1, tcp: 0 });
  assert.deepEqual([ofServer.endedOnTcp, ofServer.openOnTcp], [new Map(), new Map()]);
  assert.deepEqual([ofServer.errors, ofServer.bufferBytes, ofServer.buffers[3]], [[0, 0], 65536, 1]);
  assert.ok(sums(client, server).device.some((count) => count > 0));
});

test('a program that is busy can be asked', { skip }, async () => {
  const { server, client, sent } = await movedPair();
  const file = stage.file('busy', '');
  server.tell(`block ${file}`);
  await server.says('blocks');
  client.tell('send 5');
  const { code, stdout, stderr } = await isthmus('stats', 'json', '-p', String(server.pid));
  assert.deepEqual([code, stderr], [0, '']);
  const { SMCD, Isthmus } = JSON.parse(stdout) as { SMCD: Record<string, number>; Isthmus: { open: object } };
  assert.deepEqual([SMCD.SMC_SRV_V2_SUCC_CNT, SMCD.SMC_CLNT_V2_SUCC_CNT, Isthmus.open], [1, 0, { smcd: 1, tcp: 0 }]);
  assert.ok(!server.lines.includes('goes on'));
  rmSync(file);
  await server.says(`has ${sent + 5}`);
});

test('figures of a connection stay when it has ended, and why it did not move is among them', { skip }, async () => {
  const { server, client, port, sent } = await movedPair();
  const plain = stage.run(CLIENT, [port], { NODE_OPTIONS: '' });
  plain.tell('send 10');
  await server.says(`has ${sent + 10}`);
  await eventually('it is looked at', () => sums(server).openOnTcp.get('PEERNOSMC') === 1);
  client.tell('send 30000');
  await server.says(`has ${sent + 30_010}`);
  for (const program of [client, plain]) program.tell('end');
  await Promise.all([client.exited, plain.exited]);
  await eventually('no row is left', () => server.connections.length === 0);
  const after = sums(server);
  const { inTcp, inShm, outTcp, outShm } = counted(after);
  assert.deepEqual([inTcp + inShm, outTcp + outShm], [sent + 30_010, 0]);
  assert.ok(inShm >= 30_000, `${inShm}`);
  assert.deepEqual(
    [after.connections, after.moved],
    [
      [0, 2],
      [0, 1],
    ],
  );
  assert.deepEqual([[...after.endedOnTcp], after.openOnTcp.size], [[['PEERNOSMC', 1]], 0]);
  assert.deepEqual([after.open, after.bufferBytes], [{ smcd: 0, tcp: 0 }, 0]);
  const { stdout } = await isthmus('stats', '-d', '-p', String(server.pid));
  for (const line of [
    /Total connections handled +2 \(client 0, server 2\)\n/,
    /SMC connections +1 \(client 0, server 1\)\n/,
    /TCP fallback +1\n +PEERNOSMC +1\n/,
  ])
    assert.match(stdout, line);
});

test('while connections come and go no figure goes down', { skip }, async () => {
  const server = stage.run(SERVER);
  const port = await server.says('port ');
  const client = stage.run(
    `${PRELUDE}
    let left = 200;
    const next = () => {
      if (left-- === 0) { tell('done'); return; }
      const socket = net.connect(args[0], '127.0.0.1', () => socket.end('hello'));
      socket.resume().on('close', next);
    };
    next();`,
    [port],
  );
  let before = Object.values(counted(sums(server)));
  let looks = 0;
  while (!client.lines.includes('done')) {
    const now = Object.values(counted(sums(server)));
    for (const [i, count] of now.entries()) assert.ok(count >= (before[i] ?? 0), `${before} ${now}`);
    before = now;
    looks++;
    await new Promise((resolve) => setImmediate(resolve));
  }
  await eventually('all have ended', () => server.connections.length === 0);
  assert.ok(looks > 0);
  const { inTcp, inShm } = counted(sums(server));
  const [, connections] = sums(server).connections;
  // Not those that had ended before Isthmus was loaded.
  assert.ok(connections > 100, `${connections}`);
  assert.equal(inTcp + inShm, 5 * connections);
});

/** A table of one connection after another, that takes its time in the middle of every end. */
const SLOW_ENDS = `
  const { ConnectionTable, rowText } = await import(process.argv[1]);
  const [table, clock] = [new ConnectionTable(), new Int32Array(new SharedArrayBuffer(4))];
  const wait = () => Atomics.wait(clock, 0, 0, 5);
  const none = { device: null, access: null, local: null, peer: null, movedAtMs: null, gid: null, peerGid: null,
    linkGroup: null, chid: null, dmbBytes: null };
  const info = { id: '1.0.1', program: 'p', role: null, state: 'open', mode: 'TCP', reason: { code: 0, text: 't', hint: 'h' }, ...none };
  console.log('runs');
  for (;;) {
    const row = table.addRow();
    row.write(rowText(info));
    row.counters[0] = 5;
    wait();
    table.atOnce(() => { table.statistics.ended(row.counters, null); wait(); row.free(); });
  }`;

test('a connection that ends is counted once, however long the program takes over it', { skip }, async () => {
  const { href } = new URL('../../src/net/table.js', import.meta.url);
  const program = spawn(process.execPath, ['--input-type=module', '-e', SLOW_ENDS, href], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(program.stdout, 'data');
    let [before, open] = [0, 0];
    for (let looks = 0; looks < 100 || before < 50 || open === 0; looks++) {
      const from = performance.now();
      const found = sumOf(readPartitions(String(program.pid)).tables);
      if (performance.now() - from > 400) continue; // somebody was stopped, and the reader has given up
      const { inTcp } = counted(found);
      open += found.open.tcp;
      assert.ok(inTcp >= before, `${before} ${inTcp}`);
      before = inTcp;
    }
  } finally {
    program.kill('SIGKILL');
  }
});

test('link groups and devices are those that the connections use, with the process at the other end', {
  skip,
}, async () => {
  const { server, client } = await movedPair();
  const [row] = server.connections;
  const groups = await isthmus('linkgroup', 's', '--json', '-p', String(server.pid));
  assert.equal(groups.code, 0, groups.stderr);
  const [group, ...more] = JSON.parse(groups.stdout) as Record<string, unknown>[];
  assert.deepEqual(more, []);
  const { linkGroup, pid, connections, device, access, gid, peerGid, peerPid, dmbBytes } = group ?? {};
  assert.deepEqual([pid, peerPid, connections, dmbBytes], [server.pid, client.pid, 1, 65536]);
  assert.deepEqual([linkGroup, device, access], [row?.linkGroup, 'host', 'mapped']);
  assert.deepEqual([gid, peerGid], [row?.gid, row?.peerGid]);
  const shown = await isthmus('linkgroup', 'show', String(linkGroup).slice(2), '-d', '-p', String(server.pid));
  assert.match(
    shown.stdout,
    new RegExp(`^LG-ID .*\n${String(linkGroup).slice(2)}  host  1 +${server.pid} +${client.pid} `),
  );
  assert.equal((await isthmus('linkgroup', 'fffffff0', '-p', String(server.pid))).code, 1);
  assert.equal((await isthmus('linkgroup', 'none')).code, 2);
  const devices = await isthmus('device', '-p', String(client.pid));
  assert.match(
    devices.stdout,
    new RegExp(`^FID +Type .*\n0000 +host +ff[0-9a-f]{2} +Yes +1 +1 +mapped +${client.pid} +${row?.peerGid}\n$`),
  );
  const [one] = JSON.parse(
    (await isthmus('device', 'show', 'all', '--json', '-p', String(client.pid))).stdout,
  ) as object[];
  assert.deepEqual(one, {
    pid: client.pid,
    program: readTables(String(client.pid)).rows[0]?.program,
    type: 'host',
    chid: row?.chid,
    gid: row?.peerGid,
    access: 'mapped',
    linkGroups: 1,
    connections: 1,
  });
});

test('isthmus ss -d shows the program, and takes short options in one word', { skip }, async () => {
  const { server } = await movedPair();
  const { stdout } = await isthmus('ss', '-Ddp', String(server.pid));
  assert.match(stdout, / Program .*\nACTIVE .* \/\S+program-0\.mjs /);
});

test('what is asked for wrongly is said', async () => {
  for (const args of [
    ['stats', 'reset'],
    ['stats', 'all'],
    ['stats', '--json', '--prometheus'],
    ['stats', '-p', 'self'],
    ['linkgroup', 'show', 'all', 'all'],
    ['device', 'one'],
    ['ss', '5'],
    ['ss', '--watch', '0'],
    ['ss', '--watch', '1', '2'],
    ['ss', '--watch', '--json'],
    ['completion'],
    ['completion', 'toString'],
  ]) {
    const { code, stdout, stderr } = await isthmus(...args);
    assert.deepEqual([code, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^isthmus: .*; isthmus \w+ --help tells what it takes\n$/);
  }
});

test('every key of smc-tools is one that is shown or one that is left out with a reason', () => {
  const shown = FIGURES.flatMap(({ keys }) => Object.keys(keys(sumOf([]))));
  const all = [...shown, ...MISSING_KEYS.flatMap(([keys]) => keys)];
  assert.deepEqual([all.length, new Set(all).size], [65, 65]);
  for (const key of all) assert.match(key, /^SMC_[A-Z0-9_]+$/);
});

test('the text for Prometheus keeps to its format', { skip }, async () => {
  const { server, client } = await movedPair();
  const plain = stage.run(CLIENT, [await server.says('port ')], { NODE_OPTIONS: '' });
  plain.tell('send 10');
  await eventually('one stays on TCP', () => sums(server).openOnTcp.get('PEERNOSMC') === 1);
  const tables = [server, client].flatMap(({ pid }) => readPartitions(String(pid)).tables);
  const values = parsePrometheus(formatPrometheus(tables));
  assert.equal(values.get(`isthmus_connections_total{pid="${client.pid}",thread="0",role="client"}`), 1);
  assert.equal(values.get(`isthmus_open_fallback{pid="${server.pid}",thread="0",reason="PEERNOSMC"}`), 1);
  const { code, stdout } = await isthmus('stats', '--prometheus', '-p', String(server.pid));
  assert.equal(code, 0);
  const own = [...parsePrometheus(stdout).keys()];
  assert.ok(own.length > 0 && own.every((series) => series.includes(`pid="${server.pid}"`)));
});

/** Samples by series. Fails for what the text format, version 0.0.4, does not allow, and for names that promtool would not like. */
function parsePrometheus(text: string): Map<string, number> {
  const values = new Map<string, number>();
  const types = new Map<string, string>();
  const helps = new Set<string>();
  let current = '';
  assert.match(text, /\n$/);
  for (const line of text.slice(0, -1).split('\n')) {
    const comment = /^# (HELP|TYPE) ([a-z][a-z0-9_]*) (.+)$/.exec(line);
    if (comment !== null) {
      const [, what, name = '', rest = ''] = comment;
      if (what === 'HELP') {
        assert.ok(!helps.has(name), line);
        assert.doesNotMatch(rest.replaceAll('\\\\', '').replaceAll('\\n', ''), /\\/);
        helps.add(name);
        current = name;
      } else {
        assert.ok(name === current && !types.has(name), line);
        assert.match(rest, /^(counter|gauge)$/);
        assert.equal(name.endsWith('_total'), rest === 'counter', line);
        types.set(name, rest);
      }
      continue;
    }
    const sample = /^([a-z][a-z0-9_]*)\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\} (\d+(?:\.\d+)?)$/.exec(line);
    assert.ok(sample !== null, line);
    const [, name = '', labels = '', value] = sample;
    assert.ok(name === current && types.has(name), `${line}: not beside its TYPE`);
    const names = [...labels.matchAll(/([a-z_]+)="/g)].map(([, label]) => label);
    assert.equal(new Set(names).size, names.length, line);
    const series = `${name}{${labels}}`;
    assert.ok(!values.has(series), `${series} twice`);
    values.set(series, Number(value));
  }
  return values;
}
