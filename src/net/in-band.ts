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
  readonly #fd: number;
  readonly #settle: Settle;
  readonly #resolve: (error: Error | null) => void;
  readonly #readiness: Readiness;
  #handshake: InBandHandshake | null = null;
  /** Has its connection, and waits until the peer is bound. */
  #mover: Mover | null = null;
  #timer: NodeJS.Timeout | undefined;
  #over = false;

  constructor(socket: Socket, settle: Settle, resolve: (error: Error | null) => void) {
    this.#socket = socket;
    this.#settle = settle;
    this.#resolve = resolve;
    this.#fd = internalsOf(socket)._handle?.fd ?? -1;
    this.#readiness = watchReadable(this.#fd, () => void this.#readable());
    socket.once('close', this.#closed);
  }

  start(role: Role, context: HandshakeContext): void {
    const handshake = new InBandHandshake(context, tcpStream(this.#fd), (outcome) => this.#finished(outcome));
    this.#handshake = handshake;
    if (role === 'client') handshake.startAsClient();
    else handshake.startAsServer();
    this.#wait();
  }

  /** The program, or Node.js, has destroyed it. */
  readonly #closed = (): void => {
    this.#handshake?.abandon(REASONS.ENDED);
    this.#leave(null);
  };

  #wait(): void {
    if (this.#over) return;
    setReceiveLowWater(this.#fd, this.#handshake?.needs ?? 1);
    this.#readiness.wait();
  }

  async #readable(): Promise<void> {
    const handshake = this.#handshake;
    if (this.#over || handshake === null) return;
    if (this.#mover === null) {
      await handshake.readable();
    } else {
      const reason = handshake.takeDecline();
      // Anything else, an end too, is to be read by whoever reads next.
      if (reason === null) return;
      this.#mover.declined(reason);
    }
    this.#wait();
  }

  #finished(outcome: InBandOutcome): void {
    if (this.#over) return;
    if ('error' in outcome) {
      debug('in-band: %s', outcome.text);
      this.#leave(connectError(outcome.error, this.#socket));
      return;
    }
    const mover = this.#settle(outcome, (reason) => this.#handshake?.sendDecline(reason));
    this.#mover = mover;
    // Bytes of the program go into the ring from the first one on: until then nobody has the socket.
    this.#timer = setTimeout(() => this.#leave(connectError('ETIMEDOUT', this.#socket)), CLC_WAIT_MS);
    void mover.until(() => mover.hasEntered).then(() => this.#leave(null));
  }

  #leave(error: Error | null): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#socket.off('close', this.#closed);
    try {
      if (!this.#socket.destroyed) setReceiveLowWater(this.#fd, 1);
    } catch (failure) {
      debug('in-band: %s', (failure as Error).message);
    }
    this.#readiness.close();
    this.#resolve(error);
  }
}

function tcpStream(fd: number): ClcStream {
  return {
    peek(length) {
      try {
        const hasEnded = tcpInfo(fd).state !== TCP_ESTABLISHED; // asked first: what came before the end is there then
        const bytes = peekBytes(fd, length);
        return bytes === null || (hasEnded && bytes.length < length) ? 'end' : bytes;
      } catch (error) {
        debug('in-band: %s', (error as Error).message);
        return 'end'; // reset
      }
    },
    read: (length) => takeBytes(fd, length) ?? Buffer.alloc(0),
    send: (bytes) => sendBytes(fd, bytes),
  };
}
