/** Leases and reservations as a program has them: from the package, between programs, between threads, inside one, and on TCP. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { eventually } from '../../src/testing/index.ts';
import { cannotMove, ROOT } from './commands.ts';
import { PRELUDE, Stage } from './two-programs.ts';

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

const skip = cannotMove();
const INDEX = JSON.stringify(pathToFileURL(`${ROOT}/dist/lib/index.js`).href);

/** Sends back what comes, from leases into reservations, and counts which were of shared memory. */
const SERVE = `
  import { createServer } from 'node:net';
  import { once } from 'node:events';
  import { leases, reserve } from ${INDEX};
  export function serve(listening) {
    const server = createServer({ allowHalfOpen: true }, async (socket) => {
      let shared = 0, rooms = 0, bytes = 0;
      for await (const lease of leases(socket, { destroyOnReturn: false })) {
        if (lease.isShared) shared++;
        for (let at = 0; at < lease.bytes.length; ) {
          const room = reserve(socket, Math.min(1000, lease.bytes.length - at));
          if (room === null) { await once(socket, 'drain'); continue; }
          if (room.isShared) rooms++;
          at += lease.bytes.copy(room.bytes, 0, at);
          bytes += room.bytes.length;
          room.commit();
        }
        lease.release();
      }
      socket.end();
      console.log('served', bytes, shared > 0, rooms > 0);
    });
    server.listen(0, '127.0.0.1', () => listening(server.address().port));
  }
`;
const SERVER = `import { serve } from './serve.mjs'; serve((port) => console.log('port', port));`;
const WORKER = `import { serve } from './serve.mjs'; import { parentPort } from 'node:worker_threads'; serve((port) => parentPort.postMessage(port));`;

const CLIENT = (where: string) => `${PRELUDE}
  import { Worker } from 'node:worker_threads';
  ${where === 'inside' ? "import { serve } from './serve.mjs';" : ''}
  let socket, got = 0, wrong = 0, sent = 0;
  const start = (port) => {
    socket = net.connect(port, '127.0.0.1', () => tell('connected'));
    socket.on('data', (chunk) => { for (const byte of chunk) if (byte !== byteAt(got++)) wrong++; });
    socket.on('close', () => tell('close ' + got + ' ' + wrong));
  };
  told('write', (length) => { socket.write(pattern(sent, +length)); sent += +length; });
  told('end', () => socket.end());
  ${where === 'worker' ? 'new Worker(args[0]).on("message", start);' : where === 'inside' ? 'serve(start);' : 'start(+args[0]);'}
`;

for (const where of ['other program', 'worker', 'inside', 'TCP']) {
  test(`bytes go from leases into reservations: ${where}`, { skip }, async () => {
    stage.file('serve.mjs', SERVE);
    const env = where === 'TCP' ? { ISTHMUS_POLICY: 'off' } : {};
    let argument = '';
    let server = null;
    if (where === 'worker') argument = stage.file('worker.mjs', WORKER);
    if (where === 'other program' || where === 'TCP') {
      server = stage.run(SERVER, [], env);
      argument = (await server.says('port ')).trim();
    }
    const client = stage.run(CLIENT(where), [argument], env);
    await client.says('connected');
    const isMoved = where !== 'TCP';
    if (isMoved) {
      await eventually('moved', () => {
        client.tell('write 10'); // a byte has to pass once both ends are matched
        return client.connections.filter(({ mode }) => mode === 'SMC-D').length === (server === null ? 2 : 1);
      });
    }
    client.tell('write 700000');
    client.tell('end');
    const [bytes, wrong] = (await client.says('close ')).split(' ');
    assert.ok(Number(bytes) >= 700_000);
    assert.equal(wrong, '0');
    assert.equal(await (server ?? client).says('served '), `${bytes} ${isMoved} ${isMoved}`);
  });
}
