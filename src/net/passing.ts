/**
 * Sockets that are given to another process: `child.send(message, socket)` and `spawn(..., { stdio: [socket] })` hand over the
 * descriptor and nothing else; so does whoever gives them a socket's handle or its descriptor. A moved socket is brought back to TCP
 * first; bytes that were received and not read go along in the message, if the child is known to understand it, else the call throws.
 * Nothing is lost silently.
 */
import type { ChildProcess } from 'node:child_process';
import { subscribe } from 'node:diagnostics_channel';
import { Socket } from 'node:net';
import { IsthmusError } from '../ism/errors.ts'; // the whole layer would weigh upon every program
import { findSpawnSync, internalsOf, putBack, TRANSFER } from './internals.ts';
import { givenAway } from './refusals.ts';

export interface Passing {
  /** Brings it back; the bytes that were received and not read. Throws when that cannot be done now. */
  giveAway(socket: Socket): Buffer;
  /** Whether a program with these variables loads Isthmus. */
  loadsIsthmus(env: readonly string[]): boolean;
}

export class PassError extends IsthmusError {
  constructor(message: string) {
    super('ERR_ISTHMUS_PASS', 'local', message);
    this.name = 'PassError';
  }
}

/** Name of the member that a message with unread bytes has; its value is base64. */
const UNREAD = 'isthmus:unread';

const NOTHING = Buffer.alloc(0);

type Send = (message: unknown, handle?: unknown, ...rest: unknown[]) => boolean;
interface Sender {
  send?: Send;
}
interface SpawnOptions {
  readonly stdio?: unknown;
  readonly envPairs?: readonly string[];
}
type Spawn = (options: SpawnOptions) => number;

/**
 * From now on every child process is watched.
 * @param sockets that have moved, or might
 */
export function guardPassing(passing: () => Passing | null, sockets: () => Iterable<Socket>): void {
  subscribe('child_process', (message) => {
    const child = (message as { process: ChildProcess }).process as unknown as Sender & { spawn: Spawn };
    const spawn = child.spawn;
    child.spawn = function (options) {
      giveStdio(options.stdio, passing(), sockets);
      const result = spawn.call(this, options);
      guardSend(this, () => passing()?.loadsIsthmus(options.envPairs ?? []) ?? false, passing, sockets);
      return result;
    };
  });
  const spawner = findSpawnSync();
  if (spawner !== null) {
    const { spawn } = spawner;
    spawner.spawn = function (options) {
      giveStdio((options as SpawnOptions).stdio, passing(), sockets);
      return spawn.call(this, options);
    };
  }
  if (typeof process.send === 'function') {
    // Whether the parent would understand is not known.
    guardSend(process as Sender, () => false, passing, sockets);
    receiveUnread();
  }
}

function giveStdio(stdio: unknown, passing: Passing | null, sockets: () => Iterable<Socket>): void {
  const entries: readonly unknown[] = Array.isArray(stdio) ? stdio : [stdio, stdio, stdio];
  for (const [index, one] of entries.entries()) {
    const entry = socketOf(one === 'inherit' ? index : one, sockets);
    if (entry === null) continue;
    const unread = passing?.giveAway(entry) ?? NOTHING;
    if (unread.length > 0) {
      putBack(entry, unread);
      throw new PassError(
        `${unread.length} bytes of the socket were received through shared memory and not read: a child cannot get them as stdio`,
      );
    }
    givenAway.add(entry);
  }
}

/** The socket that is meant, as Node.js reads entries of stdio: by itself, its descriptor, its handle, or what has either. */
function socketOf(entry: unknown, sockets: () => Iterable<Socket>): Socket | null {
  if (entry instanceof Socket) return entry;
  if (typeof entry !== 'number' && (typeof entry !== 'object' || entry === null)) return null;
  const { fd, handle, _handle } = typeof entry === 'number' ? { fd: entry } : (entry as Record<string, unknown>);
  for (const socket of sockets()) {
    const own = internalsOf(socket)._handle;
    if (own === null) continue;
    if (own === entry || own === handle || own === _handle || (own.fd === fd && own.fd >= 0)) return socket;
  }
  return null;
}

function guardSend(
  sender: Sender,
  understands: () => boolean,
  passing: () => Passing | null,
  sockets: () => Iterable<Socket>,
): void {
  const send = sender.send;
  if (typeof send !== 'function') return;
  sender.send = function (message, handle, ...rest) {
    const socket = socketOf(handle, sockets);
    if (socket === null) return send.call(this, message, handle, ...rest);
    const unread = passing()?.giveAway(socket) ?? NOTHING;
    // To a bare handle nothing can be given back.
    if (unread.length > 0 && !(socket === handle && understands())) {
      putBack(socket, unread);
      throw new PassError(
        `${unread.length} bytes of the socket were received through shared memory and not read: the other process cannot get them, it does not run under isthmus or is the parent`,
      );
    }
    givenAway.add(socket);
    if (unread.length === 0) return send.call(this, message, handle, ...rest);
    return send.call(this, { [UNREAD]: unread.toString('base64'), message }, handle, ...rest);
  };
}

/**
 * From Node.js 24 on a socket on which no byte has passed can be posted to a worker thread. Not this one: its bytes would go another way
 * from the first one on.
 */
export function refuseTransfer(socket: Socket): void {
  if (TRANSFER === undefined) return;
  const value = () => {
    throw new PassError('a connection in shared memory cannot be posted to another thread');
  };
  Object.defineProperty(socket, TRANSFER, { configurable: true, value });
}

/** Once it is closed. */
export function allowTransfer(socket: Socket): void {
  if (TRANSFER !== undefined) Reflect.deleteProperty(socket, TRANSFER);
}

/** In a child: gives a socket the bytes that came along, before the program sees it. */
function receiveUnread(): void {
  const emit = process.emit as (event: string | symbol, ...args: unknown[]) => boolean;
  const patched = function (this: unknown, event: string | symbol, ...args: unknown[]): boolean {
    const [message, handle, ...rest] = args as [Record<string, unknown> | null, unknown];
    const unread = event === 'message' && typeof message === 'object' && message !== null ? message[UNREAD] : undefined;
    if (typeof unread !== 'string' || !(handle instanceof Socket)) return emit.call(this, event, ...args);
    handle.unshift(Buffer.from(unread, 'base64'));
    return emit.call(this, event, message?.message, handle, ...rest);
  };
  process.emit = patched as typeof process.emit;
}
