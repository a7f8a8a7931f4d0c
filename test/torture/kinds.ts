/** How servers and clients of each kind get the streams that their ends talk on. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net, { type Socket } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import tls from 'node:tls';
import { ROOT } from '../integration/commands.ts';
import type { Ends } from './end.ts';
import { Random } from './plan.ts';
import { HEADER_BYTES, idOf } from './stream.ts';
import { tell } from './words.ts';

const [key, cert] = ['key.pem', 'cert.pem'].map((name) => readFileSync(join(ROOT, 'test/fixtures/tls', name)));
const host = '127.0.0.1';

const codeOf = (error: Error): string => (error as NodeJS.ErrnoException).code ?? error.message;
const stray = (where: string) => (error: Error) => tell({ says: 'stray', text: `${where}: ${codeOf(error)}` });

// --- Servers ---

export interface Served {
  readonly port: number;
  /** Accepts nothing any more. */
  close(): void;
}

export async function serve(ends: Ends): Promise<Served> {
  const { server, close } = makeServer(ends);
  server.listen(0, host);
  await once(server, 'listening');
  return {
    port: (server.address() as { port: number }).port,
    close() {
      server.close();
      close?.();
    },
  };
}

function makeServer(ends: Ends): { readonly server: net.Server; readonly close?: () => void } {
  const { kind } = ends.role;
  switch (kind) {
    case 'echo':
    case 'streams':
    case 'short':
    case 'slow':
    case 'threads':
      return { server: net.createServer((socket) => begin(ends, socket)) };
    case 'pipes': // what is in the streams between has to be written after the client's end
    case 'half':
      return { server: net.createServer({ allowHalfOpen: true }, (socket) => begin(ends, socket)) };
    case 'sticky':
      return stickyServer(ends);
    case 'upgrade':
      return { server: upgradeServer(ends) };
    case 'keepAlive':
    case 'oneShot':
      return { server: httpServer(ends) };
    case 'startTls':
      return { server: net.createServer((socket) => answerLines(ends, socket)) };
    case 'tls': {
      const server = tls.createServer({ key, cert }, (socket) => begin(ends, socket));
      return { server: server.on('tlsClientError', stray('tlsClientError')) };
    }
    case 'h2c':
      return { server: http2Server(ends) };
  }
  kind satisfies never;
}

/** Reads who it is, and talks. */
export function begin(ends: Ends, socket: Socket): void {
  const chunks: Buffer[] = [];
  const failed = stray('before a name was read');
  const take = (chunk: Buffer) => {
    chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    if (bytes.length < HEADER_BYTES) return;
    socket.off('data', take).off('error', failed);
    const id = idOf(bytes);
    if (id === null) {
      tell({ says: 'stray', text: `foreign bytes at the beginning: ${bytes.toString('hex', 0, 64)}` });
      socket.on('error', () => {}).destroy();
      return;
    }
    const end = ends.make(id, 'server');
    end.belongs(socket);
    if (ends.role.kind === 'echo') end.echoes(socket, bytes, []);
    else if (ends.role.kind === 'pipes') end.echoes(socket, bytes, [new PassThrough(), new PassThrough()]);
    else end.reads(socket, bytes);
    void end.plays(socket);
  };
  socket.on('data', take).on('error', failed).resume();
}

function stickyServer(ends: Ends) {
  const env = process.env;
  const child = fork(process.argv[1] as string, process.argv.slice(2), {
    env,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const ready = once(child, 'message');
  const server = net.createServer({ pauseOnConnect: true }, async (socket) => {
    const failed = stray('before it was passed on');
    socket.on('error', failed);
    await ready;
    await sleep(new Random(socket.remotePort ?? 0).between(0, 60));
    if (socket.destroyed) return;
    passOn(ends, child, socket);
  });
  return {
    server,
    close: () => void (child.connected && child.send('leave')),
  };
}

function passOn(ends: Ends, child: ChildProcess, socket: Socket): void {
  try {
    child.send('take it', socket);
  } catch (error) {
    if (codeOf(error as Error) !== 'ERR_ISTHMUS_PASS') throw error;
    begin(ends, socket); // the client does not answer in time: it may be stopped
  }
}

/** What the child of a sticky server does. */
export function takeSockets(ends: Ends): void {
  let isLeaving = false;
  process.on('message', (message, socket) => {
    if (message === 'leave') {
      isLeaving = true;
      // Later: Node.js fails when the channel closes while it hands on messages that came before anybody listened.
      ends.whenNone(() => setImmediate(() => process.connected && process.disconnect()));
    } else if (socket !== undefined) {
      begin(ends, socket as Socket);
    }
  });
  process.on('disconnect', () => {
    if (!isLeaving) process.exit(); // the parent was killed
  });
  process.send?.('ready', () => {}); // the parent may have been killed already
}

const UPGRADED = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n';

function upgradeServer(ends: Ends): net.Server {
  return http.createServer().on('upgrade', (request, socket: Socket, head) => {
    const end = ends.make(Number(request.url?.slice(1)), 'server');
    end.belongs(socket);
    socket.write(UPGRADED);
    socket.unshift(head);
    end.reads(socket);
    void end.plays(socket);
  });
}

function httpServer(ends: Ends): net.Server {
  // Nothing is closed because of the time it takes.
  const options = { keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 };
  return http.createServer(options, (request, response) => {
    const end = ends.make(Number(request.url?.slice(1)), 'server');
    end.belongs(request, request.socket);
    end.belongs(response);
    end.reads(request);
    void end.plays(response);
  });
}

function http2Server(ends: Ends): net.Server {
  const server = http2.createServer();
  server.on('sessionError', stray('sessionError'));
  server.on('stream', (stream, headers) => {
    const end = ends.make(Number(headers[':path']?.slice(1)), 'server');
    end.belongs(stream);
    stream.respond();
    end.reads(stream);
    void end.plays(stream);
  });
  return server as unknown as net.Server;
}

/** Lines are answered; after the last one comes TLS. */
function answerLines(ends: Ends, socket: Socket): void {
  let end: ReturnType<Ends['make']> | null = null;
  const failed = stray('before a name was read');
  socket.on('error', failed);
  const lines = onLines(socket, (line) => {
    if (end === null) {
      socket.off('error', failed);
      end = ends.make(Number(line.slice('HELO '.length)), 'server');
      end.belongs(socket);
    }
    socket.write(`250 ${line}\n`);
    if (line !== 'STARTTLS') return;
    lines.stop();
    const secure = new tls.TLSSocket(socket, { isServer: true, key, cert });
    end.belongs(secure);
    // Node.js keeps what was written before the handshake is done, and does not close before it is: on TCP, too.
    const givesUp = () => secure.destroy();
    secure.once('end', givesUp).once('secure', () => secure.off('end', givesUp));
    end.reads(secure);
    void end.plays(secure);
  });
}

function onLines(socket: Socket, take: (line: string) => void): { stop(): void } {
  let text = '';
  const onData = (chunk: Buffer) => {
    text += chunk.toString('latin1');
    for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n')) {
      const line = text.slice(0, at);
      text = text.slice(at + 1);
      take(line);
    }
  };
  socket.on('data', onData);
  return { stop: () => void socket.off('data', onData) };
}

// --- Clients ---

export interface Dialler {
  /** Leads one life; resolves when it is over. */
  live(id: number, port: number): Promise<void>;
  /** Lets go of connections that are kept. */
  close(): void;
}

export function makeDialler(ends: Ends): Dialler {
  const { kind } = ends.role;
  switch (kind) {
    case 'echo':
    case 'streams':
    case 'short':
    case 'slow':
    case 'pipes':
    case 'threads':
    case 'half':
    case 'sticky':
      return connecting((id, port) => {
        const socket = net.connect({ port, host, allowHalfOpen: kind === 'half' });
        return talkWhen('connect', ends, id, socket);
      });
    case 'tls':
      return connecting((id, port) =>
        talkWhen('secureConnect', ends, id, tls.connect({ port, host, ca: cert, servername: 'localhost' })),
      );
    case 'startTls':
      return connecting((id, port) => sayLines(ends, id, port));
    case 'upgrade':
      return connecting((id, port) => askUpgrade(ends, id, port));
    case 'oneShot':
      return connecting((id, port) => askHttp(ends, id, port, false));
    case 'keepAlive': {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 2 });
      return { live: (id, port) => askHttp(ends, id, port, agent), close: () => agent.destroy() };
    }
    case 'h2c':
      return new Http2Dialler(ends);
  }
  kind satisfies never;
}

function connecting(live: Dialler['live']): Dialler {
  return { live, close() {} };
}

function talkWhen(event: 'connect' | 'secureConnect', ends: Ends, id: number, socket: Socket): Promise<void> {
  const end = ends.make(id, 'client');
  end.belongs(socket);
  end.reads(socket);
  socket.once(event, () => void end.plays(socket));
  return end.over;
}

function askHttp(ends: Ends, id: number, port: number, agent: http.Agent | false): Promise<void> {
  const end = ends.make(id, 'client');
  const request = http.request({ method: 'POST', host, port, path: `/${id}`, agent });
  end.belongs(request);
  request.on('response', (response) => {
    end.belongs(response, response.socket);
    end.reads(response);
  });
  void end.plays(request);
  return end.over;
}

function askUpgrade(ends: Ends, id: number, port: number): Promise<void> {
  const end = ends.make(id, 'client');
  const headers = { connection: 'Upgrade', upgrade: 'bytes' };
  const request = http.request({ host, port, path: `/${id}`, headers, agent: false });
  request.once('error', (error) => end.failed(error));
  request.on('upgrade', (_response, socket: Socket, head) => {
    end.belongs(socket);
    socket.unshift(head);
    end.reads(socket);
    void end.plays(socket);
  });
  request.end();
  return end.over;
}

async function sayLines(ends: Ends, id: number, port: number): Promise<void> {
  const end = ends.make(id, 'client');
  const socket = net.connect(port, host);
  end.belongs(socket);
  const random = new Random(id);
  const lines = Array.from({ length: random.between(0, 6) }, () => `NOOP ${'x'.repeat(random.between(1, 9000))}`);
  const all = [`HELO ${id}`, ...lines, 'STARTTLS'];
  let next = 0;
  const ask = () => socket.write(`${all[next]}\n`);
  const answers = onLines(socket, async (line) => {
    if (line !== `250 ${all[next]}`) tell({ says: 'stray', text: `wrong bytes: answer ${next} of ${id}: ${line}` });
    next++;
    if (next < all.length) {
      await sleep(random.between(0, 20));
      ask();
      return;
    }
    answers.stop();
    const secure = tls.connect({ socket, ca: cert, servername: 'localhost' });
    end.belongs(secure);
    end.reads(secure);
    secure.once('secureConnect', () => void end.plays(secure));
  });
  socket.once('connect', ask);
  await end.over;
}

/** All requests to a server on one connection. */
class Http2Dialler implements Dialler {
  readonly #ends: Ends;
  #session: http2.ClientHttp2Session | null = null;

  constructor(ends: Ends) {
    this.#ends = ends;
  }

  live(id: number, port: number): Promise<void> {
    const end = this.#ends.make(id, 'client');
    try {
      const stream = this.#sessionTo(port).request({ ':method': 'POST', ':path': `/${id}` });
      end.belongs(stream);
      end.reads(stream);
      void end.plays(stream);
    } catch (error) {
      end.failed(error as NodeJS.ErrnoException);
    }
    return end.over;
  }

  #sessionTo(port: number): http2.ClientHttp2Session {
    const old = this.#session;
    if (old !== null && !old.destroyed && !old.closed) return old;
    const session = http2.connect(`http://${host}:${port}`);
    session.on('error', stray('session'));
    this.#session = session;
    return session;
  }

  close(): void {
    this.#session?.close();
  }
}
