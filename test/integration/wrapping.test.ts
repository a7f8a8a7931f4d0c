import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { eventually } from '../../src/testing/index.ts';
import { cannotMove } from './commands.ts';
import { assertEnded, assertExact, type Ends, POLICIES, runEnds, SIDES, standing } from './exchange.ts';
import { Stage } from './two-programs.ts';

const skip = cannotMove();
let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

/** Both ends end by themselves after the exchange: the client first. */
const LISTEN = `
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
`;

// --- TLS put on later ---

/** As PostgreSQL: eight bytes ask, one byte answers, and TLS is put on in the same tick. */
const POSTGRES = [
  `
  const server = net.createServer((socket) => {
    report(socket, 'socket');
    socket.once('data', (chunk) => {
      if (chunk.length !== 8) tell('failed: ' + chunk.length);
      socket.write('S');
      const secure = new tls.TLSSocket(socket, { isServer: true, key, cert });
      report(secure, 'secure');
      secure.on('end', () => { tell('end'); server.close(); });
      exchange(secure, SERVER_SEED).then(() => secure.resume());
    });
  });
  ${LISTEN}`,
  `
  const socket = net.connect(+args[0], '127.0.0.1');
  report(socket, 'socket');
  socket.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]));
  socket.once('data', (chunk) => {
    if (chunk.toString() !== 'S') tell('failed: ' + chunk);
    const secure = tls.connect({ socket, ca: cert, host: 'localhost' });
    report(secure, 'secure');
    exchange(secure, CLIENT_SEED).then(() => { if (args[1] === 'hold') setInterval(() => secure.write('.'), 10); else secure.end(); });
  });
  `,
] as const;

/**
 * As SMTP: lines go back and forth, then STARTTLS, and TLS is put on with the answer to it. Arguments: lines, bytes of each, bytes of the last
 * answer, whether to wait for a word before STARTTLS, whether the listeners of the plain phase stay ('keep'), or the client reads only when
 * both have ended ('late').
 */
const SMTP = [
  `
  const [, , , lastBytes, , keep] = args;
  const server = net.createServer({ allowHalfOpen: keep === 'late' }, (socket) => {
    report(socket, 'socket');
    let text = '', isSecure = false;
    const onData = (chunk) => {
      if (isSecure) tell('excess: ' + chunk.length);
      text += chunk.toString('latin1');
      for (let end = text.indexOf('\\n'); end >= 0; end = text.indexOf('\\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        if (line !== 'STARTTLS') { socket.write('250 ' + line + '\\n'); continue; }
        socket.write('220 ' + 'g'.repeat(+lastBytes) + 'o\\n');
        if (keep !== 'keep') socket.off('data', onData);
        isSecure = true;
        const secure = new tls.TLSSocket(socket, { isServer: true, key, cert });
        report(secure, 'secure');
        secure.on('end', () => { tell('end'); server.close(); });
        if (keep === 'late') {
          receive(secure, 1000).then((chunks) => { tell('got ' + digest(chunks)); secure.end(streamOf(SERVER_SEED, 1000)); });
          continue;
        }
        exchange(secure, SERVER_SEED).then(() => secure.resume());
      }
    };
    socket.on('data', onData);
  });
  ${LISTEN}`,
  `
  const [port, lines, lineBytes, , wait, keep] = args;
  const socket = net.connect(+port, '127.0.0.1');
  report(socket, 'socket');
  let text = '', isSecure = false, answered = () => {};
  const onData = (chunk) => {
    if (isSecure) tell('excess: ' + chunk.length);
    text += chunk.toString('latin1');
    if (!text.endsWith('\\n')) return;
    const line = text;
    text = '';
    answered(line);
  };
  socket.on('data', onData);
  const ask = (line) => new Promise((resolve) => { answered = resolve; socket.write(line + '\\n'); });
  for (let i = 0; i < +lines; i++) {
    const line = 'NOOP ' + i + ' ' + 'x'.repeat(+lineBytes);
    if (await ask(line) !== '250 ' + line + '\\n') tell('failed: answer ' + i);
  }
  if (wait === 'wait') {
    tell('plain');
    let go = false;
    told('go', () => { go = true; });
    for (let i = 0; !go; i++) { await ask('NOOP'); await pause(5); }
  }
  answered = (line) => {
    if (!/^220 g*o\\n$/.test(line)) tell('failed: ' + line.length);
    if (keep !== 'keep') socket.off('data', onData);
    isSecure = true;
    const secure = tls.connect({ socket, ca: cert, host: 'localhost' });
    report(secure, 'secure');
    if (keep === 'late') {
      secure.end(streamOf(CLIENT_SEED, 1000));
      setTimeout(async () => { tell('got ' + digest(await receive(secure, 1000))); process.stdin.destroy(); }, 300);
      return;
    }
    exchange(secure, CLIENT_SEED).then(() => { secure.end(); process.stdin.destroy(); });
  };
  socket.write('STARTTLS\\n');
  `,
] as const;

// --- Protocols whose readers are in C++ ---

/** One stream is the body of a request, the other that of the response. */
const HTTP1 = (module: 'http' | 'https') =>
  [
    `
  import web from 'node:${module}';
  const server = web.createServer({ key, cert }, (request, response) => {
    const received = receive(request, LENGTH).then((chunks) => tell('got ' + digest(chunks)));
    const over = once(request, 'end'); // or the server would reset a connection on which the end of the request stands unread
    Promise.all([received, over, send(response, streamOf(SERVER_SEED, LENGTH))]).then(() => response.end(() => server.close()));
  });
  ${LISTEN}`,
    `
  import web from 'node:${module}';
  const request = web.request({ method: 'POST', port: +args[0], host: '127.0.0.1', servername: 'localhost', ca: cert, agent: false });
  report(request, 'request');
  send(request, streamOf(CLIENT_SEED, LENGTH)).then(() => request.end());
  request.on('response', (response) => receive(response, LENGTH).then((chunks) => tell('got ' + digest(chunks))));
  `,
  ] as const;

/** The body of the request is read when the connection was looked at already, and the parser has paused it. */
const LATE_BODY = [
  HTTP1('http')[0].replace('(request, response) => {', 'async (request, response) => { await pause(200);'),
  HTTP1('http')[1],
] as const;

/** The same in sixteen requests over one connection. */
const KEEP_ALIVE = [
  `
  import http from 'node:http';
  const stream = streamOf(SERVER_SEED, LENGTH), chunks = [], PIECE = LENGTH / 16;
  let count = 0;
  const server = http.createServer((request, response) => {
    request.on('data', (chunk) => chunks.push(chunk)).on('end', () => {
      response.end(stream.subarray(count * PIECE, ++count * PIECE));
      if (count === 16) { tell('got ' + digest(chunks)); server.close(); }
    });
  });
  ${LISTEN}`,
  `
  import http from 'node:http';
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const stream = streamOf(CLIENT_SEED, LENGTH), chunks = [], PIECE = LENGTH / 16, sockets = new Set();
  for (let i = 0; i < 16; i++) {
    const request = http.request({ method: 'POST', port: +args[0], host: '127.0.0.1', agent });
    report(request, 'request');
    request.end(stream.subarray(i * PIECE, (i + 1) * PIECE));
    const [response] = await once(request, 'response');
    sockets.add(response.socket);
    for await (const chunk of response) chunks.push(chunk);
    await pause(10);
  }
  if (sockets.size !== 1) tell('failed: connections ' + sockets.size);
  tell('got ' + digest(chunks));
  agent.destroy();
  `,
] as const;

/** The socket is taken over, with bytes that came with the head. */
const UPGRADE = [
  `
  import http from 'node:http';
  const server = http.createServer();
  server.on('upgrade', (request, socket, head) => {
    report(socket, 'socket');
    socket.on('end', () => { socket.end(); server.close(); });
    socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: bytes\\r\\n\\r\\n');
    socket.unshift(head);
    exchange(socket, SERVER_SEED).then(() => socket.resume());
  });
  ${LISTEN}`,
  `
  import http from 'node:http';
  const request = http.request({ port: +args[0], host: '127.0.0.1', headers: { connection: 'Upgrade', upgrade: 'bytes' } });
  report(request, 'request');
  request.on('upgrade', (response, socket, head) => {
    report(socket, 'socket');
    socket.unshift(head);
    exchange(socket, CLIENT_SEED).then(() => socket.end());
  });
  request.end();
  `,
] as const;

/** A tunnel, in which TLS follows. */
const CONNECT = [
  `
  import http from 'node:http';
  const server = http.createServer();
  server.on('connect', (request, socket, head) => {
    report(socket, 'socket');
    socket.write('HTTP/1.1 200 OK\\r\\n\\r\\n');
    if (head.length > 0) socket.unshift(head);
    const secure = new tls.TLSSocket(socket, { isServer: true, key, cert });
    report(secure, 'secure');
    secure.on('end', () => server.close());
    exchange(secure, SERVER_SEED).then(() => secure.resume());
  });
  ${LISTEN}`,
  `
  import http from 'node:http';
  const request = http.request({ method: 'CONNECT', path: 'there:443', port: +args[0], host: '127.0.0.1' });
  report(request, 'request');
  request.on('connect', (response, socket, head) => {
    if (head.length > 0) socket.unshift(head);
    const secure = tls.connect({ socket, ca: cert, servername: 'localhost' });
    report(secure, 'secure');
    exchange(secure, CLIENT_SEED).then(() => secure.end());
  });
  request.end();
  `,
] as const;

const HTTP2 = (scheme: 'http' | 'https') =>
  [
    `
  import http2 from 'node:http2';
  const server = http2.${scheme === 'http' ? 'createServer' : 'createSecureServer'}({ key, cert });
  server.on('stream', (stream) => {
    report(stream, 'stream');
    stream.respond();
    exchange(stream, SERVER_SEED).then(() => { stream.end(); server.close(); });
  });
  ${LISTEN}`,
    `
  import http2 from 'node:http2';
  const session = http2.connect('${scheme}://127.0.0.1:' + args[0], { ca: cert });
  report(session, 'session');
  const stream = session.request({ ':method': 'POST' });
  report(stream, 'stream');
  exchange(stream, CLIENT_SEED).then(() => { stream.end(); session.close(); });
  `,
  ] as const;

/** The first bytes tell what a connection is, and it is given to a server of that kind a moment later. */
const SNIFFED = (module: 'http' | 'http2') =>
  [
    `
  import web from 'node:${module}';
  const inner = web.createServer();
  const taken = (request, response) => {
    const received = receive(request, LENGTH).then((chunks) => tell('got ' + digest(chunks)));
    const over = once(request, 'end'); // or the server would reset a connection on which the end of the request stands unread
    Promise.all([received, over, send(response, streamOf(SERVER_SEED, LENGTH))]).then(() => response.end(() => server.close()));
  };
  inner.on('request', taken);
  const server = net.createServer((socket) => {
    report(socket, 'socket');
    socket.once('data', async (chunk) => {
      socket.pause();
      socket.unshift(chunk);
      await pause(process.pid % 7);
      inner.emit('connection', socket);
      socket.resume();
    });
  });
  ${LISTEN}`,
    module === 'http' ? HTTP1('http')[1] : HTTP2('http')[1],
  ] as const;

/** Bytes that are read into a buffer of the program. */
const ONREAD = (buffer: string) =>
  [
    `
  const server = net.createServer((socket) => {
    report(socket, 'socket');
    socket.on('end', () => { socket.end(); server.close(); });
    exchange(socket, SERVER_SEED).then(() => socket.resume());
  });
  ${LISTEN}`,
    `
  const chunks = [];
  let got = 0;
  const callback = (length, buffer) => {
    chunks.push(Buffer.from(buffer.subarray(0, length)));
    got += length;
    if (got < LENGTH) return true;
    tell('got ' + digest(chunks));
    sent.then(() => socket.end());
    return true;
  };
  const socket = net.connect({ port: +args[0], host: '127.0.0.1', onread: { buffer: ${buffer}, callback } });
  report(socket, 'socket');
  const sent = send(socket, streamOf(CLIENT_SEED, LENGTH));
  `,
  ] as const;

const PROTOCOLS = {
  http: HTTP1('http'),
  https: HTTP1('https'),
  'http whose body is read late': LATE_BODY,
  'HTTP keep-alive': KEEP_ALIVE,
  'HTTP Upgrade': UPGRADE,
  'HTTP CONNECT with TLS inside': CONNECT,
  h2c: HTTP2('http'),
  'HTTP/2 over TLS': HTTP2('https'),
  'http on a connection that was sniffed at': SNIFFED('http'),
  'h2c on a connection that was sniffed at': SNIFFED('http2'),
  'onread with one buffer': ONREAD('Buffer.alloc(20000)'),
  'onread with many buffers': ONREAD('() => Buffer.alloc(20000)'),
} as const;

/** Asks and answers until told to end; each answer is the question. `ask(text)` is the protocol's. */
const LOOP = `
  let go = true;
  told('end', () => { go = false; process.stdin.destroy(); });
  const loop = async (ask) => {
    for (let i = 0; go; i++) {
      const text = i + ' ' + 'x'.repeat(i % 3000);
      const answer = await ask(text);
      if (answer !== text) tell('failed: ' + answer.length + ' instead of ' + text.length);
      await pause(2);
    }
  };
  const text = async (stream) => { let all = ''; for await (const chunk of stream.setEncoding('latin1')) all += chunk; return all; };
`;

const LASTING_HTTP2 = (scheme: 'http' | 'https') =>
  [
    `
  import http2 from 'node:http2';
  const server = http2.${scheme === 'http' ? 'createServer' : 'createSecureServer'}({ key, cert });
  server.on('session', (session) => session.on('close', () => server.close()));
  server.on('stream', (stream) => { stream.respond(); stream.pipe(stream); });
  ${LISTEN}`,
    `${LOOP}
  import http2 from 'node:http2';
  const session = http2.connect('${scheme}://127.0.0.1:' + args[0], { ca: cert });
  report(session, 'session');
  loop((question) => { const stream = session.request({ ':method': 'POST' }); stream.end(question); return text(stream); }).then(() => session.close());
  `,
  ] as const;

/** What reads in C++, from the first byte on, for as long as it is let. */
const LASTING = {
  TLS: [
    `
  const server = tls.createServer({ key, cert }, (socket) => { report(socket, 'socket'); socket.pipe(socket); socket.on('close', () => server.close()); });
  ${LISTEN}`,
    `${LOOP}
  const socket = tls.connect({ port: +args[0], host: '127.0.0.1', servername: 'localhost', ca: cert });
  report(socket, 'socket');
  let all = '', wanted = 0, answered;
  socket.setEncoding('latin1').on('data', (chunk) => { all += chunk; if (all.length === wanted) answered(all); });
  loop((question) => { all = ''; wanted = question.length; socket.write(question); return new Promise((resolve) => { answered = resolve; }); }).then(() => socket.end());
  `,
  ],
  https: [
    `
  import https from 'node:https';
  const server = https.createServer({ key, cert }, (request, response) => { request.pipe(response); });
  server.on('secureConnection', (socket) => socket.on('close', () => server.close()));
  ${LISTEN}`,
    `${LOOP}
  import https from 'node:https';
  const agent = new https.Agent({ keepAlive: true, ca: cert });
  loop((question) => new Promise((resolve, reject) => {
    const request = https.request({ method: 'POST', port: +args[0], host: 'localhost', agent }, (response) => resolve(text(response)));
    request.on('error', reject).end(question);
  })).then(() => agent.destroy());
  `,
  ],
  h2c: LASTING_HTTP2('http'),
  'HTTP/2 over TLS': LASTING_HTTP2('https'),
} as const;

async function bothMove({ server, client }: Ends): Promise<void> {
  for (const one of [server, client])
    await eventually('it moves', () => standing(one).join() === 'SMC-D').catch((error) =>
      assert.fail(`${error.message}: ${JSON.stringify([standing(one), one.lines, one.stderr, one.child.exitCode])}`),
    );
}

/** Lets the plain phase last until both ends have moved. */
async function movedThenGo({ server, client }: Ends): Promise<void> {
  await client.says('plain');
  const why = () => JSON.stringify([server, client].map((one) => [standing(one), one.lines, one.stderr]));
  await eventually('both ends have moved', () =>
    [server, client].every((one) => standing(one).every((each) => each === 'SMC-D') && one.connections.length === 1),
  ).catch((error) => assert.fail(`${error.message}: ${why()}`));
  client.tell('go');
}

for (const policy of POLICIES) {
  for (const side of SIDES) {
    test(`TLS after one byte, as PostgreSQL does: ${policy}, ${side}`, { skip }, async () => {
      const ends = await runEnds(stage, POSTGRES, policy, side);
      await assertExact(ends);
      await assertEnded(ends);
    });

    for (const [what, programs] of Object.entries(PROTOCOLS)) {
      test(`${what}: ${policy}, ${side}`, { skip }, async () => {
        const ends = await runEnds(stage, programs, policy, side);
        await assertExact(ends);
        await assertEnded(ends);
      });
    }

    for (const [what, args] of [
      ['three lines', [3, 20, 0]],
      ['many lines', [150, 2000, 0]],
      ['a last answer longer than any ring', [3, 20, 300_000]],
    ] as const) {
      test(`TLS after ${what}, as SMTP does: ${policy}, ${side}`, { skip }, async () => {
        const ends = await runEnds(stage, SMTP, policy, side, args);
        await assertExact(ends);
        await assertEnded(ends);
      });
    }
  }

  test(`TLS put on before anything was loaded moves: ${policy}`, { skip }, async () => {
    const ends = await runEnds(stage, POSTGRES, policy, 'both ends', ['hold']);
    await assertExact(ends);
    await bothMove(ends);
  });

  for (const [what, programs] of Object.entries(LASTING)) {
    test(`${what} from the beginning moves: ${policy}`, { skip }, async () => {
      const ends = await runEnds(stage, programs, policy, 'both ends');
      await bothMove(ends);
      ends.client.tell('end');
      await assertEnded(ends);
      for (const { lines } of [ends.client, ends.server])
        assert.deepEqual(
          lines.filter((line) => /^failed|error/.test(line)),
          [],
        );
    });
  }

  for (const [what, args] of [
    ['', [10, 3000, 0, 'wait']],
    [', with a last answer longer than any ring', [10, 3000, 300_000, 'wait']],
    [', whose plain listeners stay', [10, 3000, 0, 'wait', 'keep']],
  ] as const) {
    test(`TLS put on a moved connection${what}: ${policy}`, { skip }, async () => {
      const ends = await runEnds(stage, SMTP, policy, 'both ends', args);
      await movedThenGo(ends);
      await assertExact(ends);
      await assertEnded(ends);
    });
  }

  test(`what TLS on a moved connection holds when both have ended is read later: ${policy}`, { skip }, async () => {
    const ends = await runEnds(stage, SMTP, policy, 'both ends', [10, 3000, 0, 'wait', 'late']);
    await movedThenGo(ends);
    await assertExact(ends, 1000);
    await assertEnded(ends);
  });
}
