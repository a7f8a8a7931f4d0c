/** Which sockets stay on TCP, as far as it can be seen from outside (facts about each sign: internals.ts). */
import type { Server, Socket } from 'node:net';
import { REASONS, type Reason } from '../smc/reasons.ts';
import { isOfTls, sinkOf } from './below-tls.ts';
import { hasOwnWays, internalsOf, isReadByProgram, SOCKET, type SocketInternals } from './internals.ts';

/** Raw sockets whose handle a TLSSocket has; TLS leaves no sign on them. Filled by wrapping.ts. */
export const underTls = new WeakSet<Socket>();

/** Sockets that another process was given; it may hold them as long as it wants. Filled by passing.ts. */
export const givenAway = new WeakSet<Socket>();

/** Sockets that are connected, which their program has not been told of. Filled by holding.ts. */
export const heldSockets = new WeakSet<Socket>();

/** It is being connected anew. */
export function forgetRefusals(socket: Socket): void {
  for (const refused of [underTls, givenAway, heldSockets]) refused.delete(socket);
}

/** Methods by which the end of a socket is watched. Filled by ending.ts. */
export const watchers = new WeakSet<object>();

/**
 * Why this socket cannot be moved now; null if nothing speaks against it.
 * @param methods that a carrier has put on it
 */
export function whyNot(socket: Socket, methods: Partial<SocketInternals> | null = null): Reason | null {
  const { _handle: handle, encrypted } = internalsOf(socket);
  if (socket.destroyed || handle === null || handle === undefined) return REASONS.ENDED;
  if (encrypted || handle.constructor.name === 'TLSWrap' || underTls.has(socket) || isServedByTls(socket))
    return REASONS.TLS;
  if (givenAway.has(socket)) return REASONS.GIVENAWAY;
  if (handle.constructor.name !== 'TCP') return REASONS.NOTTCP;
  // What the program of a held socket has written and ended waits until it is connected.
  if (!heldSockets.has(socket)) {
    if (socket.connecting) return REASONS.NOTTCP;
    if (socket.writableEnded || socket.readableEnded) return REASONS.HALFCLOSED;
  }
  // A session that found it so reads and writes the stream.
  if (handle.isStreamBase !== false && hasHttp2Session(socket)) return REASONS.HTTP2;
  const isOurs = (name: string, method: unknown) =>
    (methods !== null && Reflect.get(methods, name) === method) ||
    isOfTls(socket, name, method) ||
    (name === '_destroy' && watchers.has(method as object));
  if (isReadByProgram(handle) || hasOwnWays(socket, isOurs)) return REASONS.OVERRIDDEN;
  return null;
}

/** A socket that was accepted by a tls.Server is its raw material. */
function isServedByTls(socket: Socket): boolean {
  return isTlsServer(internalsOf(socket).server) && sinkOf(socket) === null;
}

/** By its method, so that node:tls need not be loaded to ask. */
export function isTlsServer(server: unknown): server is Server {
  return typeof (server as { setSecureContext?: unknown } | null | undefined)?.setSecureContext === 'function';
}

/** The key under which a session hangs on its socket differs (a symbol, or the string 'undefined'), so all are looked at. */
function hasHttp2Session(socket: Socket): boolean {
  return Reflect.ownKeys(socket).some((key) => {
    const value: unknown = Reflect.get(socket, key);
    return typeof value === 'object' && value !== null && /Http2Session$/.test(value.constructor?.name ?? '');
  });
}

/** Whether the http server's parser reads it, in C++. */
export function isConsumed(socket: Socket): boolean {
  return internalsOf(socket).parser?._consumed === true;
}

/** Gives the read side back from the http server's parser, which reads in C++. False when it does not let go. */
export function unconsume(socket: Socket): boolean {
  if (!isConsumed(socket)) return true;
  // The http server un-consumes when somebody listens for 'data'.
  const nobody = () => {};
  socket.on('data', nobody);
  socket.removeListener('data', nobody);
  if (isConsumed(socket)) return false;
  // The stream has asked once, and the answers went to the parser. It asks again only when it has had one, though it were empty: without,
  // a socket that is paused now would never be read again.
  SOCKET.push.call(socket, Buffer.alloc(0));
  return true;
}
