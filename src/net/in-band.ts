/**
 * The in-band handshake on a socket of node:net: before the program has the socket, on the descriptor alone. Nothing is read or written
 * by Node.js meanwhile, so whatever the handshake leaves in the TCP stream is the program's, also where C++ reads it.
 */
import type { Socket } from 'node:net';
import { debuglog } from 'node:util';
import {
  peekBytes,
  type Readiness,
  sendBytes,
  setReceiveLowWater,
  TCP_ESTABLISHED,
  takeBytes,
  tcpInfo,
  watchReadable,
} from '../os/index.ts';
import { giveBack } from '../smc/connection.ts';
import type { HandshakeContext } from '../smc/handshake.ts';
import { CLC_WAIT_MS, type ClcStream, InBandHandshake, type InBandOutcome } from '../smc/in-band.ts';
import { REASONS, type Reason } from '../smc/reasons.ts';
import { connectError, internalsOf } from './internals.ts';
import type { Mover, Role } from './mover.ts';

const debug = debuglog('isthmus');

/** What a handshake came to, other than the end of the connection. */
export type Agreement = Exclude<InBandOutcome, { error: string }>;

/**
 * Takes over what was agreed: the mover moves, or stays on TCP.
 * @param decline tells the peer that the connection is not wanted after all; until it is bound
 */
export type Settle = (agreement: Agreement, decline: (reason: Reason) => void) => Mover;

/** Shakes hands. Null when the program can have the socket, moved or not; else why the connection has to end. */
export function enterInBand(
  socket: Socket,
  role: Role,
  context: HandshakeContext,
  settle: Settle,
): Promise<Error | null> {
  return new Promise((resolve) => {
    try {
      new Entrance(socket, settle, resolve).start(role, context);
    } catch (error) {
      resolve(error as Error);
    }
  });
}

class Entrance {
  readonly #socket: Socket;
  readonly #settle: Settle;
  readonly #resolve: (error: Error | null) => void;
  readonly #readiness: Readiness;
  readonly #stream: ClcStream;
  #handshake: InBandHandshake | null = null;
  /** Has its connection, and waits until the peer is bound. */
  #mover: Mover | null = null;
  #timer: NodeJS.Timeout | undefined;
  #over = false;

  constructor(socket: Socket, settle: Settle, resolve: (error: Error | null) => void) {
    this.#socket = socket;
    this.#settle = settle;
    this.#resolve = resolve;
    this.#readiness = watchReadable(internalsOf(socket)._handle?.fd ?? -1, () => void this.#readable());
    this.#stream = tcpStream(this.#readiness.fd);
    socket.once('close', this.#closed);
  }

  start(role: Role, context: HandshakeContext): void {
    const handshake = new InBandHandshake(context, this.#stream, (outcome) => this.#finished(outcome));
    this.#handshake = handshake;
    if (role === 'client') handshake.startAsClient();
    else handshake.startAsServer();
    this.#wait();
  }

  /** The program, or Node.js, has destroyed it. */
  readonly #closed = (): void => {
    this.#leave(null);
    this.#handshake?.abandon(REASONS.ENDED);
  };

  #wait(): void {
    if (this.#over) return;
    setReceiveLowWater(this.#readiness.fd, this.#handshake?.needs ?? 1);
    this.#readiness.wait();
  }

  /** Never rejects: nobody waits for it. */
  async #readable(): Promise<void> {
    try {
      if (this.#over) return;
      if (this.#mover === null) await this.#handshake?.readable();
      else this.#readLate(this.#mover);
      this.#wait();
    } catch (error) {
      this.#fail('EPROTO', (error as Error).message);
    }
  }

  /** After the handshake, until the peer is bound: it may decline, or end. Throws for anything else. */
  #readLate(mover: Mover): void {
    mover.look(); // what it has stored came before
    if (mover.hasEntered) return;
    if (this.#stream.peek(1) === 'end') {
      this.#fail('ECONNRESET', 'the peer ended the connection after the handshake');
      return;
    }
    const reason = this.#handshake?.takeDecline() ?? null;
    if (reason !== null) mover.declined(reason);
  }

  #finished(outcome: InBandOutcome): void {
    // What was destroyed says so in a tick.
    if (this.#over || this.#socket.destroyed) {
      if ('parts' in outcome) giveBack(outcome.parts);
      return;
    }
    if ('error' in outcome) {
      this.#fail(outcome.error, outcome.text);
      return;
    }
    const mover = this.#settle(outcome, (reason) => this.#handshake?.sendDecline(reason));
    this.#mover = mover;
    // Bytes of the program go into the ring from the first one on: until then nobody has the socket.
    this.#timer = setTimeout(() => this.#fail('ETIMEDOUT', 'the peer does not use what was agreed'), CLC_WAIT_MS);
    this.#timer.unref();
    void mover.until(() => mover.hasEntered).then(() => this.#leave(null));
  }

  #fail(code: 'EPROTO' | 'ECONNRESET' | 'ETIMEDOUT', text: string): void {
    debug('in-band: %s', text);
    this.#leave(connectError(code, this.#socket, text));
  }

  #leave(error: Error | null): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#socket.off('close', this.#closed);
    try {
      setReceiveLowWater(this.#readiness.fd, 1);
    } catch (failure) {
      debug('in-band: %s', (failure as Error).message);
    }
    this.#readiness.close();
    this.#resolve(error);
  }
}

/** A stream on which sending failed has ended: whoever waits for an answer is told so. */
function tcpStream(fd: number): ClcStream {
  let isBroken = false;
  const guarded = <T>(act: () => T, otherwise: T): T => {
    try {
      return act();
    } catch (error) {
      debug('in-band: %s', (error as Error).message);
      isBroken = true; // reset
      return otherwise;
    }
  };
  return {
    peek: (length) =>
      guarded<Buffer | 'end'>(() => {
        const hasEnded = tcpInfo(fd).state !== TCP_ESTABLISHED; // asked first: what came before the end is there then
        const bytes = isBroken ? null : peekBytes(fd, length);
        return bytes === null || (hasEnded && bytes.length < length) ? 'end' : bytes;
      }, 'end'),
    read: (length) => guarded(() => takeBytes(fd, length), null) ?? Buffer.alloc(0),
    send: (bytes) => guarded(() => sendBytes(fd, bytes), undefined),
  };
}
