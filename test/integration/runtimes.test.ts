/** Bun and Deno: programs work as without Isthmus, over TCP, and are told why. */
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { REGISTER } from '../../src/cli/run.ts';
import { CLI, ROOT, Workplace } from './commands.ts';
import { INDEX_URL } from './exchange.ts';

let work: Workplace;
before(() => {
  work = new Workplace();
});
after(() => work.close());

/** Both ends, by `isthmus` itself when there is a variable that names it. */
const PROGRAM = `
  import net from 'node:net';
  import http from 'node:http';
  import { once } from 'node:events';
  const isthmus = process.env.INDEX_URL ? await import(process.env.INDEX_URL) : null;
  const { connect, createServer } = isthmus ?? net;
  const server = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect(server.address().port, '127.0.0.1');
  let got = '';
  socket.on('data', (chunk) => { got += chunk; });
  for (let i = 0; i < 20; i++) { socket.write('piece ' + i); await new Promise((resolve) => setTimeout(resolve, 10)); }
  if (isthmus) {
    const show = ({ mode, reason }) => console.log(mode, reason.name, reason.hint);
    show(isthmus.info(socket));
    show(await isthmus.accelerate(socket));
    show(await isthmus.restore(socket));
  }
  socket.end();
  await once(socket, 'close');
  server.close();
  const web = http.createServer((request, response) => request.pipe(response)).listen(0, '127.0.0.1');
  await once(web, 'listening');
  const response = await fetch('http://127.0.0.1:' + web.address().port, { method: 'POST', body: 'over http' });
  console.log(got.length, await response.text());
  process.exit();
`;

const SAID = '150 over http\n';

for (const [name, path, args, preload] of [
  ['bun', `@oven/bun-linux-${process.arch === 'x64' ? 'x64' : 'aarch64'}/bin/bun`, ['run'], '--preload'],
  ['deno', `@deno/linux-${process.arch}-glibc/deno`, ['run', '-A', '--no-config'], '--preload'],
] as const) {
  const runtime = join(ROOT, '.runtimes/node_modules', path);
  const skip = !existsSync(runtime) && `${name} is not there: node scripts/runtimes.mjs`;
  const program = () => {
    const file = join(work.directory, 'program.mjs');
    writeFileSync(file, PROGRAM);
    return file;
  };
  const env = () => ({ ...work.env, HOME: work.directory, ISTHMUS_POLICY: 'eager', DENO_NO_UPDATE_CHECK: '1' });

  test(`${name} with the preload`, { skip }, async () => {
    const finished = await work.finish(runtime, [...args, preload, fileURLToPath(REGISTER), program()], { env: env() });
    assert.deepEqual(finished, { code: 0, signal: null, stdout: SAID, stderr: '' });
  });

  test(`${name} by isthmus run, which says so in a line`, { skip }, async () => {
    const command = [CLI, 'run', runtime, ...args, program()];
    const { code, stdout, stderr } = await work.finish(process.execPath, command, { env: env() });
    assert.deepEqual([code, stdout], [0, SAID]);
    assert.match(stderr, new RegExp(`^isthmus: ${name} is not Node.js[^\\n]*\\n$`));
  });

  test(`${name} with the package`, { skip }, async () => {
    const finished = await work.finish(runtime, [...args, program()], { env: { ...env(), INDEX_URL } });
    const hint = 'Bun and Deno have a node:net of their own: run the program with Node.js';
    assert.deepEqual(finished, {
      code: 0,
      signal: null,
      stdout: `TCP RUNTIME ${hint}\n`.repeat(3) + SAID,
      stderr: '',
    });
    const again = await work.finish(process.execPath, [program()], { env: { ...env(), INDEX_URL } });
    assert.match(again.stdout, /^SMC-D MOVED/, again.stderr); // as it says
  });
}
