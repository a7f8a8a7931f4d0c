/** What programs of Node.js talk by, sockets aside: whole messages, or bytes, between the program and what it has started. */
import type { ChildProcess } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import type { MessagePort, Worker } from 'node:worker_threads';
import { load } from '../packages.ts';

export type LineKind = 'ipc-json' | 'ipc-advanced' | 'pipes' | 'zeromq' | 'port-copy' | 'port-transfer';
/** With what is no way to talk, but a limit: see ring.ts. */
export type PeerKind = LineKind | 'ring' | 'memcpy';

/** One end. It takes every message at once, and queues what it has no room for. */
export interface Line {
  /** A message of so many bytes. */
  send(bytes: number): void;
  close(): void;
}

export type Received = (bytes: number) => void;

/** The same message again and again, as with sockets: what making one costs is no matter of the way it goes. */
function reused<T>(make: (bytes: number) => T): (bytes: number) => T {
  const made = new Map<number, T>();
  return (bytes) => {
    const message = made.get(bytes) ?? make(bytes);
    made.set(bytes, message);
    return message;
  };
}

const buffers = reused((bytes) => Buffer.alloc(bytes, 'c'));
/** JSON knows no bytes. A string without anything to escape is the best case. */
const strings = reused((bytes) => 'c'.repeat(bytes));

export function ipcLine(end: ChildProcess | NodeJS.Process, kind: 'ipc-json' | 'ipc-advanced', to: Received): Line {
  const messageOf = kind === 'ipc-json' ? strings : buffers;
  end.on('message', (message: string | Uint8Array) => to(message.length));
  return { send: (bytes) => void end.send?.(messageOf(bytes)), close: () => end.disconnect?.() };
}

export function pipeLine(input: Readable, output: Writable, to: Received): Line {
  input.on('data', ({ length }: Buffer) => to(length));
  output.on('error', () => {}); // the other end is gone, which its end tells
  return { send: (bytes) => void output.write(buffers(bytes)), close: () => output.end() };
}

/** What is transferred is given away: a message that has come can be handed back, in a stream each one needs memory of its own. */
export function portLine(end: Worker | MessagePort, kind: 'port-copy' | 'port-transfer', to: Received): Line {
  let last: Uint8Array<ArrayBuffer> | null = null;
  end.on('message', (message: Uint8Array<ArrayBuffer>) => {
    last = message;
    to(message.length);
  });
  return {
    send(bytes) {
      if (kind === 'port-copy') return end.postMessage(buffers(bytes));
      const message = last?.length === bytes ? last : new Uint8Array(bytes);
      last = null;
      end.postMessage(message, [message.buffer]);
    },
    close() {},
  };
}

interface ZeroMq {
  readonly Pair: new (
    options: object,
  ) => AsyncIterable<[Uint8Array]> & {
    bind(address: string): Promise<void>;
    connect(address: string): void;
    send(message: Uint8Array): Promise<void>;
    close(): void;
  };
}

export async function zeromqLine(path: string, role: 'bind' | 'connect', to: Received): Promise<Line> {
  const { Pair } = load<ZeroMq>('zeromq');
  const socket = new Pair({ linger: 0 });
  await socket[role](`ipc://${path}`);
  const receive = async () => {
    for await (const [message] of socket) to(message.length);
  };
  receive().catch(() => {}); // it was closed
  const waiting: number[] = [];
  let sending = false;
  const sendAll = async () => {
    sending = true;
    // One at a time, as it wants it.
    for (let bytes = waiting.shift(); bytes !== undefined; bytes = waiting.shift()) await socket.send(buffers(bytes));
    sending = false;
  };
  return {
    send(bytes) {
      waiting.push(bytes);
      if (!sending) sendAll().catch(() => {}); // it was closed
    },
    close: () => socket.close(),
  };
}
