/** HTTP/1.1 over a pair: the server is given one end as a connection, the agent of a client the other. */
import {
  Agent,
  type ClientRequest,
  createServer,
  type IncomingMessage,
  type RequestListener,
  type RequestOptions,
  request,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import type { Duplex } from 'node:stream';
import { collect, described, type Scene, type SocketPair, type SocketScenario } from './scene.ts';

interface Web {
  readonly server: Server;
  readonly pair: SocketPair;
  readonly log: () => unknown;
  /** A request through an agent that keeps the connection alive, and has no other. */
  ask(options?: RequestOptions): ClientRequest;
}

async function web(scene: Scene, listener: RequestListener, options: ServerOptions = {}): Promise<Web> {
  const server = createServer(options, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)); // its timeouts are looked after from then on
  const pair = await scene.pair({ listen: { allowHalfOpen: true } });
  const log = scene.watch(pair);
  server.emit('connection', pair.server);
  const agent = Object.assign(new Agent({ keepAlive: true, maxSockets: 1 }), { createConnection: () => pair.client });
  scene.atEnd(() => {
    agent.destroy();
    server.closeAllConnections();
    server.close();
  });
  return { server, pair, log, ask: (one = {}) => request({ agent, host: 'there', ...one }) };
}

/** Sends a request; its answer, or the error. */
function answer(asked: ClientRequest, body?: Buffer | string): Promise<string> {
  asked.end(body);
  return answerTo(asked);
}

function answerTo(asked: ClientRequest): Promise<string> {
  return new Promise((resolve) => {
    asked.on('error', (error) => resolve(`error ${described(error)}`));
    asked.on('response', async (response) => resolve(`${response.statusCode} ${await textOf(response)}`));
  });
}

async function textOf(message: IncomingMessage): Promise<string> {
  let text = '';
  try {
    for await (const chunk of message) text += chunk;
  } catch (error) {
    text += ` error ${described(error as Error)}`;
  }
  return text;
}

/** Answers with method, path and the length of the body. */
const tell: RequestListener = async (asked, response) => {
  response.sendDate = false;
  const { length } = await textOf(asked);
  response.end(`${asked.method} ${asked.url} ${length}`);
};

const GET = (path: string) => `GET ${path} HTTP/1.1\r\nHost: there\r\n\r\n`;

/** A server with timeouts; a client that says something by hand, and what comes of it once the connection is closed. */
async function timesOut(scene: Scene, words: string, options: ServerOptions): Promise<unknown> {
  const { pair, log } = await web(scene, tell, { connectionsCheckingInterval: 30, ...options });
  const got = collect(pair.client);
  const closed = new Promise((resolve) => pair.client.on('close', resolve));
  pair.client.write(words);
  await closed;
  await scene.quiet();
  return { log: log(), statuses: got.text.match(/HTTP\/1.1 \d+/g) };
}

export const http = {
  'requests over one connection that is kept alive': async (scene) => {
    const { ask, log } = await web(scene, tell);
    const answers: string[] = [];
    for (let i = 0; i < 10; i++) {
      answers.push(await answer(ask({ method: 'POST', path: `/${i}` }), 'x'.repeat(i * 9_999)));
    }
    return { answers, log: log() };
  },
  'a body in both directions at once': async (scene) => {
    const { ask, log } = await web(scene, (asked, response) => {
      response.sendDate = false;
      asked.pipe(response);
    });
    const asked = ask({ method: 'POST' });
    const answered = answerTo(asked);
    for (let i = 0; i < 30; i++) {
      asked.write(Buffer.alloc(30_000, 65 + i));
      if (i % 10 === 0) await scene.quiet();
    }
    asked.end();
    return { sums: sumsOf(await answered), log: log() };
  },
  pipelining: async (scene) => {
    const { pair } = await web(scene, (asked, response) => {
      response.sendDate = false;
      setTimeout(() => response.end(asked.url), asked.url === '/1' ? 40 : 1);
    });
    const got = collect(pair.client);
    pair.client.write(`${GET('/0') + GET('/1')}GET /2 HT`);
    await scene.quiet();
    pair.client.write(`TP/1.1\r\nHost: there\r\n\r\n${GET('/3')}`);
    await scene.quiet();
    return got.text;
  },
  'pipelining with answers that nobody reads': async (scene) => {
    const { pair } = await web(scene, (_asked, response) => {
      response.sendDate = false;
      response.end(Buffer.alloc(100_000));
    });
    pair.client.pause();
    pair.client.write(GET('/').repeat(100));
    await scene.quiet();
    const got = collect(pair.client);
    pair.client.resume();
    await scene.quiet();
    return { bytes: got.bytes.length, answers: got.text.match(/HTTP\/1.1 200/g)?.length };
  },
  'Upgrade, with bytes behind the head': async (scene) => {
    const { server, ask, log } = await web(scene, tell);
    const lines = scene.log();
    server.on('upgrade', (_asked: IncomingMessage, socket: Duplex, head: Buffer) => {
      lines.add(`head ${head}`);
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: words\r\nConnection: Upgrade\r\n\r\nhello');
      socket.on('data', (chunk) => socket.write(`<${chunk}>`)).on('end', () => socket.end());
    });
    lines.add(await answer(ask({ path: '/before' })));
    const asked = ask({ headers: { connection: 'Upgrade', upgrade: 'words' } });
    asked.end();
    const text = await new Promise<string>((resolve) =>
      asked.on('upgrade', (_response, socket, head) => {
        let all = String(head);
        socket.on('data', (chunk) => {
          all += chunk;
          if (all.endsWith('>')) socket.end();
        });
        socket.on('end', () => resolve(all));
        socket.write('ping');
      }),
    );
    await scene.quiet();
    return { lines: lines.lines, text, log: log() };
  },
  CONNECT: async (scene) => {
    const { server, ask, log } = await web(scene, tell);
    server.on('connect', (asked: IncomingMessage, socket: Duplex, head: Buffer) => {
      socket.write(`HTTP/1.1 200 OK\r\n\r\n${asked.url}${head}`);
      socket.pipe(socket);
    });
    const asked = ask({ method: 'CONNECT', path: 'there:443' });
    asked.end();
    const text = await new Promise<string>((resolve) =>
      asked.on('connect', (_response, socket, head) => {
        let all = String(head);
        socket.on('data', (chunk) => {
          all += chunk;
        });
        socket.on('end', () => resolve(all));
        socket.end('through the tunnel');
      }),
    );
    await scene.quiet();
    return { text, log: log() };
  },
  'Expect: 100-continue': async (scene) => {
    const { ask, log } = await web(scene, tell);
    const lines = [await answer(ask({ path: '/before' }))];
    const asked = ask({ method: 'PUT', headers: { expect: '100-continue' } });
    asked.on('continue', () => {
      lines.push('continue');
      asked.end('body');
    });
    asked.flushHeaders();
    lines.push(await answerTo(asked));
    return { lines, log: log() };
  },
  'a request that is aborted': async (scene) => {
    const events = scene.log();
    const { ask, log } = await web(scene, (asked: IncomingMessage, response: ServerResponse) => {
      response.sendDate = false;
      asked.on('error', (error) => events.add(`request error ${described(error)}`));
      asked.on('close', () => events.add('request close'));
      response.on('close', () => events.add(`response close ${response.writableFinished}`));
      response.write('a part');
    });
    const asked = ask({ method: 'POST', headers: { 'content-length': 100 } });
    asked.on('error', (error) => events.add(`client error ${described(error)}`));
    asked.on('response', (response) => {
      response.on('data', () => asked.destroy());
      response.on('error', (error) => events.add(`answer error ${described(error)}`));
    });
    asked.write('half');
    await scene.quiet();
    return { events: events.lines.sort(), log: log() };
  },
  'a response that is broken off': async (scene) => {
    const { ask, log } = await web(scene, (_asked, response) => {
      response.sendDate = false;
      response.write('a part', () => setImmediate(() => response.destroy()));
    });
    const text = await answer(ask());
    await scene.quiet();
    return { text, log: log() };
  },
  'words that are no HTTP': async (scene) => {
    const { pair, log } = await web(scene, tell);
    const got = collect(pair.client);
    pair.client.write('what is this\r\n\r\n');
    await scene.quiet();
    return { text: got.text, log: log() };
  },
  keepAliveTimeout: (scene) =>
    timesOut(scene, GET('/'), { keepAliveTimeout: 100, keepAliveTimeoutBuffer: 0 } as ServerOptions),
  headersTimeout: (scene) => timesOut(scene, 'GET / HT', { headersTimeout: 600, requestTimeout: 1200 }),
  requestTimeout: (scene) =>
    timesOut(scene, 'POST / HTTP/1.1\r\nHost: there\r\nContent-Length: 10\r\n\r\nab', {
      headersTimeout: 600,
      requestTimeout: 1200,
    }),
  'closeIdleConnections closes what is idle': async (scene) => {
    const { server, ask, log } = await web(scene, tell);
    const first = await answer(ask());
    await scene.quiet();
    server.closeIdleConnections();
    await scene.quiet();
    return { first, log: log() };
  },
  'bytes that come while a client is idle in its agent': async (scene) => {
    const { pair, ask, log } = await web(scene, tell);
    const first = await answer(ask());
    await scene.quiet();
    pair.server.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL');
    await scene.quiet();
    const { destroyed } = pair.client;
    const second = destroyed ? null : await answer(ask({ path: '/second' }));
    await scene.quiet();
    return { first, destroyed, second, log: log() };
  },
} satisfies Record<string, SocketScenario>;

/** Long texts in short: how many of each character. */
function sumsOf(text: string): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const character of text) sums[character] = (sums[character] ?? 0) + 1;
  return sums;
}
