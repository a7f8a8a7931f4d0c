/**
 * Node.js with one thing changed inside, as a later version might have it: programs work over TCP as if nothing were, and say what
 * was found. The changes leave plain sockets as they are; most are no more than what would tear a connection that moves.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { REGISTER } from '../../src/cli/run.ts';
import { cannotMove, Workplace } from './commands.ts';
import { INDEX_URL } from './exchange.ts';

const skip = cannotMove();
let work: Workplace;
before(() => {
  work = new Workplace();
});
after(() => work.close());

/** Begins every change. `HANDLE` is what all TCP handles have, `under` puts a function with the same name and length over another. */
const CHANGER = `
  import net, { Socket } from 'node:net';
  import { syncBuiltinESMExports } from 'node:module';
  import { Duplex, Readable } from 'node:stream';
  import { TLSSocket } from 'node:tls';
  import { once } from 'node:events';
  const P = Socket.prototype;
  const probe = net.createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const one = net.connect(probe.address().port, '127.0.0.1');
  await once(one, 'connect');
  const TCP = Object.getPrototypeOf(one._handle), HANDLE = Object.getPrototypeOf(TCP);
  one.destroy();
  probe.close();
  const native = (name, handle) => Reflect.get(HANDLE, name, handle);
  /** What is made by 'new Socket(options)' outside of Node.js. */
  const made = (isMeant, change) => {
    const construct = (target, [options], self) => {
      const socket = Reflect.construct(target, [options], self);
      return isMeant(options ?? {}) ? change(socket) : socket;
    };
    net.Socket = new Proxy(Socket, { construct });
    syncBuiltinESMExports();
  };
  const ofNothing = ({ fd }) => fd === undefined;
  const ofTcp = ({ fd, allowHalfOpen }) => fd !== undefined && allowHalfOpen === true;
  const lacking = (object, name) => new Proxy(object, { has: (target, key) => key !== name && key in target });
`;

/** Both ends in one program, which compares every byte and the order of events. */
const PROGRAM = `
  import net from 'node:net';
  import { once } from 'node:events';
  import { setTimeout as pause } from 'node:timers/promises';
  import { info } from ${JSON.stringify(INDEX_URL)};
  const log = [];
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('end', () => { log.push('server end'); socket.end('!'); });
    socket.on('data', (chunk) => socket.write(chunk));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = net.connect({ port: server.address().port, host: '127.0.0.1', allowHalfOpen: true });
  const sent = [], got = [];
  socket.on('data', (chunk) => got.push(chunk)).on('end', () => log.push('client end')).on('close', () => log.push('close'));
  const say = (chunk, encoding = 'utf8') => {
    sent.push(Buffer.from(chunk, encoding));
    socket.write(chunk, encoding);
  };
  const isSettled = ({ mode, reason }) => mode === 'SMC-D' || !['NOTTCP', 'YOUNG', 'CHECKING', 'AGREED', 'NOBYTE', 'PEERNOSMC'].includes(reason.name);
  for (let i = 0; i < 200 && !isSettled(info(socket)); i++) {
    say('äö' + i);
    say('üx', 'latin1');
    await pause(10);
  }
  say(Buffer.alloc(200_000, 'abc'));
  socket.cork();
  say('fe', 'hex');
  say('last');
  socket.uncork();
  await pause(20);
  const { mode, reason } = info(socket);
  socket.end();
  await once(socket, 'close');
  server.close();
  const bytes = Buffer.concat(sent);
  const isExact = Buffer.concat(got).equals(Buffer.concat([bytes, Buffer.from('!')])) &&
    socket.bytesWritten === bytes.length && socket.bytesRead === bytes.length + 1;
  console.log(JSON.stringify({ isExact, log: log.join(), mode, reason: reason.name, text: reason.text }));
`;

async function runChanged(change: string, program = PROGRAM): Promise<Record<string, unknown>> {
  const at = (name: string, text: string) => {
    const path = join(work.directory, name);
    writeFileSync(path, text);
    return path;
  };
  const changer = at('change.mjs', CHANGER + change);
  const { code, stdout, stderr } = await work.finish(process.execPath, [at('program.mjs', program)], {
    env: {
      ...work.env,
      ISTHMUS_POLICY: 'eager',
      NODE_OPTIONS: `--import=file://${changer} --import=${REGISTER}`,
    },
  });
  assert.deepEqual([code, stderr], [0, ''], stdout);
  return JSON.parse(stdout) as Record<string, unknown>;
}

const RIGHT = { isExact: true, log: 'server end,client end,close' };

test('where nothing is changed the connection moves', { skip }, async () => {
  const { text: _, ...outcome } = await runChanged('');
  assert.deepEqual(outcome, { ...RIGHT, mode: 'SMC-D', reason: 'MOVED' });
});

const METHODS = { _writeGeneric: 4, _final: 1, _destroy: 2, _read: 1, _unrefTimer: 0 };
const READABLE = ['flowing', 'length', 'decoder', 'ended', 'sync', 'awaitDrainWriters', 'dataEmitted'];
const WRITABLE = [
  'length',
  'corked',
  'ending',
  'destroyed',
  'errored',
  'needDrain',
  'bufferProcessing',
  'highWaterMark',
];
const HANDLE_NUMBERS = ['bytesRead', 'bytesWritten', 'writeQueueSize'];

/** [what has changed, how, what is said] */
const CHANGES: readonly (readonly [string, string, RegExp])[] = [
  // How it looks.
  ...Object.keys(METHODS).flatMap(
    (name) =>
      [
        [
          `${name} has one parameter more`,
          `const before = P.${name}; P.${name} = function (...all) { return Reflect.apply(before, this, all); };
           Object.defineProperty(P.${name}, 'length', { value: before.length + 1 });`,
          new RegExp(`net.Socket.prototype.${name} has changed`),
        ],
        [
          `${name} is inherited`,
          `const before = P.${name}; delete P.${name};
           Duplex.prototype.${name} = function (...all) {
             if (this instanceof Socket) return Reflect.apply(before, this, all);
             return Reflect.apply(Readable.prototype.${name} ?? ((...rest) => rest.at(-1)()), this, all);
           };`,
          new RegExp(`net.Socket.prototype.${name} has changed`),
        ],
      ] as const,
  ),
  ...(['_write', '_writev'] as const).map(
    (name) =>
      [
        `${name} goes another way`,
        `const before = P.${name}; P.${name} = function (...all) { return Reflect.apply(before, this, all); };`,
        new RegExp(`${name} does not call _writeGeneric`),
      ] as const,
  ),
  [
    'bytesRead of a socket',
    `const before = Function.prototype.toString; // the property itself cannot be changed
     Function.prototype.toString = function () { return before.call(this).replaceAll('handle.bytesRead', 'handle.bytesIn'); };`,
    /net.Socket.prototype.bytesRead has changed/,
  ],
  [
    'the callback of reads has another name',
    `made(ofNothing, (socket) => { if (socket._handle) socket._handle = { onread: () => {} }; return socket; });`,
    /onStreamRead was not found/,
  ],
  [
    'the callback of reads does not push',
    `made(ofNothing, (socket) => { if (socket._handle) socket._handle = { onread: function onStreamRead() {} }; return socket; });`,
    /onStreamRead does not call stream.push/,
  ],
  ...['kBuffer', 'kBufferCb', 'kBufferGen'].map(
    (name) =>
      [
        `the symbol ${name} is gone`,
        `made(ofNothing, (socket) => {
           const symbol = Object.getOwnPropertySymbols(socket).find(({ description }) => description === '${name}');
           delete socket[symbol];
           return socket;
         });`,
        new RegExp(`the symbol ${name} was not found`),
      ] as const,
  ),
  ...[...READABLE.map((name) => ['_readableState', name]), ...WRITABLE.map((name) => ['_writableState', name])].map(
    ([state, name]) =>
      [
        `${state}.${name} is gone`,
        `made(ofNothing, (socket) => Object.defineProperty(socket, '${state}', { value: lacking(socket.${state}, '${name}') }));`,
        new RegExp(`${state}.${name} was not found`),
      ] as const,
  ),
  ...HANDLE_NUMBERS.map(
    (name) =>
      [
        `${name} of a handle is a BigInt`,
        `made(ofTcp, (socket) => {
           Object.defineProperty(socket._handle, '${name}', { configurable: true, get() { return BigInt(native('${name}', this)); } });
           return socket;
         });`,
        new RegExp(`handle.${name} has changed`),
      ] as const,
  ),
  ...['readStart', 'readStop'].map(
    (name) =>
      [
        `${name} is each handle's own`,
        `made(ofTcp, (socket) => { socket._handle.${name} = HANDLE.${name}; return socket; });`,
        new RegExp(`handle.${name} has changed`),
      ] as const,
  ),
  [
    'handles have another class',
    `Object.defineProperty(TCP.constructor, 'name', { value: 'Tcp' });`,
    /the handle of a socket is a Tcp/,
  ],
  ['isStreamBase of a handle', `Object.defineProperty(HANDLE, 'isStreamBase', { value: 1 });`, /handle.isStreamBase/],
  [
    'TLS is put on a handle otherwise',
    `const before = TLSSocket.prototype._wrapHandle; TLSSocket.prototype._wrapHandle = function (wrap, options) { return before.apply(this, arguments); };`,
    /TLSSocket.prototype._wrapHandle has changed/,
  ],

  // What it does.
  [
    'writes pass by the method of the instance',
    `const generic = P._writeGeneric;
     P._write = function (data, encoding, callback) { /* this._writeGeneric( */ Reflect.apply(generic, this, [false, data, encoding, callback]); };
     P._writev = function (chunks, callback) { /* this._writeGeneric( */ Reflect.apply(generic, this, [true, chunks, '', callback]); };`,
    /bytes by TCP that are watched/,
  ],
  [
    'chunks of writev are pairs',
    `const generic = P._writeGeneric;
     P._writeGeneric = function (writev, data, encoding, callback) {
       if (writev && Array.isArray(data[0])) data = data.map(([chunk, encoding]) => ({ chunk, encoding }));
       return Reflect.apply(generic, this, [writev, data, encoding, callback]);
     };
     P._writev = function (chunks, callback) { this._writeGeneric(true, chunks.map(({ chunk, encoding }) => [chunk, encoding]), '', callback); };`,
    /not known to work: ./,
  ],
  [
    'strings come without their encoding',
    `const generic = P._writeGeneric;
     P._writeGeneric = function (writev, data, encoding, callback) {
       if (writev && !data.allBuffers) data = data.map(({ chunk, coding }) => ({ chunk, encoding: coding }));
       return Reflect.apply(generic, this, [writev, data, encoding, callback]);
     };
     P._writev = function (chunks, callback) {
       const data = chunks.map(({ chunk, encoding }) => ({ chunk, coding: encoding }));
       this._writeGeneric(true, chunks.allBuffers ? chunks : data, '', callback);
     };`,
    /not known to work: ./,
  ],
  [
    'writes are answered with a number',
    `const generic = P._writeGeneric;
     P._writeGeneric = function (writev, data, encoding, callback) {
       Reflect.apply(generic, this, [writev, data, encoding, (error) => callback(error ?? 0, 'sent')]);
     };
     P._write = function (data, encoding, callback) { this._writeGeneric(false, data, encoding, (error, word) => word === 'sent' && callback(error || null)); };
     P._writev = function (chunks, callback) { this._writeGeneric(true, chunks, '', (error, word) => word === 'sent' && callback(error || null)); };`,
    /not known to work: a reader that is full/,
  ],
  [
    'what is read goes another way than push',
    `Object.defineProperty(P, 'push', { get: () => Readable.prototype.push, set() {} }); // whoever puts his own is not asked`,
    /bytes by TCP that are watched/,
  ],
  [
    'reads are begun on the handle itself',
    `P._read = function (n) {
       const handle = this._handle;
       if (this.connecting || !handle) this.once('connect', () => this._read(n));
       else if (!handle.reading) { handle.reading = true; HANDLE.readStart.call(handle); }
     };`,
    /the end of waiting/,
  ],
  [
    'bytes are counted below',
    `made(ofTcp, (socket) => {
       let counted = 0;
       const get = () => { if (socket._handle) counted = native('bytesRead', socket._handle); return counted; };
       return Object.defineProperty(socket, 'bytesRead', { get });
     });`,
    /bytesRead: \d+ instead of \d+/,
  ],
];

for (const [what, change, said] of CHANGES) {
  test(what, { skip }, async () => {
    const { text, ...outcome } = await runChanged(change);
    assert.match(String(text), said);
    assert.deepEqual(outcome, { ...RIGHT, mode: 'TCP', reason: 'INTERNALS' });
  });
}

/** A server of http, whose end is the one that C++ reads. */
const HTTP = `
  import http from 'node:http';
  import { once } from 'node:events';
  import { setTimeout as pause } from 'node:timers/promises';
  import { info } from ${JSON.stringify(INDEX_URL)};
  let socket;
  const server = http.createServer((request, response) => { socket = request.socket; request.pipe(response); }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  let isExact = true;
  for (let i = 0; i < 100 && (i < 5 || ['NOTTCP', 'YOUNG', 'CHECKING', 'AGREED', 'NOBYTE', 'PEERNOSMC'].includes(info(socket).reason.name)); i++) {
    const request = http.request({ agent, method: 'POST', port: server.address().port, host: '127.0.0.1' }).end('x'.repeat(i * 1000));
    const [response] = await once(request, 'response');
    let got = '';
    for await (const chunk of response.setEncoding('utf8')) got += chunk;
    isExact &&= got === 'x'.repeat(i * 1000);
    await pause(10);
  }
  const { mode, reason } = info(socket);
  agent.destroy();
  server.close();
  console.log(JSON.stringify({ isExact, mode, reason: reason.name }));
`;

test('a server of http whose parser hides that it reads in C++', { skip }, async () => {
  const change = `
    import { createRequire } from 'node:module';
    const { HTTPParser } = createRequire(import.meta.url)('node:_http_common');
    Object.defineProperty(HTTPParser.prototype, '_consumed', { get: () => false, set() {} });`;
  assert.deepEqual(await runChanged('', HTTP), { isExact: true, mode: 'SMC-D', reason: 'MOVED' });
  assert.deepEqual(await runChanged(change, HTTP), { isExact: true, mode: 'TCP', reason: 'NATIVE' });
});

test('the program sees nothing of the test', { skip }, async () => {
  const seen = await runChanged(
    `
    import { subscribe } from 'node:diagnostics_channel';
    globalThis.seen = [];
    for (const name of ['net.client.socket', 'net.server.socket', 'tracing:net.server.listen:asyncStart', 'tracing:net.server.listen:asyncEnd'])
      subscribe(name, () => globalThis.seen.push(name.split(':').at(-1)));
    let most = 0;
    const look = () => {
      most = Math.max(most, process._getActiveHandles().filter((one) => one.remoteAddress !== undefined && one.allowHalfOpen).length);
      globalThis.most = most;
      setImmediate(look).unref();
    };
    look();`,
    PROGRAM.replace('log: log.join()', 'log: log.join(), seen, most'),
  );
  assert.equal(seen.mode, 'SMC-D');
  const its = ['asyncEnd', 'asyncStart', 'net.client.socket', 'net.server.socket'];
  assert.deepEqual((seen.seen as string[]).sort(), its);
  assert.equal(seen.most, 2);
});
