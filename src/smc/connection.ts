/**
 * One SMC-D connection: its two directions, its state, and the DMBs it owns. A thin shell: what to do with a word of the peer is
 * decided by its layout (layout.ts) and by the table of its end (closing.ts), and what to do with a socket by whoever holds one (net/).
 */
import type { Device, Dmb, RemoteDmb } from '../ism/index.ts';
import { KernelLayout } from './cdc/layout.ts';
import { closed, happened, type Next, OPENING, peerReads, peerSaid, saidGoodbye } from './closing.ts';
import { FLAG } from './head.ts';
import { IsthmusLayout } from './isthmus-layout.ts';
import type { InboundHalf, Layout, LayoutName, Loan, OutboundHalf } from './layout.ts';
import type { CloseState } from './states.ts';

/** What a connection needs: one DMB of each end. Made by the handshake. */
export interface ConnectionParts {
  readonly device: Device;
  /** Ours; the peer writes there. */
  readonly dmb: Dmb;
  /** The peer's; we write there. */
  readonly remote: RemoteDmb;
  /** What both ends have agreed to have in them. */
  readonly layout: LayoutName;
  /** How long our ring may become while the peer waits for room in it. */
  readonly maxDmbBytes: number;
}

/** What is not wanted after all. */
export function giveBack({ device, dmb, remote }: ConnectionParts): void {
  device.detachDmb(remote);
  void device.unregisterDmb(dmb);
}

/** @param tcpBytesRead bytes of TCP delivered to the program so far, since the connection began */
export function openConnection(parts: ConnectionParts, tcpBytesRead: number): Connection {
  switch (parts.layout) {
    case 'isthmus':
      return new Connection(parts, new IsthmusLayout(parts, tcpBytesRead));
    case 'kernel':
      return new Connection(parts, new KernelLayout(parts.dmb, parts.remote));
    default:
      return parts.layout satisfies never;
  }
}

/** Room in the peer's ring, to be written in place. */
export interface Reserved {
  readonly bytes: Buffer;
  /** Whether something else has been written there since. */
  readonly isLost: boolean;
  /** Whether it is where the next byte goes. */
  readonly isNext: boolean;
  /** Its first bytes are written, if `isNext`; 0 gives it up. To be called once. */
  commit(lengthBytes: number): void;
}

export class Connection {
  readonly in: InboundHalf;
  readonly out: OutboundHalf;
  readonly #parts: ConnectionParts;
  readonly #layout: Layout;
  #closing = happened(OPENING, 'established').closing;
  #released = false;
  /** Views on memory of ours, or of the peer, that somebody has. */
  #views = 0;

  /** Use openConnection. */
  constructor(parts: ConnectionParts, layout: Layout) {
    this.#parts = parts;
    this.#layout = layout;
    this.in = layout.in;
    this.out = layout.out;
  }

  get state(): CloseState {
    return this.#closing.state;
  }

  get device(): Device {
    return this.#parts.device;
  }

  /** Of the buffer for what we receive. */
  get dmbBytes(): number {
    return this.#layout.dmbBytes;
  }

  /** Whether a direction that has moved can come back to TCP: not in the kernel's layout. */
  get canGoBack(): boolean {
    return this.#layout.canGoBack;
  }

  /** As `makeRoom` of a layout. */
  makeRoom(): boolean {
    return this.#layout.makeRoom();
  }

  /** False once the peer will not read anything that we put into its ring. */
  get peerReads(): boolean {
    return peerReads(this.#closing);
  }

  /**
   * Reads the peer's words; whether there was more than cursors that move. Throws PeerFault when they break a rule: then this
   * connection is to be failed.
   */
  look(): boolean {
    const flags = this.#layout.look();
    if (flags === null) return false;
    this.#closing = peerSaid(this.#closing, flags);
    return true;
  }

  /** The program has finished sending; to be called before the FIN. */
  end(): void {
    this.out.end();
    this.#goOn(happened(this.#closing, 'shutdownWrite'));
  }

  /**
   * The program has closed; to be called before TCP is closed.
   * @param isAbort what the peer sent is thrown away, or the program wants a reset
   */
  close(isAbort: boolean): void {
    this.out.end();
    this.#goOn(closed(this.#closing, isAbort));
  }

  /** Device, link group or peer have died. */
  die(): void {
    this.#goOn(happened(this.#closing, 'groupDied'));
  }

  #goOn({ closing, raise }: Next): void {
    this.#closing = closing;
    if (raise !== 0) this.out.raise(raise);
  }

  /** Whether the peer has announced an end in the DMB. */
  get saidGoodbye(): boolean {
    return saidGoodbye(this.#closing);
  }

  /**
   * What the end of TCP means for the program, once all bytes were delivered. Without a goodbye in the DMB the peer has died:
   * TCP would have sent a reset if bytes of ours had been left unread, and the kernel knows nothing of those in the ring. If it had more
   * to write, that is lost, and no end of the stream, though TCP, which has more room, would show one. In the kernel's layout the peer may
   * have read more than it said: then a reset is what we can be sure of.
   */
  endsWithReset(): boolean {
    if ((this.#closing.peerFlags & FLAG.ABNORMAL_CLOSE) !== 0) return true;
    return !this.saidGoodbye && (this.out.unconsumed > 0 || this.in.isCutShort);
  }

  /** As `in.lend`. What is lent stays where it is, also after `release`. */
  lend(max: number): Loan | null {
    const loan = this.in.lend(max);
    if (loan === null) return null;
    this.#views++;
    const giveBack = () => {
      loan.giveBack();
      this.#viewEnded();
    };
    return { bytes: loan.bytes, giveBack };
  }

  /** As `out.reserve`. The peer's memory is not used for anything else before it is committed, also after `release`. */
  reserve(lengthBytes: number): Reserved | null {
    const bytes = this.out.reserve(lengthBytes);
    if (bytes === null) return null;
    const { out } = this;
    const at = out.ringTotal;
    this.#views++;
    return {
      bytes,
      get isLost() {
        return out.ringTotal !== at;
      },
      get isNext() {
        return out.isMoved && out.ringTotal === at;
      },
      commit: (committed) => {
        out.commit(committed);
        this.#viewEnded();
      },
    };
  }

  #viewEnded(): void {
    this.#views--;
    if (this.#released) this.#giveBack();
  }

  #giveBack(): void {
    if (this.#views > 0) return;
    this.#layout.release();
    giveBack(this.#parts);
  }

  /** Gives the DMBs back, as soon as nobody has a view on them. Nothing of this connection is touched afterwards. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#giveBack();
  }
}
