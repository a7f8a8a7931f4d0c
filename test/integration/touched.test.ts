/** Programs that do to their sockets what few programs do: they see what they see over TCP. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { REGISTER_OPTION } from '../../src/cli/run.ts';
import { cannotMove, Workplace } from './commands.ts';

const skip = cannotMove();
let work: Workplace;
before(() => {
  work = new Workplace();
});
after(() => work.close());

/** Both ends are in one program. `told(socket)` writes dots until it is clear how the socket goes: mode and reason; null without Isthmus. */
const PRELUDE = `
  const net = require('node:net');
  const { once } = require('node:events');
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const listening = async (server) => (await once(server.listen(0, '127.0.0.1'), 'listening'), server.address().port);
  const told = async (socket) => {
    const runtime = globalThis[Symbol.for('isthmus.runtime.1')];
    if (runtime === undefined) return null;
    for (let i = 0; ; i++) {
      const { mode, reason } = runtime.info(socket);
      if (i === 500 || mode === 'SMC-D' || !['NOTTCP', 'YOUNG', 'CHECKING', 'AGREED', 'NOBYTE', 'PEERNOSMC'].includes(reason.name)) return mode + ' ' + reason.name;
      socket.write('.');
      await pause(10);
    }
  };
  /** Sends back what it gets. */
  const echo = () => net.createServer((socket) => socket.on('data', (chunk) => socket.write(chunk)).on('error', () => {}));
  const print = (seen, ...ways) => { console.log(JSON.stringify({ seen, ways })); process.exit(); };
`;

interface Outcome {
  readonly seen: unknown;
  readonly ways: unknown;
}

async function run(program: string, env: NodeJS.ProcessEnv): Promise<Outcome> {
  const path = join(work.directory, 'program.cjs');
  writeFileSync(path, `${PRELUDE}(async () => {${program}})();`);
  const { code, stdout, stderr } = await work.finish(process.execPath, [path], { env: { ...work.env, ...env } });
  assert.deepEqual([code, stderr], [0, '']);
  return JSON.parse(stdout) as Outcome;
}

/** What else is loaded, before Isthmus or after it. */
interface Preload {
  readonly before?: string;
  readonly after?: string;
}

/** @param ways how each of the sockets goes that the program asks for */
function touched(what: string, ways: readonly string[], program: string, preload: Preload = {}): void {
  test(what, { skip }, async () => {
    const [before, after] = ['before', 'after'].map((when) => {
      const code = preload[when as keyof Preload];
      if (code === undefined) return '';
      const path = join(work.directory, `${when}.cjs`);
      writeFileSync(path, code);
      return `--require=${path}`;
    });
    const { seen } = await run(program, { NODE_OPTIONS: `${before} ${after}` });
    for (const policy of ['lazy', 'eager']) {
      const options = `${before} ${REGISTER_OPTION} ${after}`;
      const outcome = await run(program, { NODE_OPTIONS: options, ISTHMUS_POLICY: policy });
      assert.deepEqual(outcome, { seen, ways }, policy);
    }
  });
}

touched(
  'a socket that connects again, and again, moves each time',
  ['SMC-D MOVED', 'SMC-D MOVED', 'SMC-D MOVED'],
  `
  const port = await listening(echo());
  const socket = new net.Socket(), seen = [], ways = [];
  let text = '';
  socket.on('data', (chunk) => (text += chunk));
  for (const event of ['end', 'close', 'error']) socket.on(event, (value) => seen.push(event + ' ' + value));
  for (const round of [1, 2, 3]) {
    socket.connect(port, '127.0.0.1');
    await once(socket, 'connect');
    socket.write('a' + round);
    ways.push(await told(socket));
    socket.write('b' + round);
    while (!text.includes('b' + round)) await pause(1);
    seen.push(text.replaceAll('.', ''), socket.bytesRead === socket.bytesWritten);
    if (round === 2) socket.destroy();
    else socket.end();
    await once(socket, 'close');
  }
  print(seen, ...ways);
  `,
);

touched(
  'a socket that connects until somebody listens does not gather listeners of ours',
  ['SMC-D MOVED'],
  `
  const server = echo(), port = await listening(server);
  await new Promise((resolve) => server.close(resolve));
  const socket = new net.Socket(), seen = [];
  socket.on('error', ({ code }) => seen.push(code));
  for (let i = 0; i < 12; i++) {
    socket.connect(port, '127.0.0.1');
    await new Promise((resolve) => socket.once('close', resolve));
    seen.push(socket.listenerCount('connect') < 2);
  }
  await once(server.listen(port, '127.0.0.1'), 'listening');
  socket.connect(port, '127.0.0.1');
  await once(socket, 'connect');
  print(seen, await told(socket.resume()));
  `,
);

touched(
  'methods of a class of the program are called',
  ['TCP OVERRIDDEN'],
  `
  const seen = [];
  const flipped = (chunk) => Buffer.from(chunk).map((byte) => byte ^ 0x20);
  class Flipping extends net.Socket {
    push(chunk, encoding) { return super.push(chunk && flipped(chunk), encoding); }
    destroy(error) { seen.push('destroy'); return super.destroy(error); }
    _destroy(error, callback) { seen.push('_destroy'); super._destroy(error, callback); }
    _final(callback) { seen.push('_final'); super._final(callback); }
  }
  const port = await listening(echo());
  const socket = new Flipping().connect(port, '127.0.0.1').setEncoding('latin1');
  let text = '';
  socket.on('data', (chunk) => (text += chunk));
  const way = await told(socket);
  socket.end('hello');
  await once(socket, 'close');
  print([...seen, text.replaceAll(String.fromCharCode(14), '')], way);
  `,
);

touched(
  'methods that a program puts on a socket are called, also when it was about to move',
  ['TCP OVERRIDDEN', 'TCP OVERRIDDEN'],
  `
  const port = await listening(echo()), ways = [], seen = [];
  for (const watched of [false, true]) {
    const socket = net.connect(port, '127.0.0.1').resume();
    await once(socket, 'connect');
    if (watched) await pause(100);
    const { write, destroy } = socket;
    let counted = 0;
    socket.write = function (chunk, ...rest) { counted += chunk.length; return write.call(this, chunk, ...rest); };
    socket.destroy = function (...args) { seen.push('destroy'); return destroy.apply(this, args); };
    ways.push(await told(socket));
    socket.write('hello');
    seen.push(counted === socket.bytesWritten);
    socket.destroy();
    await once(socket, 'close');
  }
  print(seen, ...ways);
  `,
);

touched(
  'a program that reads the handle itself gets every byte',
  ['TCP OVERRIDDEN'],
  `
  const port = await listening(echo());
  const socket = net.connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const { onread } = socket._handle;
  let calls = 0, text = '';
  socket._handle.onread = function (...args) { calls++; return onread.apply(this, args); };
  socket.on('data', (chunk) => (text += chunk));
  const way = await told(socket);
  for (let i = 0; i < 5; i++) {
    socket.write('!');
    while (text.split('!').length < i + 2) await pause(1);
  }
  print([calls >= 5, text.replaceAll('.', '')], way);
  `,
);

/** As an instrumentation counts. */
const COUNTING = `
  const { Socket } = require('node:net');
  const counted = (globalThis.counted = { written: 0, pushed: new WeakMap() });
  const { write, push } = Socket.prototype;
  Socket.prototype.write = function (chunk, ...rest) { counted.written += chunk.length; return write.call(this, chunk, ...rest); };
  Socket.prototype.push = function (chunk, ...rest) { counted.pushed.set(this, (counted.pushed.get(this) ?? 0) + (chunk?.length ?? 0)); return push.call(this, chunk, ...rest); };
`;

for (const when of ['before', 'after'])
  touched(
    `what is put over the prototype of sockets ${when} Isthmus is loaded sees every byte, and writes of the program only`,
    ['SMC-D MOVED'],
    `
    const server = echo(), port = await listening(server);
    const socket = net.connect(port, '127.0.0.1');
    let got = 0;
    socket.on('data', ({ length }) => (got += length));
    const way = await told(socket);
    for (let i = 0; i < 10; i++) {
      const wanted = got + 100;
      socket.write(Buffer.alloc(100));
      while (got < wanted) await pause(1);
    }
    const { written, pushed } = globalThis.counted;
    print([written === socket.bytesWritten + socket.bytesRead, pushed.get(socket) === socket.bytesRead], way);
    `,
    { [when]: COUNTING },
  );
