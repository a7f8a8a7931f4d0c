/**
 * The handshake in the TCP stream itself, before any byte of the program, as RFC 7609 section 3.3 and Linux do it (smc_clc_wait_msg
 * in net/smc/smc_clc.c): a message is looked at before it is taken, so that what stands behind it is left for whoever reads next.
 *
 * What is not to be trusted ends the connection (EPROTO); a Decline leaves it on TCP. Only one end may decline at a time: the client in
 * the place of its Proposal or Confirm, the server in the place of its Accept or after the Confirm. In between nobody gives up with
 * words, since the answer may be under way.
 */
import { type ClcType, ClcWireError, clcLength, decodeHeader, HEADER_BYTES } from './clc/index.ts';
import type { ConnectionParts } from './connection.ts';
import { PeerFault } from './errors.ts';
import { asDecline, encodeDecline, Handshake, type HandshakeContext, type HandshakeState } from './handshake.ts';
import type { LinkGroup } from './link-group.ts';
import { REASONS, type Reason } from './reasons.ts';

/** The bytes of a TCP connection before the program gets them. */
export interface ClcStream {
  /** Up to `length` bytes that have come, which stay there; 'end' when there will never be so many: the peer has ended. */
  peek(length: number): Buffer | 'end';
  /** Takes bytes that were peeked. */
  read(length: number): Buffer;
  send(bytes: Buffer): void;
}

export type InBandOutcome =
  /** SMC-D. */
  | { readonly parts: ConnectionParts; readonly group: LinkGroup }
  /** TCP; what the stream still holds is the program's. */
  | { readonly reason: Reason; readonly byPeer: boolean }
  /** The connection has to end. */
  | { readonly error: 'EPROTO' | 'ECONNRESET' | 'ETIMEDOUT'; readonly text: string };

/** How long to wait for a message (smc_clc.h: CLC_WAIT_TIME). */
export const CLC_WAIT_MS = 6000;

/** What may come beside a Decline. */
const EXPECTED: { readonly [State in HandshakeState]?: ClcType } = {
  WAIT_PROPOSAL: 'proposal',
  WAIT_ACCEPT: 'accept',
  WAIT_CONFIRM: 'confirm',
};

export class InBandHandshake {
  readonly #stream: ClcStream;
  readonly #handshake: Handshake;
  readonly #finish: (outcome: InBandOutcome) => void;
  /** A message is being worked off: the next one is not looked at. */
  #isBusy = false;
  #over = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param finish is called once */
  constructor(context: HandshakeContext, stream: ClcStream, finish: (outcome: InBandOutcome) => void) {
    this.#stream = stream;
    this.#finish = finish;
    this.#handshake = new Handshake(
      context,
      (message) => stream.send(message),
      (outcome) => this.#finished('fault' in outcome ? { error: 'EPROTO', text: outcome.fault } : outcome),
    );
  }

  startAsClient(): void {
    this.#handshake.startAsClient();
    this.#wait();
  }

  startAsServer(): void {
    this.#handshake.startAsServer();
    this.#wait();
  }

  /** How many bytes there must be before it is of use to call `readable`. */
  get needs(): number {
    const head = this.#stream.peek(HEADER_BYTES);
    if (head === 'end' || head.length < HEADER_BYTES) return HEADER_BYTES;
    try {
      return clcLength(head);
    } catch {
      return HEADER_BYTES;
    }
  }

  /** Bytes may have come, or the end. Settled when what came was worked off. */
  async readable(): Promise<void> {
    if (this.#isBusy || this.#over) return;
    const message = this.#take();
    if (message === null) return;
    this.#isBusy = true;
    await this.#handshake.receive(message);
    this.#isBusy = false;
    this.#wait();
    await this.readable();
  }

  /** The program has ended the connection. */
  abandon(reason: Reason): void {
    this.#handshake.abandon(reason);
  }

  /** After a success, until the peer is bound: it may decline after all. Null when it has not. Throws for any other message. */
  takeDecline(): Reason | null {
    const message = this.#peekMessage();
    return message === null || message === 'end' ? null : asDecline(this.#stream.read(message.length));
  }

  /** After a success, until we are bound. */
  sendDecline(reason: Reason): void {
    this.#stream.send(encodeDecline(reason));
  }

  /** The next message, if it is whole and the one that is waited for. */
  #take(): Buffer | null {
    try {
      const message = this.#peekMessage();
      if (message === 'end') this.#end('ECONNRESET', 'the peer ended the connection in the handshake');
      return message === null || message === 'end' ? null : this.#stream.read(message.length);
    } catch (error) {
      if (!(error instanceof ClcWireError || error instanceof PeerFault)) throw error;
      this.#end('EPROTO', error.message);
      return null;
    }
  }

  /** Throws for what cannot be one. */
  #peekMessage(): Buffer | null | 'end' {
    const head = this.#stream.peek(HEADER_BYTES);
    if (head === 'end' || head.length < HEADER_BYTES) return head === 'end' ? head : null;
    const { type, length } = decodeHeader(head);
    const { state } = this.#handshake;
    if (type !== 'decline' && type !== EXPECTED[state]) throw new PeerFault(`a ${type} in state ${state}`);
    const message = this.#stream.peek(length);
    return message === 'end' || message.length === length ? message : null;
  }

  /** Also while a message is worked off: devices and fabrics may take long, and the peer does not wait longer either. */
  #wait(): void {
    clearTimeout(this.#timer);
    if (this.#over) return;
    this.#timer = setTimeout(() => this.#end('ETIMEDOUT', 'the peer did not answer in the handshake'), CLC_WAIT_MS);
    this.#timer.unref(); // whoever waits keeps the program running
  }

  #end(error: 'EPROTO' | 'ECONNRESET' | 'ETIMEDOUT', text: string): void {
    this.#finished({ error, text });
    this.#handshake.abandon(REASONS.PROTOCOL);
  }

  #finished(outcome: InBandOutcome): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#finish(outcome);
  }
}
