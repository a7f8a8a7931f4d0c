/**
 * Every assumption on the inside of node:tls, in one file. TLS reads and writes a stream in C++: mostly a TCP handle, but any
 * JSStream will do, which asks JavaScript for bytes. Any surprise means that nothing moves: TLS may be put on anything.
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { TcpHandle } from './internals.ts';

/** A request of C++, to be finished once. */
export type StreamRequest = object;

/** Node.js' own class: a stream in C++ whose other side is in JavaScript. The first six are asked by C++, and give 0 or an errno. */
export interface JsStream {
  onreadstart(): number;
  onreadstop(): number;
  onwrite(request: StreamRequest, chunks: readonly Buffer[]): number;
  onshutdown(request: StreamRequest): number;
  isClosing(): boolean;
  close(closed?: () => void): void;
  readBuffer(chunk: Buffer): void;
  emitEOF(): void;
  finishWrite(request: StreamRequest, status: number): void;
  finishShutdown(request: StreamRequest, status: number): void;
}

/** Handle of a TLSSocket. */
export interface TlsWrap {
  readonly _parent: TcpHandle | JsStream | null;
  readonly _parentWrap: { readonly constructor: { readonly prototype: AroundStream } } | null;
  enableSessionCallbacks(): void;
  enableKeylogCallback(): void;
}

export interface InternalTlsSocket extends TLSSocket {
  _handle: TlsWrap | null;
  ssl: TlsWrap | null;
  readonly _tlsOptions: { readonly isServer?: boolean };
  _emitTLSError(error: Error): void;
}

type WrapHandle = (this: InternalTlsSocket, wrap: Socket | null, handle: unknown, third: unknown) => TlsWrap;

/** Of the socket that HTTP/2 makes around a stream, and shows to programs: its other methods are those of net.Socket. */
export interface AroundStream {
  readonly stream: unknown;
  readonly _handle: JsStream | null;
  readStart(this: AroundStream): number;
  readStop(this: AroundStream): number;
  doWrite(this: AroundStream, request: StreamRequest, chunks: readonly Buffer[]): number;
}

export interface TlsInternals {
  /** Of all TLSSockets. `_wrapHandle` puts TLS on a handle; without one, on a new handle that is not connected. */
  readonly prototype: { _wrapHandle: WrapHandle };
  readonly JsStream: new () => JsStream;
  /** The prototype. */
  readonly aroundStream: AroundStream;
  /** Puts TLS on another handle instead, as long as nothing was sent: Node.js tries several addresses in this way. */
  reinitialize(socket: InternalTlsSocket, handle: JsStream): void;
}

const TO_CALL = ['readBuffer', 'emitEOF', 'finishWrite', 'finishShutdown'] as const;

/** What was found, or the reason in words why this Node.js is not as expected. Loads node:tls. */
export function findTlsInternals(): TlsInternals | string {
  const tls = process.getBuiltinModule?.('node:tls');
  if (tls === undefined) return 'node:tls was not found';
  const prototype = tls.TLSSocket.prototype as unknown as TlsInternals['prototype'];
  if (typeof prototype._wrapHandle !== 'function' || prototype._wrapHandle.length !== 3)
    return 'TLSSocket.prototype._wrapHandle has changed';
  const symbol = Object.getOwnPropertySymbols(prototype).find(({ description }) => description === REINITIALIZE);
  const reinitialize: unknown = symbol === undefined ? undefined : Reflect.get(prototype, symbol);
  if (typeof reinitialize !== 'function' || reinitialize.length !== 1)
    return `TLSSocket's ${REINITIALIZE} was not found`;
  const { JsStream, aroundStream } = findJsStream(tls.TLSSocket);
  if (JsStream?.name !== 'JSStream') return 'the class JSStream was not found';
  if (aroundStream?.constructor.name !== 'JSStreamSocket') return 'the class JSStreamSocket was not found';
  if (typeof aroundStream.doWrite !== 'function' || aroundStream.doWrite.length !== 2)
    return 'JSStreamSocket.prototype.doWrite has changed';
  for (const name of ['readStart', 'readStop'] as const)
    if (typeof aroundStream[name] !== 'function' || aroundStream[name].length !== 0)
      return `JSStreamSocket.prototype.${name} has changed`;
  for (const name of TO_CALL)
    if (typeof Reflect.get(JsStream.prototype, name) !== 'function') return `JSStream.prototype.${name} was not found`;
  return {
    prototype,
    JsStream,
    aroundStream,
    reinitialize: (socket, handle) => Reflect.apply(reinitialize, socket, [handle]),
  };
}

const REINITIALIZE = 'kReinitializeHandle';

/** Node.js puts both between TLS and a stream that has no handle. */
function findJsStream(Tls: typeof TLSSocket): {
  readonly JsStream: (new () => JsStream) | undefined;
  readonly aroundStream: AroundStream | undefined;
} {
  const nothing = new Duplex({ read() {}, write: (_chunk, _encoding, callback) => callback() });
  const socket = new Tls(nothing as Socket);
  socket.on('error', () => {});
  const { _handle: handle } = socket as InternalTlsSocket;
  const JsStream = handle?._parent?.constructor as (new () => JsStream) | undefined;
  const aroundStream = handle?._parentWrap?.constructor.prototype;
  socket.destroy();
  return { JsStream, aroundStream };
}
