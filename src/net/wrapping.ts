/**
 * TLS and HTTP/2 put on a socket that can be moved: they would read and write its handle in C++, below the carrier. On a socket that has
 * an SMC connection they go through a JavaScript stream instead; any other is theirs and stays on TCP.
 *
 * HTTP/2 looks at `handle.isStreamBase`, which the carrier sets to false. TLS is led by its own method `_wrapHandle`.
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import type { Sink } from './carrier.ts';
import { internalsOf } from './internals.ts';
import { underTls } from './refusals.ts';

interface TlsInternals {
  _wrapHandle(wrap: Socket | null, handle: unknown, third: unknown): unknown;
}

type JsStreamSocketClass = new (stream: Duplex) => Duplex & { _handle: unknown };

/**
 * @param attach TLS is being put on this socket. Null: it may have the handle; else it must go through JavaScript, and this leads the
 *   socket's bytes to a sink.
 */
export function guardTls(attach: (socket: Socket) => ((sink: Sink) => void) | null): void {
  const prototype = TLSSocket.prototype as unknown as TlsInternals;
  const original = prototype._wrapHandle;
  if (typeof original !== 'function' || original.length !== 3) return; // then no socket with a TLSSocket on it is known: the byte test finds it
  let JsStreamSocket: JsStreamSocketClass | undefined;
  prototype._wrapHandle = function (wrap, handle, third) {
    if (wrap === null || wrap === undefined || internalsOf(wrap)._handle !== handle)
      return original.call(this, wrap, handle, third);
    const divert = attach(wrap);
    underTls.add(wrap);
    if (divert === null) return original.call(this, wrap, handle, third);
    JsStreamSocket ??= findJsStreamSocket();
    const stream = new JsStreamSocket(new BelowTls(wrap, divert));
    // TLS writes its close_notify also after the connection has gone, which is nobody's business.
    stream.on('error', () => {});
    return original.call(this, stream as unknown as Socket, stream._handle, third);
  };
}

/** The bytes of a socket as TLS sees them in C++: below the socket's own stream, whose listeners and encoding do not matter. */
class BelowTls extends Duplex {
  readonly #socket: Socket;

  constructor(socket: Socket, divert: (sink: Sink) => void) {
    // TLS destroys it. To have ended both ways is no reason: TLS may hold bytes that its program has not read.
    super({ allowHalfOpen: true, autoDestroy: false });
    this.#socket = socket;
    socket.on('close', () => this.destroy());
    divert((chunk) => this.push(chunk));
  }

  override _read(): void {
    const { _handle: handle } = internalsOf(this.#socket);
    if (handle === null || handle.reading) return;
    handle.reading = true;
    handle.readStart();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#socket.write(chunk, callback);
  }

  override _writev(chunks: readonly { readonly chunk: Buffer }[], callback: (error?: Error | null) => void): void {
    this.#socket.write(Buffer.concat(chunks.map(({ chunk }) => chunk)), callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#socket.end(callback);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#socket.destroy();
    callback(error);
  }
}

/** Node.js wraps any Duplex in it that TLS is put on. */
function findJsStreamSocket(): JsStreamSocketClass {
  const nothing = new Duplex({ read() {}, write: (_chunk, _encoding, callback) => callback() });
  const tls = new TLSSocket(nothing as Socket);
  tls.on('error', () => {});
  const handle = (tls as unknown as { _handle: { _parentWrap: { constructor: JsStreamSocketClass } } })._handle;
  const found = handle._parentWrap.constructor;
  tls.destroy();
  return found;
}
