/**
 * One SMC-D connection: its two directions, its state, and the DMBs it owns. A thin shell: what to do with a word of the peer is
 * decided by tables (handover/, states.ts), and what to do with a socket by whoever holds one (net/).
 */
import type { Device, Dmb, RemoteDmb } from '../ism/index.ts';
import { PeerFault } from './errors.ts';
import { FLAG, WORD } from './head.ts';
import { Inbound } from './inbound.ts';
import type { Layout } from './negotiation.ts';
import { Outbound } from './outbound.ts';
import { CLOSE, type CloseAction, type CloseEvent, type CloseState } from './states.ts';
import { step } from './table.ts';
import { Words } from './words.ts';

/** What a connection needs: one DMB of each end. Made by the handshake. */
export interface ConnectionParts {
  readonly device: Device;
  /** Ours; the peer writes there. */
  readonly dmb: Dmb;
  /** The peer's; we write there. */
  readonly remote: RemoteDmb;
  /** Of the heads of both. */
  readonly layout: Layout;
}

export class Connection {
  readonly in: Inbound;
  readonly out: Outbound;
  readonly #parts: ConnectionParts;
  readonly #words: Words;
  #state: CloseState = 'INIT';
  #peerFlags = 0;
  #finalSent = false;
  #released = false;

  /** @param tcpBytesRead bytes of TCP delivered to the program so far, since the connection began */
  constructor(parts: ConnectionParts, tcpBytesRead: number) {
    this.#parts = parts;
    this.#words = new Words(parts.dmb, parts.remote);
    this.in = new Inbound(parts.dmb, this.#words, tcpBytesRead);
    this.out = new Outbound(parts.remote, this.#words);
    this.#event('established');
  }

  get state(): CloseState {
    return this.#state;
  }

  get device(): Device {
    return this.#parts.device;
  }

  /** The peer will not read anything that we put into its ring from now on. */
  get peerReads(): boolean {
    return (this.#peerFlags & (FLAG.CLOSED | FLAG.ABNORMAL_CLOSE)) === 0;
  }

  /**
   * Reads the peer's words; whether there was more than cursors that move. Throws PeerFault when they break a rule: then this
   * connection is to be failed.
   */
  look(): boolean {
    if (!this.#words.isValid) return false;
    if (!this.#words.takeNews()) {
      this.out.lookAtRing();
      this.in.lookAtRing();
      return false;
    }
    // Flags first: an end that is seen here comes with cursors that are seen below.
    const flags = this.#words.load(WORD.FLAGS);
    this.out.look();
    this.in.look();
    const news = flags & ~this.#peerFlags;
    this.#peerFlags |= flags & (FLAG.SENDING_DONE | FLAG.CLOSED | FLAG.ABNORMAL_CLOSE);
    if (news & FLAG.SENDING_DONE) this.#event('peerDone');
    if (news & FLAG.CLOSED) this.#event(this.#finalSent ? 'peerClosedLast' : 'peerClosed');
    if (news & FLAG.ABNORMAL_CLOSE) this.#event(this.#finalSent ? 'peerAbortedLast' : 'peerAborted');
    return true;
  }

  /** The program has finished sending; to be called before the FIN. */
  end(): void {
    this.out.end();
    this.#event('shutdownWrite');
  }

  /**
   * The program has closed; to be called before TCP is closed.
   * @param aborted what the peer sent is thrown away, or the program wants a reset
   */
  close(aborted: boolean): void {
    if (this.#finalSent) return;
    this.out.end();
    this.#aborted = aborted;
    this.#event(this.peerReads ? 'close' : 'closeLast');
  }
  #aborted = false;

  /** Device, link group or peer have died. */
  die(): void {
    this.#event('groupDied');
  }

  /** Whether the peer has announced an end in the DMB. */
  get saidGoodbye(): boolean {
    return (this.#peerFlags & (FLAG.SENDING_DONE | FLAG.CLOSED | FLAG.ABNORMAL_CLOSE)) !== 0;
  }

  /**
   * What the end of TCP means for the program, once all bytes were delivered. Without a goodbye in the DMB the peer has died:
   * TCP would have sent a reset if bytes of ours had been left unread, and the kernel knows nothing of those in the ring.
   */
  endsWithReset(): boolean {
    if ((this.#peerFlags & FLAG.ABNORMAL_CLOSE) !== 0) return true;
    return !this.saidGoodbye && this.out.unconsumed > 0;
  }

  /** Gives the DMBs back. Nothing of this connection is touched afterwards. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    const { device, dmb, remote } = this.#parts;
    device.detachDmb(remote);
    void device.unregisterDmb(dmb);
  }

  #event(event: CloseEvent): void {
    const row = step(CLOSE, this.#state, event);
    if ('impossible' in row) throw new PeerFault(`${event} while ${this.#state}: ${row.impossible}`);
    this.#state = row.next;
    for (const action of row.actions) this.#act(action);
  }

  #act(action: CloseAction): void {
    switch (action) {
      case 'sendDone':
        this.out.raise(FLAG.SENDING_DONE);
        break;
      case 'sendFinal':
        this.#finalSent = true;
        this.out.raise(this.#aborted ? FLAG.ABNORMAL_CLOSE : FLAG.CLOSED);
        break;
      case 'sendAbort':
        this.#finalSent = true;
        this.out.raise(FLAG.ABNORMAL_CLOSE);
        break;
      default:
        action satisfies never;
    }
  }
}
