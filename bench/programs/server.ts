/** The server of the benchmark: plain node:net and node:http, knows nothing of Isthmus. */
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { load } from '../packages.ts';
import { type Address, collectGarbage, type Sample, sample, type Window } from './control.ts';
import { describeFirst } from './path.ts';
import { Writer } from './writer.ts';

export interface ListenOptions {
  /** echo: answers each whole message; sink: counts; source: writes as fast as it goes; http: answers requests; ws: echo of WebSockets. */
  readonly kind: 'echo' | 'sink' | 'source' | 'http' | 'ws';
  /** Of a message, of a write, or of the body of an answer. */
  readonly messageBytes: number;
  /** A path: listen there, on a Unix socket. */
  readonly path: string | null;
}

const listeners = new Set<Server>();
const sockets = new Set<Socket>();
let received = 0;
/** Of the last source. */
let writer: Writer | null = null;

export const serverCommands = {
  async listen({ kind, messageBytes, path }: ListenOptions): Promise<Address> {
    const server = SERVERS[kind](messageBytes);
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => {});
    });
    await new Promise<void>((resolve, reject) => {
      server.on('error', reject);
      server.listen(path === null ? { port: 0, host: '127.0.0.1', backlog: 1024 } : { path }, resolve);
    });
    listeners.add(server);
    const address = server.address();
    if (address === null) throw new Error('the server does not listen');
    return typeof address === 'string' ? { path: address } : { port: address.port };
  },

  /** Ends everything that was listened for. */
  close(): void {
    for (const server of listeners) server.close();
    listeners.clear();
    for (const socket of sockets) socket.destroy();
    received = 0;
    writer = null;
  },

  /** How many connections are open. */
  connections: (): number => sockets.size,

  /** What Isthmus says here of an open connection; for a report of failure. */
  describe: (): Promise<string> => describeFirst(sockets),

  /** What the sinks have counted. */
  received: (): number => received,

  sampleReceived: (window: Window): Promise<Sample> => sample(() => received, window),

  /** What the source has written. */
  written,

  sampleWritten: (window: Window): Promise<Sample> => sample(written, window),

  collectServer: collectGarbage,
};

export type ServerCommands = typeof serverCommands;

const SERVERS = {
  echo: (messageBytes: number) => createServer(echo(messageBytes)),
  sink: () => createServer(sink),
  source: (writeBytes: number) => createServer(source(writeBytes)),
  http,
  ws: webSockets,
} as const;

function echo(messageBytes: number): (socket: Socket) => void {
  const message = Buffer.alloc(messageBytes, 's');
  return (socket) => {
    socket.setNoDelay(true);
    let missing = messageBytes;
    socket.on('data', ({ length }) => {
      missing -= length;
      if (missing > 0) return;
      missing += messageBytes;
      socket.write(message);
    });
  };
}

function sink(socket: Socket): void {
  socket.on('data', ({ length }) => {
    received += length;
  });
}

function written(): number {
  return writer?.sent ?? 0;
}

function source(writeBytes: number): (socket: Socket) => void {
  return (socket) => {
    const own = new Writer(socket, writeBytes);
    writer = own;
    socket.on('end', () => own.stop());
    own.start();
  };
}

function http(bodyBytes: number): Server {
  const body = Buffer.alloc(bodyBytes, 's');
  return createHttpServer((request, response) => {
    request.resume();
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bodyBytes });
    response.end(body);
  });
}

/** What is used of the package ws, which comes without types. */
interface WsPackage {
  readonly WebSocketServer: new (
    options: object,
  ) => {
    on(event: 'connection', listener: (socket: WebSocket) => void): { on(event: 'error', listener: () => void): void };
  };
}
interface WebSocket {
  on(event: 'message' | 'error', listener: () => void): WebSocket;
  send(message: Buffer): void;
}

function webSockets(messageBytes: number): Server {
  const { WebSocketServer } = load<WsPackage>('ws');
  const server = createHttpServer();
  const message = Buffer.alloc(messageBytes, 's');
  const sockets = new WebSocketServer({ server, perMessageDeflate: false });
  sockets
    .on('connection', (socket) => {
      socket.on('message', () => socket.send(message)).on('error', () => {});
    })
    .on('error', () => {}); // those of the server, which are heard there
  return server;
}
