import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { ConnectionInfo } from '../../src/net/info.ts';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove, copyWithoutKoffi, Workplace } from './commands.ts';

interface Half {
  readonly echo: { readonly bytes: number };
  readonly http: { readonly bytes: number; readonly requests: number };
  readonly connections: readonly ConnectionInfo[];
}

let work: Workplace;
beforeEach(() => {
  work = new Workplace();
});
afterEach(() => work.close());

test('plain programs run over TCP, then through shared memory, and all bytes are right', {
  skip: cannotMove(),
}, async () => {
  const { code, stdout, stderr } = await work.finish(process.execPath, [CLI, 'demo', '--quick', '--json']);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
  const outcome = JSON.parse(stdout) as { tcp: Half; isthmus: Half; moved: boolean; failures: unknown[] };
  for (const half of [outcome.tcp, outcome.isthmus]) {
    assert.ok(half.echo.bytes > 0 && half.http.bytes > 0);
    assert.equal(half.http.bytes, 1024 * half.http.requests);
  }
  assert.deepEqual(outcome.tcp.connections, []);
  const { connections } = outcome.isthmus;
  // One of the echo programs and two of the HTTP programs, two ends each.
  assert.equal(connections.length, 6);
  for (const { mode, device, reason } of connections)
    assert.deepEqual([mode, device, reason.name], ['SMC-D', 'host', 'MOVED']);
  assert.deepEqual([outcome.moved, outcome.failures], [true, []]);
  assert.deepEqual(readdirSync(work.directory), []);
  assert.deepEqual(work.processes(), []);
});

test('without koffi the programs run over TCP, and it is said what failed and why', async () => {
  const cli = copyWithoutKoffi(join(work.directory, 'package'));
  const { code, stdout, stderr } = await work.finish(process.execPath, [cli, 'demo', '--quick']);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
  assert.match(stdout, /^ {2}What failed +to call the system$/m);
  assert.match(stdout, /^ {2}Why +0x49530005 FFI: /m);
  assert.match(stdout, /^ {2}In detail +.*Cannot find module 'koffi'/m);
  assert.match(stdout, /^ {2}What to do +`npm install koffi` where isthmus is installed/m);
  assert.match(stdout, /^The programs worked all the same, over TCP\.$/m);
  assert.match(stdout, /^Every byte that came back was compared .* all right\.$/m);
  assert.deepEqual(readdirSync(work.directory), ['package']);
});

test('a program that does not work fails the demo, with what the program said', async () => {
  const cli = copyWithoutKoffi(join(work.directory, 'package'));
  const { writeFileSync } = await import('node:fs');
  const client = join(work.directory, 'package/examples/http-client.mjs');
  writeFileSync(client, `console.error('wrong bytes'); process.exit(3);`);
  const { code, stderr } = await work.finish(process.execPath, [cli, 'demo', '--quick']);
  assert.deepEqual([code, stderr], [1, 'isthmus: http-client.mjs: exit code 3; wrong bytes\n']);
  assert.deepEqual(readdirSync(work.directory), ['package']);
  assert.deepEqual(work.processes(), []);
});

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`${signal} ends the demo and everything it has started`, async () => {
    const demo = work.start(process.execPath, [CLI, 'demo', '--quick']);
    await demo.says(/isthmus run node examples\/echo-client\.mjs/);
    process.kill(demo.pid, signal);
    assert.equal((await demo.finished).code, code);
    assert.deepEqual(readdirSync(work.directory), []);
    await eventually('no process is left', () => work.processes().length === 0);
  });
}
