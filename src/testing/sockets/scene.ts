/** What a scenario has at hand: pairs of connected sockets, logs of what happens to them, and a way to wait until nothing does. */
import { once } from 'node:events';
import {
  type NetConnectOpts,
  connect as netConnect,
  createServer as netCreateServer,
  type Server,
  type ServerOpts,
  type Socket,
} from 'node:net';

/** The two ends of one connection, both in this event loop. */
export interface SocketPair {
  readonly client: Socket;
  readonly server: Socket;
  /** Ends what is left of it; settles when both sockets are closed. */
  close(): Promise<void>;
}

export interface SocketPairOptions {
  readonly connect?: Partial<NetConnectOpts>;
  readonly listen?: ServerOpts;
}

/**
 * Makes a pair. Bytes may have passed already, in both directions and as many as it likes; none of them is left unread, and no write is
 * open. A socket with the option `onread` has got them by its callback. `connect` is to be called in the async context of the caller.
 */
export type MakeSocketPair = (options?: SocketPairOptions) => Promise<SocketPair>;

/** What makes a connection; `node:net` and whatever has its interface. */
export interface SocketMaker {
  createServer(options: ServerOpts): Server;
  connect(options: NetConnectOpts): Socket;
}

/** A pair over 127.0.0.1; plain TCP when nothing else is said. */
export async function socketPair(
  options: SocketPairOptions = {},
  { createServer, connect }: SocketMaker = { createServer: netCreateServer, connect: netConnect },
): Promise<SocketPair> {
  const listener = createServer(options.listen ?? {});
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as { port: number };
  const client = connect({ ...options.connect, port, host: '127.0.0.1' } as NetConnectOpts);
  const [[server]] = (await Promise.all([once(listener, 'connection'), once(client, 'connect')])) as [
    [Socket],
    unknown,
  ];
  return {
    client,
    server,
    async close() {
      const open = [client, server].filter((socket) => !socket.closed);
      for (const socket of open) socket.on('error', () => {}).destroy();
      await Promise.all(open.map((socket) => once(socket, 'close')));
      listener.close();
    },
  };
}

/** A scenario gives what a program has seen, as something that can be compared. */
export type SocketScenario = (scene: Scene) => Promise<unknown>;

export const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Nothing has changed for so many looks, which are turns of the loop: a busy machine makes it longer and not different. Together longer
 * than TCP waits with an acknowledgement (40 ms).
 */
const QUIET_LOOKS = 15;
const LOOK_MS = 10;

export class Scene {
  readonly #make: MakeSocketPair;
  readonly #pairs: SocketPair[] = [];
  readonly #cleanups: (() => unknown)[] = [];
  #happened = 0;

  constructor(make: MakeSocketPair) {
    this.#make = make;
  }

  async pair(options?: SocketPairOptions): Promise<SocketPair> {
    const pair = await this.#make(options);
    this.#pairs.push(pair);
    return pair;
  }

  /** A list whose growth is something that happens. */
  log(): { readonly lines: string[]; add(line: string): void } {
    const lines: string[] = [];
    return {
      lines,
      add: (line) => {
        this.#happened++;
        lines.push(line);
      },
    };
  }

  /** Events of both ends, told apart; what happens at one end is ordered, the two ends against each other are not. */
  watch({ client, server }: SocketPair): () => { client: string; server: string } {
    const logs = { client: this.log(), server: this.log() };
    for (const [name, socket] of Object.entries({ client, server }) as ['client' | 'server', Socket][]) {
      for (const event of ['end', 'finish', 'close', 'timeout', 'error']) {
        socket.on(event, (value?: NodeJS.ErrnoException | boolean) =>
          logs[name].add(`${event} ${value instanceof Error ? described(value) : (value ?? '')}`.trim()),
        );
      }
    }
    return () => ({ client: logs.client.lines.join(', '), server: logs.server.lines.join(', ') });
  }

  /** Waits until nothing has happened for a while: no byte has moved, no event come, no state changed. */
  async quiet(): Promise<void> {
    let before = '';
    for (let equal = 0; equal < QUIET_LOOKS; await wait(LOOK_MS)) {
      const now = `${this.#happened} ${this.#pairs.map(({ client, server }) => [client, server].map(standing)).join()}`;
      equal = now === before ? equal + 1 : 0;
      before = now;
    }
  }

  /** To be done before the sockets are closed. */
  atEnd(cleanup: () => unknown): void {
    this.#cleanups.push(cleanup);
  }

  async close(): Promise<void> {
    for (const cleanup of this.#cleanups) await cleanup();
    for (const pair of this.#pairs) await pair.close();
  }
}

function standing(socket: Socket): string {
  return [
    socket.bytesRead,
    socket.bytesWritten,
    socket.readableLength,
    socket.writableLength,
    socket.readyState,
    socket.readableEnded,
    socket.writableFinished,
    socket.closed,
  ].join();
}

export function described(error: NodeJS.ErrnoException): string {
  return `${error.code ?? error.name} ${error.syscall ?? ''}`.trim();
}

/** For the callback of a write: its outcome in a word. */
export function outcome(error: Error | null | undefined): string {
  return error ? ((error as NodeJS.ErrnoException).code ?? error.message) : 'ok';
}

/** Counts what a socket gives by 'data', from now on. */
export function count(socket: Socket): { bytes: number } {
  const got = { bytes: 0 };
  socket.on('data', (chunk: Buffer) => {
    got.bytes += chunk.length;
  });
  return got;
}

export function collect(socket: Socket): { chunks: Buffer[]; readonly bytes: Buffer; readonly text: string } {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  return {
    chunks,
    get bytes() {
      return Buffer.concat(chunks);
    },
    get text() {
      return Buffer.concat(chunks).toString('latin1');
    },
  };
}

/** Bytes of which no part looks like another one nearby. */
export const pattern = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff));
