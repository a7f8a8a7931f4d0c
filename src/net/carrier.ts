/**
 * A socket whose bytes may go another way. Put on one instance of net.Socket, it waits for the socket's end, and costs nothing; then it
 * watches what passes through JavaScript; given an SMC connection, it carries what the connection says: chunks of TCP up to the cut,
 * then the ring, then TCP again.
 *
 * All decisions about bytes are the connection's (smc/inbound.ts, smc/outbound.ts); here is only how a net.Socket shows them. What it
 * writes: sending.ts; what is counted: traffic.ts.
 * Names of Node.js' inside: internals.ts.
 */

import type { AsyncResource } from 'node:async_hooks';
import type { Socket } from 'node:net';
import { inNextTurn, nextTick, setImmediate } from '../os/event-loop.ts';
import { TCP_CLOSE, TCP_ENDED, tcpInfo } from '../os/index.ts';
import type { Connection } from '../smc/connection.ts';
import type { Loan } from '../smc/layout.ts';
import { type Sink, sinkOf } from './below-tls.ts';
import { CHUNK_BYTES, Delivery } from './delivery.ts';
import { COUNTER } from './info.ts';
import {
  type InternalSocket,
  type Internals,
  internalsOf,
  isGuardOfIdle,
  reusedIn,
  SOCKET,
  type SocketInternals,
  socketError,
  type TcpHandle,
  type WriteCallback,
  watchReuse,
} from './internals.ts';
import { type Lender, lenderOf } from './lender.ts';
import { NativeHandle } from './native-handle.ts';
import { Sending } from './sending.ts';
import { Traffic } from './traffic.ts';

export interface CarrierListener {
  /** A byte has passed through JavaScript. */
  passed(): void;
  /** The socket is about to be closed: the last moment for its descriptor. `reset`: by a reset. */
  closing(reset: boolean): void;
  /** The socket is closed. */
  closed(): void;
  /** A way has changed, or could: look whether there is something to do. */
  changed(): void;
  /** The peer broke a rule. */
  failed(error: Error): void;
}

/** Bytes handed on in one turn, so that one fast writer does not keep the event loop. */
const TURN_BYTES = 256 * 1024;

export class Carrier {
  readonly #socket: InternalSocket;
  readonly #handle: TcpHandle;
  readonly #native: NativeHandle;
  readonly #listener: CarrierListener;
  /** Runs callbacks of the program where they ran on TCP. */
  readonly #context: AsyncResource;
  #connection: Connection | null = null;
  /** What passes through JavaScript passes through here. */
  isWatching = false;
  /** Whether a byte passed through JavaScript since we watch, or may be taken to have. */
  hasPassed = false;
  /** Whether the stream wants bytes while they come from the ring. */
  #wants = false;
  /** Whether the handle's reading is ours to steer (the ring is the source). */
  #steering = false;
  #tcpEnd: { readonly error: Error | null } | null = null;
  /** TCP has ended, as far as the kernel knows, and that was not read. */
  #isTcpOver = false;
  #endShown = false;
  #pumping = false;
  #pumpScheduled = false;
  /** Nothing that the program has put into ticks and microtasks waits any more. */
  #isTurn = false;
  #closed = false;
  /** What stood in the place of our `_destroy`. */
  readonly #destroyBefore: SocketInternals['_destroy'] | null;
  /** Nothing is handed on: the caller takes it by `drain`. */
  isHolding = false;
  readonly traffic: Traffic;
  readonly sending: Sending;
  readonly #delivery: Delivery;
  /** Who takes bytes of the ring in the place of copies. */
  #lender: Lender | null;

  /** The socket must be connected and its handle a TCP one. */
  constructor(socket: Socket, internals: Internals, listener: CarrierListener, context: AsyncResource) {
    this.#socket = internalsOf(socket);
    const handle = this.#socket._handle;
    if (handle === null) throw new TypeError('the socket has no handle');
    this.#handle = handle;
    this.#native = new NativeHandle(handle);
    this.#listener = listener;
    this.#context = context;
    this.#delivery = new Delivery(this.#socket, internals, sinkOf(socket));
    this.#lender = lenderOf(socket);
    this.#destroyBefore = Object.hasOwn(this.#socket, '_destroy') ? this.#socket._destroy : null;
    this.traffic = new Traffic(handle, this.#native);
    this.sending = new Sending(this.#socket, this.traffic, {
      passed: () => this.#passed(),
      waits: () => this.#giveWay(),
      failed: (error) => this.#failedLater(error),
    });
    watchReuse(handle);
    this.#socket._destroy = this.overrides._destroy;
  }

  /** From now on what passes through JavaScript passes through here. */
  watch(): void {
    if (this.isWatching) return;
    this.traffic.rebase();
    this.isWatching = true;
    Object.assign(this.#socket, this.overrides);
    this.#delivery.install((chunk) => this.#fromTcp(chunk, true));
  }

  // --- What is known of the socket ---

  get fd(): number {
    return this.#handle.fd;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Whether bytes passed below JavaScript since we watch: something in C++ reads or writes this handle. */
  get hasForeignBytes(): boolean {
    return this.isWatching && this.traffic.hasForeignBytes;
  }

  /**
   * Bytes by way and direction, and how often, see COUNTER. May be given memory that other processes read, with what was counted
   * before on this socket.
   */
  get counters(): Float64Array {
    if (!this.isWatching && !this.#closed) this.traffic.rebase();
    return this.traffic.counters;
  }

  set counters(memory: Float64Array) {
    if (memory !== this.counters) this.traffic.countIn(memory);
  }

  get connection(): Connection | null {
    return this.#connection;
  }

  /** No way is anything but TCP, and none is promised. */
  get isPlain(): boolean {
    const connection = this.#connection;
    return connection === null || (!connection.in.isBound && connection.out.state !== 'MOVED');
  }

  // --- The connection ---

  /** From now on the connection says where bytes go. */
  carry(connection: Connection): void {
    this.watch();
    this.#connection = connection;
    this.sending.carry(connection);
    this.traffic.carry(connection, () => this.sending.waitingBytes);
    // Whoever attaches to the handle in C++ from here on is led through JavaScript.
    Object.defineProperty(this.#handle, 'isStreamBase', { configurable: true, value: false });
  }

  /**
   * Nothing more comes through the ring, and TCP has the rest or only its end: whoever reads it next misses nothing. To be asked
   * after `look` and `drain`.
   */
  get leavesRestToTcp(): boolean {
    if (this.isPlain) return true;
    const connection = this.#connection;
    if (connection === null || connection.out.isMoved || this.unread > 0) return false;
    const hasEnded = this.#tcpEnd === null ? connection.saidGoodbye : this.#tcpEnd.error === null;
    return hasEnded && !connection.endsWithReset();
  }

  /** The connection has something new: read its words, and do what follows. */
  look(): void {
    const connection = this.#connection;
    if (connection === null || this.#closed) return;
    let isNews: boolean;
    try {
      isNews = connection.look();
    } catch (error) {
      this.#listener.failed(error as Error);
      return;
    }
    // By far the most frequent: bytes in a ring in use, or room in it, and nothing else has changed.
    if (!isNews && this.#steering && connection.in.state === 'MOVED' && this.#tcpEnd === null) {
      if (this.sending.isWaiting) this.sending.goOn();
      if (connection.in.canTake) this.#pump();
      if (this.sending.isWaiting || !this.#wants) this.#giveWay();
      this.traffic.readRing();
    } else {
      this.settle();
    }
  }

  /** Brings the socket in line with what the connection says now. */
  settle(): void {
    const connection = this.#connection;
    if (connection === null || this.#closed) return;
    // Nobody reads our ring any more: TCP itself knows how to fail from here.
    if (connection.out.isMoved && !this.#peerReads) connection.out.back();
    this.sending.goOn();
    this.#steer();
    this.#pump();
    this.#giveWay();
    this.traffic.sum();
    if (!this.#closed) this.#listener.changed();
  }

  /** Our bytes go into the peer's ring from now on. */
  cut(): void {
    const connection = this.#connection;
    if (connection?.out.mayCut && this.#peerReads) connection.out.cut(this.traffic.nativeWritten);
  }

  /** Whether somebody reads what goes into the peer's ring. An offer may outlive the one who made it. */
  get #peerReads(): boolean {
    const connection = this.#connection;
    if (connection === null || !connection.peerReads) return false;
    if (this.#tcpEnd === null && !this.#isTcpOver) return true;
    return this.#tcpEnd?.error == null && connection.saidGoodbye;
  }

  /** Our bytes go on TCP again. */
  back(): void {
    this.#connection?.out.back();
    this.settle();
  }

  /** At the exit of the process: what waits goes to TCP, which takes it without us. */
  exit(): void {
    const connection = this.#connection;
    connection?.out.back();
    this.sending.goOnUnheard();
    // TCP itself ends as it always does. Where all bytes are in the ring, its end alone would look like a death.
    if (connection?.canGoBack === false) connection.close(connection.in.unread > 0 || this.sending.isWaiting);
  }

  /** Ends the connection for the program as a reset by the peer does. */
  reset(): void {
    this.#socketDestroy(socketError('ECONNRESET', 'read'));
  }

  /**
   * From now on bytes go to the sink and not to the stream, also when everything else is taken off the socket. In this turn none do:
   * what the stream holds is read first.
   */
  divert(sink: Sink): void {
    this.watch();
    this.#delivery.sink = sink;
    this.isHolding = true;
    setImmediate(() => {
      this.isHolding = false;
      this.settle();
    });
  }

  /** From now on bytes of the ring wait for `pull`; null: they go to the stream. */
  lend(lender: Lender | null): void {
    this.#lender = lender;
    this.#schedulePump();
  }

  /** The next bytes where they stand in the ring; null when they are none, or come out of the stream. */
  pull(): Loan | null {
    const connection = this.#connection;
    if (connection === null || !this.#isLending || this.#closed || this.isHolding) return null;
    let loan: Loan | null;
    try {
      loan = connection.lend(CHUNK_BYTES);
    } catch (error) {
      this.#failedLater(error);
      return null;
    }
    this.traffic.count(COUNTER.reads);
    this.traffic.sum();
    this.#socket._unrefTimer();
    // What follows: the end, or the way back.
    if (!connection.in.canLend) this.#schedulePump();
    return loan;
  }

  get #isLending(): boolean {
    return this.#lender !== null && this.#delivery.isByStream && this.#connection?.in.canLend === true;
  }

  /** Takes everything off the socket again. Only while everything is on TCP, or nothing but its end is to come. */
  release(): void {
    this.sending.release();
    const { sink } = this.#delivery;
    this.#takeOff(sink);
    if (sink !== null) this.#socket.push = sink;
    this.#connection = null;
    this.#steer();
    this.traffic.release();
  }

  /** Takes our methods off the socket. */
  #takeOff(sink: Sink | null): void {
    for (const [name, method] of Object.entries(this.overrides)) {
      // Where the program has put its own in between, ours stays below it, and passes everything on.
      if (Reflect.get(this.#socket, name) !== method) continue;
      if (name === '_destroy' && this.#destroyBefore !== null) this.#socket._destroy = this.#destroyBefore;
      else Reflect.deleteProperty(this.#socket, name);
    }
    this.#delivery.uninstall(sink);
  }

  /** Takes everything that was received and not handed to the program. */
  drain(): Buffer {
    const chunks: Buffer[] = [];
    for (let chunk = this.#connection?.in.take(CHUNK_BYTES); chunk; chunk = this.#connection?.in.take(CHUNK_BYTES))
      chunks.push(chunk);
    this.#connection?.in.taken();
    return Buffer.concat(chunks);
  }

  /** Bytes that were taken from the peer and not handed to the program. */
  get unread(): number {
    return this.#connection?.in.unread ?? 0;
  }

  // --- Overrides of the socket ---

  readonly overrides: SocketInternals = {
    _writeGeneric: (writev, data, encoding, callback) => this.sending.write(writev, data, encoding, callback),
    _final: (callback) => this.#final(callback),
    _destroy: (error, callback) => this.#destroyed(error, callback),
    destroy: (error, callback) => this.#destroy(error, callback),
    push: (chunk, encoding) => this.#pushed(chunk, encoding),
    write: (chunk, encoding, callback) => this.sending.writeNow(chunk, encoding, callback),
  };

  /** A native chunk, or null at the end of TCP. */
  #pushed(chunk: Buffer | null, encoding?: BufferEncoding): boolean {
    if (chunk === null) {
      if (this.#connection === null) return this.#delivery.pass(null);
      if (this.#steering && !this.#wants) this.#skipRead();
      this.#tcpEnded(null);
      return false;
    }
    const now = this.#fromTcp(chunk, false);
    if (now === null) return true;
    const wantsMore = this.#delivery.pass(now, encoding);
    if (!wantsMore && this.sending.isWaiting) nextTick(() => this.settle());
    return wantsMore;
  }

  /**
   * Behind the end of TCP Node.js has the stream read once more, for 'end' to be emitted. That would fetch bytes which nobody has asked
   * for, and this is not the end of the stream yet.
   */
  #skipRead(): void {
    const socket = this.#socket;
    if (Object.hasOwn(socket, 'read')) return;
    const restore = () => Reflect.deleteProperty(socket, 'read');
    socket.read = () => {
      restore();
      return null;
    };
    nextTick(restore);
  }

  /** The part of a native chunk that is to be handed on now. */
  #fromTcp(chunk: Buffer, mustCopy: boolean): Buffer | null {
    this.traffic.readTcp(chunk.length);
    const first = !this.hasPassed;
    this.hasPassed = true;
    const connection = this.#connection;
    if (connection === null) {
      if (first) this.#listener.passed();
      return chunk;
    }
    let now: Buffer | null;
    const { state } = connection.in;
    try {
      now = connection.in.tcpBytes(chunk);
      if (mustCopy) connection.in.ownHeld();
    } catch (error) {
      this.#failedLater(error);
      return null;
    }
    // Also when it has come to the ring and back: nobody tells of that again.
    if (!connection.in.isNative || connection.in.state !== state) nextTick(() => this.settle());
    else if (first) nextTick(() => this.#listener.passed());
    return now;
  }

  /** Neither from inside a native callback nor from a call of the program, whose fault it is not. */
  #failedLater(error: unknown): void {
    nextTick(() => this.#listener.failed(error as Error));
  }

  #passed(): void {
    if (this.hasPassed) return;
    this.hasPassed = true;
    this.#listener.passed();
  }

  #tcpEnded(error: Error | null): void {
    if (this.#tcpEnd !== null || this.#closed) return;
    this.#tcpEnd = { error };
    const connection = this.#connection;
    if (connection !== null) {
      try {
        connection.look();
        connection.in.tcpEnd();
        // If the peer is dead, what we write from here on fails as it does on TCP, because it goes there.
        if (!this.#peerReads) connection.out.back();
      } catch (fault) {
        this.#failedLater(fault);
        return;
      }
    }
    nextTick(() => this.settle());
  }

  /** Whether the program has bytes to come, or an end of TCP, that was seen or stands behind what it does not read now. */
  get hasMoreToShow(): boolean {
    // A write that waits fails on TCP, whether or not the program reads what is before the end.
    if (this.sending.isWaiting && !this.#wants) return false;
    if (this.unread > 0 || (this.#tcpEnd !== null && !this.#endShown)) return true;
    return this.#connection?.in.isNative === true ? !this.#handle.reading : this.isTcpKept;
  }

  /** Whether the program was shown the end of what it gets. */
  get isEndShown(): boolean {
    return this.#endShown;
  }

  #destroy(error?: Error, callback?: (error: Error | null) => void): InternalSocket {
    // A reset must not overtake bytes that came before it, nor the program's wish to read them.
    if (error && this.#connection !== null && !this.#closed && !this.#endShown && this.#isOfTcp(error)) {
      this.#tcpEnded(error);
      return this.#socket;
    }
    this.#givePendingToTcp();
    SOCKET.destroy.call(this.#socket, error, callback);
    return this.#socket;
  }

  /** Not one that the program passes on from another socket. */
  #isOfTcp(error: NodeJS.ErrnoException): boolean {
    return error.syscall === 'read' && tcpState(this.fd) === TCP_CLOSE;
  }

  /** Before a close: the kernel sends what it has taken, and it takes more than a ring. Not when the close will be a reset. */
  #givePendingToTcp(): void {
    const { destroyed, resetAndClosing } = this.#socket;
    const out = this.#connection?.out;
    if (!this.sending.isWaiting || !out?.isMoved || !this.#peerReads || destroyed || this.#closed) return;
    if (resetAndClosing === true || this.#leavesUnread()) return;
    out.back();
    this.sending.goOn();
  }

  /** Also what has come and was not looked at. */
  #leavesUnread(): boolean {
    try {
      this.#connection?.in.look();
    } catch {
      return true; // the peer broke a rule: no clean end
    }
    return this.unread > 0;
  }

  #socketDestroy(error?: Error): void {
    this.#endShown = true;
    SOCKET.destroy.call(this.#socket, error);
  }

  #final(callback: WriteCallback): void {
    try {
      this.#connection?.end();
    } catch (error) {
      this.#failedLater(error);
    }
    SOCKET._final.call(this.#socket, callback);
  }

  #destroyed(error: Error | null, callback: (error: Error | null) => void): void {
    const destroy = this.#destroyBefore ?? SOCKET._destroy;
    if (this.#closed) {
      destroy.call(this.#socket, error, callback);
      return;
    }
    if (!this.isWatching) this.traffic.rebase();
    this.#closed = true;
    const reset = this.#socket.resetAndClosing === true || this.#leavesUnread();
    this.sending.closing();
    this.#connection?.close(reset);
    this.#listener.closing(reset);
    destroy.call(this.#socket, error, (after) => {
      // The program may connect it again, from now on.
      this.#takeOff(null);
      callback(after);
    });
    this.sending.close();
    this.#listener.closed();
    this.traffic.close();
    this.#connection = null;
  }

  // --- Room ---

  /**
   * A peer may wait for room in a ring of which nothing is read, where the buffers of TCP would take what it writes: it gets more.
   * When there is none, and we wait as well (a stream may not read before its write is done, as that of HTTP/2), both would do so for
   * ever: our write goes by TCP.
   */
  #giveWay(): void {
    const connection = this.#connection;
    if (connection === null) return;
    const { in: inbound, out: outbound } = connection;
    const leavesUnread = this.#steering
      ? inbound.isFull && !(this.#isLending ? this.#lender?.isWaiting : this.#wants)
      : inbound.state === 'CATCHUP' && !this.#handle.reading;
    // Loans may be given back only once something is written.
    if (!leavesUnread && !inbound.isFullOfLoans) return;
    if (inbound.isFull && connection.makeRoom()) return;
    if (!this.sending.isWaiting || !outbound.isMoved || !connection.canGoBack) return;
    outbound.back();
    this.sending.goOn();
  }

  // --- In ---

  /** Takes the handle's reading over while bytes come from the ring, and gives it back. */
  #steer(): void {
    const handle = this.#handle;
    const native = this.#connection?.in.isNative ?? true;
    if (this.#closed || this.#socket._handle !== handle) return;
    if (!native && !this.#steering) {
      this.#steering = true;
      this.#wants = handle.reading;
      this.#native.forget();
      handle.readStart = () => {
        this.#wants = true;
        this.#schedulePump();
        return 0;
      };
      handle.readStop = () => {
        this.#wants = false;
        this.#readTcp();
        this.#giveWay();
        return 0;
      };
    } else if (native && this.#steering && this.#tcpEnd === null) {
      this.#steering = false;
      Reflect.deleteProperty(handle, 'readStart');
      Reflect.deleteProperty(handle, 'readStop');
      handle.reading = this.#wants;
      this.#native.read(this.#wants);
      return;
    }
    this.#readTcp();
  }

  /**
   * TCP goes on being read for its end while bytes come from the ring, but not while bytes of it are held, and not into memory that the
   * program works on.
   */
  #readTcp(): void {
    if (!this.#steering || this.#tcpEnd !== null || this.#closed) return;
    this.#native.read(!this.isTcpKept && !this.#connection?.in.holdsTcp);
  }

  /** Whether nothing of TCP is read, its end neither, before the program reads on: bytes could come that way. */
  get isTcpKept(): boolean {
    const isPaused = this.#steering && !this.#wants && this.#tcpEnd === null;
    return isPaused && this.#delivery.isInPlace && this.#connection?.canGoBack === true;
  }

  /** Where it is not read: whether TCP has ended. What is written goes there then, and fails as it does on TCP. */
  lookAtTcp(): void {
    if (!this.isTcpKept || this.#isTcpOver || !TCP_ENDED.has(tcpState(this.fd))) return;
    this.#isTcpOver = true;
    this.settle();
  }

  #schedulePump(): void {
    if (this.#pumpScheduled) return;
    this.#pumpScheduled = true;
    inNextTurn(() => {
      this.#pumpScheduled = false;
      this.#isTurn = true;
      try {
        this.settle();
      } finally {
        this.#isTurn = false;
      }
    });
  }

  /** Hands on what the ring holds, as long as the stream wants it. */
  #pump(): void {
    if (this.#pumping || !this.#steering || this.isHolding || this.#endShown) return;
    const inbound = this.#connection?.in;
    if (inbound === undefined || (!inbound.canTake && this.#tcpEnd === null)) return;
    this.#pumping = true;
    let hasThrown = true;
    try {
      (reusedIn(this.#handle) ?? this.#context).runInAsyncScope(this.#handOn);
      hasThrown = false;
    } catch (error) {
      if (error instanceof Error && 'fault' in error) this.#listener.failed(error);
      else throw error;
    } finally {
      this.#pumping = false;
      inbound.taken();
      // In the middle, where a listener of the program has thrown: there may be an end to show, too.
      const goesOn = hasThrown || (this.#wants && this.#connection?.in.canTake && !this.#isLending);
      if (!this.#closed && goesOn) this.#schedulePump();
    }
    if (!this.#closed && this.#connection !== null) this.#steer();
  }

  readonly #handOn = (): void => {
    const inbound = this.#connection?.in;
    if (inbound === undefined) return;
    // We may look between ticks, where the next listener is still to be set. Without one bytes are thrown away, as the program wishes,
    // but from the event loop only, where TCP would do it.
    if (!this.#isTurn && this.#delivery.isThrowingAway) {
      this.#schedulePump();
      return;
    }
    if (this.#lender !== null && this.#isLending) {
      this.#lender.wake();
      return;
    }
    let left = TURN_BYTES;
    while (this.#wants && left > 0 && !this.#closed && !this.isHolding) {
      const { room } = this.#delivery;
      if (room?.length === 0) {
        this.#socketDestroy(socketError('ENOBUFS', 'read'));
        return;
      }
      const chunk = inbound.take(room?.length ?? CHUNK_BYTES, room);
      if (chunk === null) break;
      left -= chunk.length;
      this.traffic.count(COUNTER.reads);
      this.#socket._unrefTimer();
      // An idle socket in http.Agent's pool must not get any byte: the guard there destroys it.
      if (isGuardOfIdle(this.#handle.onread)) {
        this.#socketDestroy();
        return;
      }
      const wantsMore = this.#delivery.give(chunk, room);
      if (!wantsMore && !this.#closed) {
        this.#wants = false;
        this.#handle.reading = false;
      }
      // The listener of the next chunk may be set in a tick after this one.
      if (this.#delivery.isByStream) break;
    }
    if (!this.#closed && this.#tcpEnd !== null && !inbound.canTake && this.#wants && !this.isHolding) this.#showEnd();
  };

  #showEnd(): void {
    if (this.#endShown) return;
    const { error } = this.#tcpEnd ?? { error: null };
    const isCutOff = error === null && this.#connection?.endsWithReset() === true;
    if (isCutOff && this.#delivery.sink === null && this.#socket.readableLength > 0) {
      this.#showWhenRead();
      return;
    }
    this.#endShown = true;
    if (error !== null || isCutOff) {
      this.#socketDestroy(error ?? socketError('ECONNRESET', 'read'));
      return;
    }
    this.#delivery.end();
  }

  /**
   * A reset throws away what the stream has and the program has not read. Where the peer just ended, TCP would have shown an end, behind
   * all that.
   */
  #showWhenRead(): void {
    const socket = this.#socket;
    if (Object.hasOwn(socket, 'read')) return;
    const { read } = socket;
    socket.read = (size) => {
      const chunk = read.call(socket, size) as unknown;
      if (socket.readableLength === 0 || this.#closed) {
        Reflect.deleteProperty(socket, 'read');
        nextTick(() => this.settle());
      }
      return chunk;
    };
  }
}

function tcpState(fd: number): number {
  try {
    return tcpInfo(fd).state;
  } catch {
    return TCP_CLOSE; // the handle has gone
  }
}
