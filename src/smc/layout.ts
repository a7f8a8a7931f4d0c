/**
 * What a connection needs of the layout of its two DMBs, and who holds a socket of a connection. There are two layouts: Isthmus' own
 * (isthmus-layout.ts), whose directions hand over between TCP and ring, and the kernel's (cdc/), where both are in the ring from the
 * first byte to the last.
 *
 * Whatever reads words of the peer throws PeerFault when they break a rule: then the connection is to be failed.
 */
import type { ReceiverState } from './handover/receiver.ts';
import type { SenderState } from './handover/sender.ts';

export const LAYOUTS = ['isthmus', 'kernel'] as const;
export type LayoutName = (typeof LAYOUTS)[number];

/** Chunks that are written together are told of together, unless they are so long: the peer takes those while we write the next. */
export const TOLD_BYTES = 16 * 1024;

/** Bytes of a ring, where the peer has put them: it can still change them. */
export interface Loan {
  readonly bytes: Buffer;
  /** From now on the peer may write there. To be called once; in any order. */
  giveBack(): void;
}

export interface Layout {
  readonly in: InboundHalf;
  readonly out: OutboundHalf;
  /** Whether a direction that has moved can come back to TCP. */
  readonly canGoBack: boolean;
  /** Of the ring for what we receive: that of the DMB, or one that has taken its place. */
  readonly dmbBytes: number;
  /** Reads what the peer has stored. Gives its flags (FLAG), or null when no more than cursors have moved. */
  look(): number | null;
  /** The peer waits for room that there will not be for long. Whether there will be more of it, or is: else nobody sees to it. */
  makeRoom(): boolean;
  /** Gives back what beside the two DMBs is in use. */
  release(): void;
}

/** The receiving half: one stream of bytes, from TCP and from our ring, in the order they were sent. */
export interface InboundHalf {
  readonly state: ReceiverState;
  /** Whether the next byte is in the ring. */
  readonly isFromRing: boolean;
  /** Whether chunks of TCP are handed on as they come. */
  readonly isNative: boolean;
  /** Whether we are bound: from then on we cannot walk away. */
  readonly isBound: boolean;
  /** Whether bytes of TCP wait behind the ring: nothing more of it is to be read then. */
  readonly holdsTcp: boolean;
  /** Bytes that came through the ring. */
  readonly ringTotal: number;
  /** Bytes in the ring and held, as far as they were seen. */
  readonly unread: number;
  /** Whether `take` would give something. */
  readonly canTake: boolean;
  /** Whether `lend` would give something. */
  readonly canLend: boolean;
  /** Whether the peer has no room, and gets none before something that is lent is given back. */
  readonly isFullOfLoans: boolean;
  /** Whether the peer waits for room, because nothing is taken. */
  readonly isFull: boolean;
  /** Whether the peer has said in the DMB that nothing follows what was seen, so that the end of TCP need not be waited for. */
  readonly isEndSaid: boolean;
  /**
   * Whether TCP has ended while the peer, which has not come back to it, waited for room in our ring: what it would have written is
   * lost.
   */
  readonly isCutShort: boolean;
  /** Offers the next epoch to the sender, where there is something to offer. */
  arm(): void;
  /** Asks the sender to come back, or to forget the offer. */
  retract(): void;
  /** Reads what the peer has stored. */
  look(): void;
  /**
   * A chunk that TCP brought. Gives the part to be handed on now, or null: the rest is held for `take`.
   * Throws PeerFault for a byte that has no business on TCP.
   */
  tcpBytes(chunk: Buffer): Buffer | null;
  /** Copies what is held: the caller is going to use its buffer again. */
  ownHeld(): void;
  /** The sender said by other means that it will never cut. */
  neverCut(): void;
  /** TCP has ended, by FIN or by error. What was promised is read first; afterwards only `take` gives bytes. */
  tcpEnd(): void;
  /**
   * The next bytes that do not come from TCP directly, at most `max`; null when there are none now. To be followed by `taken`.
   * @param into where those of the ring are put, with room for so many; else they get memory of their own
   */
  take(max: number, into?: Uint8Array | null): Buffer | null;
  /** As `take`, without a copy, and not beyond the end of the ring; null where the next bytes are to be taken. */
  lend(max: number): Loan | null;
  /** To be called after `take`, once what was taken is handed on. */
  taken(): void;
}

/** The sending half: whether our bytes go on TCP or into the peer's ring, and the way into the ring. */
export interface OutboundHalf {
  readonly state: SenderState;
  /** Whether bytes go through `write`. */
  readonly isMoved: boolean;
  /** Whether the receiver honours a cut now. */
  readonly mayCut: boolean;
  /** Whether the receiver was ever bound. */
  readonly wasOffered: boolean;
  /** Bytes in the peer's ring that the peer has not taken, as far as it said. */
  readonly unconsumed: number;
  /** Bytes that went through the ring. */
  readonly ringTotal: number;
  /** @param tcpBytesWritten bytes given to TCP since the connection began, those that still wait in this process included */
  cut(tcpBytesWritten: number): void;
  /** The way back to TCP, to be called before the first byte there. Where there is none it is for a peer that reads no more. */
  back(): void;
  /** Our end of stream, to be called before the FIN, after the last write. */
  end(): void;
  /**
   * Puts bytes into the ring, as many as there is room for, and tells the peer. Returns how many.
   * When it is not all, the peer will signal once there is room.
   * @param behind bytes that are written next, in the same call from the event loop: the peer may be told of all together
   */
  write(chunk: Uint8Array, from?: number, behind?: number): number;
  /** Room in one piece where the next byte goes in the peer's ring; null where there is none, or the peer's memory is not mapped. */
  reserve(lengthBytes: number): Buffer | null;
  /** So many bytes from the beginning of what `reserve` gave are written, 0 gives it up. Nothing else may have been written since. */
  commit(lengthBytes: number): void;
  /** Sets flags (FLAG) of the connection's state, beside those that stand. */
  raise(flags: number): void;
}
