/**
 * TLS and HTTP/2 on sockets that can be moved: they would read and write the handle in C++, below the carrier, for good. Where the
 * peer can be of this host they are led through JavaScript from the beginning; everywhere else they have the handle.
 *
 * HTTP/2 looks at `handle.isStreamBase`. TLS is led by its own method `_wrapHandle`; that of a client, whose handle is made before it
 * is known where it connects to, is put on another handle at the last moment.
 */
import { Server, Socket } from 'node:net';
import { BelowTls, inPieces, type Sink, socketAround, statusOf, writeTo } from './below-tls.ts';
import { Feeder } from './feeder.ts';
import { internalsOf, type TcpHandle } from './internals.ts';
import { HTTP2_FRAME, HTTP2_PREFACE_BYTES, Records } from './records.ts';
import { isTlsServer, underTls } from './refusals.ts';
import {
  type AroundStream,
  findTlsInternals,
  type InternalTlsSocket,
  type TlsInternals,
  type TlsWrap,
} from './tls-internals.ts';

export interface Wrapping {
  /** TLS is being put on this socket. Null: it may have the handle; else this leads the socket's bytes to a sink. */
  attach(socket: Socket): ((sink: Sink) => void) | null;
  /** Whether a client of TLS that connects there is led through JavaScript. */
  leads(tls: Socket, address: string, port: number): boolean;
  /** Whether HTTP/2 is, on a socket that was accepted. */
  leadsAccepted(socket: Socket): boolean;
  /** Whether HTTP/2 is, on a socket that is about to connect. @param args of Socket.prototype.connect */
  leadsClient(args: readonly unknown[]): boolean;
  /** A server has a connection. True: what is asked before everybody else was put over `emit` just now. */
  accepting(): boolean;
  /** It has connected: this is the socket below it. */
  connected(socket: Socket): void;
}

/**
 * Of a TLSSocket, the socket below it. A property, since HTTP/2 shows programs a proxy of its socket; the same for all copies of the
 * package.
 */
const BELOW = Symbol.for('isthmus.below');

/** The socket that can be moved: the one below TLS, below HTTP/2's stream around it, or this one. */
export function lowest(socket: Socket): Socket {
  const { [BELOW]: below, stream } = socket as { [BELOW]?: Socket; stream?: unknown };
  return below ?? (stream instanceof Socket ? stream : socket);
}

/** Null until every TLSSocket is known. */
let found: TlsInternals | string | null = null;

/**
 * From now on every TLSSocket is known. Loads node:tls, so it is called as late as can be. Null, or the reason in words why it cannot
 * be: then nothing is to be moved, since TLS may be put on anything.
 */
export function guardTls(wrapping: Wrapping): string | null {
  found ??= guard(wrapping);
  return typeof found === 'string' ? found : null;
}

function guard(wrapping: Wrapping): TlsInternals | string {
  const internals = findTlsInternals();
  if (typeof internals === 'string') return internals;
  const { prototype } = internals;
  const original = prototype._wrapHandle;
  prototype._wrapHandle = function (wrap, handle, third) {
    if (wrap === null || wrap === undefined) {
      const wrapped = original.call(this, wrap, handle, third);
      watchConnect(this, wrapped, internals, wrapping);
      return wrapped;
    }
    if (internalsOf(wrap)._handle !== handle) return original.call(this, wrap, handle, third);
    const divert = wrapping.attach(wrap);
    if (divert === null) {
      underTls.add(wrap);
      Reflect.deleteProperty(handle as TcpHandle, 'isStreamBase');
      return original.call(this, wrap, handle, third);
    }
    const over = new BelowTls(internals, handle as TcpHandle);
    put(this, wrap, over, divert);
    return original.call(this, null, over.stream, third);
  };
  askBelow(internals.aroundStream);
  readByFrames(internals.aroundStream);
  writeAtOnce(internals.aroundStream);
  return internals;
}

/** What HTTP/2's socket is asked for, and knows only where it has the handle. */
const ASKED_BELOW = ['_getpeername', '_getsockname', 'ref', 'unref', 'setNoDelay', 'setKeepAlive'] as const;

function askBelow(aroundStream: object): void {
  for (const name of ASKED_BELOW) {
    const method: unknown = Reflect.get(aroundStream, name);
    if (typeof method !== 'function') continue;
    Reflect.set(aroundStream, name, function (this: { readonly stream: unknown }, ...args: unknown[]): unknown {
      const { stream } = this;
      if (!isLedHttp2(stream)) return Reflect.apply(method, this, args);
      const answer: unknown = Reflect.apply(Reflect.get(stream, name), stream, args);
      return answer === stream ? this : answer;
    });
  }
}

/** Of the streams that HTTP/2 reads. */
const feeders = new WeakMap<AroundStream, Feeder>();

/** Frame by frame, see feeder.ts. */
function readByFrames(aroundStream: AroundStream): void {
  const { readStart, readStop } = aroundStream;
  aroundStream.readStart = function () {
    const feeder = feeders.get(this) ?? feedByFrames(this);
    if (feeder === null) return readStart.call(this);
    feeder.wants = true;
    return feeder.isBusy ? 0 : readStart.call(this);
  };
  aroundStream.readStop = function () {
    const feeder = feeders.get(this);
    if (feeder !== undefined) feeder.wants = false;
    return readStop.call(this);
  };

  function feedByFrames(around: AroundStream): Feeder | null {
    const { _handle: handle, stream } = around;
    if (!isLedHttp2(stream) || handle === null) return null;
    const { readBuffer, emitEOF } = handle;
    const isServer = internalsOf(stream).server != null;
    const feeder = new Feeder(new Records(HTTP2_FRAME, isServer ? HTTP2_PREFACE_BYTES : 0), {
      isOpen: () => around._handle === handle,
      feed: (frame) => readBuffer.call(handle, frame),
      end: () => emitEOF.call(handle),
      drained: () => void readStart.call(around),
    });
    feeders.set(around, feeder);
    handle.readBuffer = (chunk) => {
      if (!feeder.take(chunk, stream.readableLength > 0)) readStop.call(around);
    };
    handle.emitEOF = () => void feeder.take(null);
    return feeder;
  }
}

/** Node.js' own way of writing waits a turn of the event loop for each write, also where that has long been done. */
function writeAtOnce(aroundStream: AroundStream): void {
  const { doWrite } = aroundStream;
  aroundStream.doWrite = function (request, chunks) {
    const { stream, _handle: handle } = this;
    if (!isLedHttp2(stream) || handle === null || !stream.writable) return doWrite.call(this, request, chunks);
    writeTo(stream, inPieces(chunks), (error) => handle.finishWrite(request, statusOf(error)));
    return 0;
  };
}

function put(tls: InternalTlsSocket, socket: Socket, over: BelowTls, divert: (sink: Sink) => void): void {
  Object.defineProperty(tls, BELOW, { value: socket, configurable: true });
  // Of reading, as where TLS has the handle: behind its end it hears of none. Node.js' own listener, which comes after this, would tell
  // of it and end nothing; of all others it tells.
  socket.on('error', (error) => {
    if (!isOfReading(error)) return;
    tls._emitTLSError = () => {};
    if (!internalsOf(tls)._readableState.ended) tls.destroy(error);
  });
  socket.on('close', () => {
    if (!isOfReading(socket.errored)) tls.destroy();
  });
  over.open(socket, divert);
}

function isOfReading(error: NodeJS.ErrnoException | null): boolean {
  return error?.syscall === 'read';
}

// --- Clients of TLS ---

/** A TLSSocket that is about to connect, whose like was not guarded when it was made. */
export function watchTlsClient(socket: Socket, wrapping: Wrapping): void {
  if (found !== null) return; // it was
  found = guard(wrapping);
  const tls = socket as InternalTlsSocket;
  if (typeof found === 'object' && tls._handle !== null) watchConnect(tls, tls._handle, found, wrapping);
}

/** Node.js calls these on the handle of a TLSSocket, which hands them on to the one below. */
const CONNECT = ['connect', 'connect6'] as const;
const BIND = ['bind', 'bind6'] as const;
/** What a program may say to the handle of a TLSSocket before it connects. Not all versions have all. */
const SAID = ['enableTrace', 'setMaxSendFragment', 'setSession', 'setServername', 'setKeyCert'] as const;
/** [method, arguments] */
type Said = readonly [string, readonly unknown[]];
type Connect = (request: ConnectRequest, address: string, ...rest: unknown[]) => number;
interface ConnectRequest {
  oncomplete: (status: number, handle: unknown, ...rest: unknown[]) => void;
}

function watchConnect(tls: InternalTlsSocket, wrapped: TlsWrap, internals: TlsInternals, wrapping: Wrapping): void {
  const handle = wrapped._parent;
  if (tls._tlsOptions.isServer || handle?.constructor.name !== 'TCP') return;
  const forget = () => {
    for (const name of [...CONNECT, ...BIND, ...SAID]) Reflect.deleteProperty(wrapped, name);
  };
  const said: Said[] = [];
  for (const name of SAID) {
    const method: unknown = Reflect.get(wrapped, name);
    if (typeof method !== 'function') continue;
    Reflect.set(wrapped, name, (...args: unknown[]) => {
      said.push([name, args]);
      return Reflect.apply(method, wrapped, args);
    });
  }
  for (const name of BIND) {
    Reflect.set(wrapped, name, (...args: unknown[]) => {
      forget(); // a handle that is bound cannot be replaced by another
      return Reflect.apply(Reflect.get(wrapped, name), wrapped, args);
    });
  }
  for (const name of CONNECT) {
    const connect: Connect = (request, address, ...rest) => {
      forget();
      const native: Connect = Reflect.get(wrapped, name);
      if (!wrapping.leads(tls, address, Number(rest[0]))) return native.call(wrapped, request, address, ...rest);
      const fresh = new (handle.constructor as new (type: number) => TcpHandle)(TCP_SOCKET);
      if ((handle as TcpHandle).hasRef?.() === false) fresh.unref();
      connectBelow(tls, fresh, request, said, internals, wrapping);
      return Reflect.apply(Reflect.get(fresh, name) as Connect, fresh, [request, address, ...rest]);
    };
    Reflect.set(wrapped, name, connect);
  }
}

/** As net makes its handles. */
const TCP_SOCKET = 0;

function connectBelow(
  tls: InternalTlsSocket,
  handle: TcpHandle,
  request: ConnectRequest,
  said: readonly Said[],
  internals: TlsInternals,
  wrapping: Wrapping,
): void {
  const over = new BelowTls(internals, handle);
  internals.reinitialize(tls, over.stream);
  const wrapped = tls._handle;
  tls.ssl = wrapped;
  // Said to the handle before, and not of those things that Node.js says again.
  if (tls.listenerCount('session') > 0) wrapped?.enableSessionCallbacks();
  if (tls.listenerCount('keylog') > 0) wrapped?.enableKeylogCallback();
  if (wrapped !== null) for (const [name, args] of said) Reflect.apply(Reflect.get(wrapped, name), wrapped, args);
  const { oncomplete } = request;
  request.oncomplete = function (status, _handle, ...rest) {
    if (status === 0 && !over.isClosed) {
      const socket = socketAround(handle);
      put(tls, socket, over, leadTo(socket));
      wrapping.connected(socket);
    }
    // By the handle it finds the TLSSocket.
    oncomplete.call(this, status, wrapped, ...rest);
  };
}

/** Leads the bytes of a socket that nothing else of ours is on. */
export function leadTo(socket: Socket): (sink: Sink) => void {
  return (sink) => {
    internalsOf(socket).push = sink;
  };
}

// --- Servers ---

type Emit = (event: string | symbol, ...args: unknown[]) => boolean;

/** Sockets are prepared before their server's listeners put TLS or HTTP/2 on them, whoever emits 'connection'. */
export function prepareConnections(wrapping: Wrapping): void {
  const emit = Server.prototype.emit as Emit;
  const patched = function (this: Server, ...args: [string | symbol, ...unknown[]]): boolean {
    if (args[0] === 'connection' && args[1] instanceof Socket) {
      if (wrapping.accepting()) return Reflect.apply(Server.prototype.emit as Emit, this, args);
      const isKnown = guardIfLoaded(wrapping);
      if (isKnown && isHttp2Server(this) && wrapping.leadsAccepted(args[1])) leadHttp2(args[1]);
    }
    return Reflect.apply(emit, this, args);
  };
  (Server.prototype as unknown as { emit: Emit }).emit = patched;
}

/** Of HTTP/2 without TLS. By its method, so that node:http2 need not be loaded to ask. */
function isHttp2Server(server: Server): boolean {
  return typeof (server as { updateSettings?: unknown }).updateSettings === 'function' && !isTlsServer(server);
}

/**
 * HTTP/2 is put on a client's socket before it is connected. It brings node:tls, which also looks at the handle, so that it has to
 * be guarded; without it neither can be put on anything.
 * @param args of Socket.prototype.connect
 */
export function leadClient(socket: Socket, args: readonly unknown[], wrapping: Wrapping): void {
  if (guardIfLoaded(wrapping) && wrapping.leadsClient(args)) leadHttp2(socket);
}

/** Whether every TLSSocket is known that there will be. */
function guardIfLoaded(wrapping: Wrapping): boolean {
  return isTlsLoaded() && guardTls(wrapping) === null;
}

function isTlsLoaded(): boolean {
  if (found !== null) return true;
  const { moduleLoadList: loaded } = process as { moduleLoadList?: readonly string[] };
  if (loaded === undefined) return true;
  if (loaded.length === looked) return false;
  looked = loaded.length;
  return loaded.includes('NativeModule tls');
}
/** How many modules were loaded when it was not. */
let looked = 0;

function isLedHttp2(stream: unknown): stream is Socket {
  return stream instanceof Socket && internalsOf(stream)._handle?.isStreamBase === false;
}

/** From now on HTTP/2 that is put on this socket reads and writes its stream. */
function leadHttp2(socket: Socket): void {
  const { _handle: handle } = internalsOf(socket);
  if (handle?.constructor.name === 'TCP')
    Object.defineProperty(handle, 'isStreamBase', { configurable: true, value: false });
}
