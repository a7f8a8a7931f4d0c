/**
 * The rules of the kernel's layout, as pure functions over one value: what both ends know of the two rings, and what is to be written
 * where (net/smc/smc_tx.c, smc_rx.c, smc_cdc.c; RFC 7609 4.5). Who holds the memory is layout.ts.
 *
 * A function that gives a message means: store the pieces it names, then the message, then signal. A message that was given counts as
 * sent. Linux has a send buffer in between; here what is to be sent waits with the caller, who says how much it is.
 */
import { PeerFault } from '../errors.ts';
import { END_FLAGS } from '../head.ts';
import { add, advance, type Cursor, distance, START } from './cursor.ts';
import { CDC_FLAG, type CdcMessage } from './message.ts';

export interface Cdc {
  /** Lengths of the rings: ours, and the peer's. */
  readonly ownRing: number;
  readonly peerRing: number;
  /** In the peer's ring: where our bytes end, and how far the peer has read them. */
  readonly produced: Cursor;
  readonly peerConsumed: Cursor;
  /** In our ring: where the peer's bytes end, how far we have read them, and how far the peer knows that we have. */
  readonly peerProduced: Cursor;
  readonly consumed: Cursor;
  readonly confirmed: Cursor;
  /** Ours, as they were last sent. */
  readonly flags: number;
  /** The peer's, as they last came; without what we have served since. State flags stay. */
  readonly peerFlags: number;
  /** Behind the urgent byte that we have yet to pass. */
  readonly urgentEnd: Cursor | null;
  /** Urgent bytes that were passed over. */
  readonly urgentBytes: number;
}

/** A part of a ring. */
export interface Piece {
  readonly offset: number;
  readonly length: number;
}

export interface Said {
  readonly cdc: Cdc;
  /** To be sent; null when nothing is to be said. */
  readonly message: CdcMessage | null;
}

/** @param ownRing, peerRing at least 16352 bytes, as the smallest DMB has: in much smaller ones the window rule would not tell */
export function openCdc(ownRing: number, peerRing: number): Cdc {
  return {
    ownRing,
    peerRing,
    produced: START,
    peerConsumed: START,
    peerProduced: START,
    consumed: START,
    confirmed: START,
    flags: 0,
    peerFlags: 0,
    urgentEnd: null,
    urgentBytes: 0,
  };
}

/** `{ ...cdc, ...changes }`; a spread takes ten times as long, which was most of the time of a message (Node.js 20). */
function change(cdc: Cdc, changes: Partial<Cdc>): Cdc {
  return {
    ownRing: cdc.ownRing,
    peerRing: cdc.peerRing,
    produced: changes.produced ?? cdc.produced,
    peerConsumed: changes.peerConsumed ?? cdc.peerConsumed,
    peerProduced: changes.peerProduced ?? cdc.peerProduced,
    consumed: changes.consumed ?? cdc.consumed,
    confirmed: changes.confirmed ?? cdc.confirmed,
    flags: changes.flags ?? cdc.flags,
    peerFlags: changes.peerFlags ?? cdc.peerFlags,
    urgentEnd: changes.urgentEnd === undefined ? cdc.urgentEnd : changes.urgentEnd,
    urgentBytes: changes.urgentBytes ?? cdc.urgentBytes,
  };
}

/** The message that says all we have to say; a request for our cursor is served by it. */
function say(cdc: Cdc): Said {
  return {
    cdc: change(cdc, { confirmed: cdc.consumed, peerFlags: cdc.peerFlags & ~CDC_FLAG.UPDATE_REQUESTED }),
    message: { producer: cdc.produced, consumer: cdc.consumed, flags: cdc.flags },
  };
}

/** A run of bytes in a ring: one piece, or two when it goes round. @param length not 0 */
export function pieces(ringBytes: number, { count }: Cursor, length: number): readonly Piece[] {
  const first = Math.min(length, ringBytes - count);
  const all = [{ offset: count, length: first }];
  if (first < length) all.push({ offset: 0, length: length - first });
  return all;
}

// --- Sending ---

/** Bytes that the peer's ring takes now, as far as the peer said. */
export function room(cdc: Cdc): number {
  return cdc.peerRing - unconsumed(cdc);
}

/** Bytes in the peer's ring that the peer has not read, as far as it said. It may keep up to half a ring for itself. */
export function unconsumed({ peerRing, peerConsumed, produced }: Cdc): number {
  return distance(peerRing, peerConsumed, produced);
}

/**
 * Bytes wait to be sent. As many as there is room for go into the peer's ring, in order, into these pieces. Without room nothing
 * happens, not even a message: the one that filled the ring said that we are blocked.
 */
export function send(cdc: Cdc, waiting: number): Said & { readonly pieces: readonly Piece[] } {
  const space = room(cdc);
  const length = Math.min(waiting, space);
  if (length <= 0) return { cdc, message: null, pieces: [] };
  // Also when it fits exactly: there is no room afterwards.
  const flags = waiting >= space ? cdc.flags | CDC_FLAG.WRITE_BLOCKED : cdc.flags & ~CDC_FLAG.WRITE_BLOCKED;
  const produced = add(cdc.peerRing, cdc.produced, length);
  const said = say(change(cdc, { produced, flags }));
  return { cdc: said.cdc, message: said.message, pieces: pieces(cdc.peerRing, cdc.produced, length) };
}

/** Sets state flags, beside those that stand. */
export function raise(cdc: Cdc, flags: number): Said {
  return say(change(cdc, { flags: cdc.flags | flags }));
}

// --- Receiving ---

/** Bytes in our ring that are to be read; an urgent one is none of them. */
export function unread({ ownRing, consumed, peerProduced, urgentEnd }: Cdc): number {
  return distance(ownRing, consumed, peerProduced) - (urgentEnd === null ? 0 : 1);
}

/** Of these, those that can be read in one go: up to an urgent byte. */
export function readable(cdc: Cdc): number {
  return cdc.urgentEnd === null ? unread(cdc) : distance(cdc.ownRing, cdc.consumed, cdc.urgentEnd) - 1;
}

/** Bytes that the peer may put into our ring, as far as we said. */
function peerRoom({ ownRing, confirmed, peerProduced }: Cdc): number {
  return ownRing - distance(ownRing, confirmed, peerProduced);
}

/**
 * What stands in our head was read. It may be the same as before, or leave out messages in between. Throws PeerFault for cursors that
 * cannot be.
 */
export function receive(cdc: Cdc, { producer, consumer, flags }: CdcMessage): Said {
  advance(cdc.peerRing, cdc.peerConsumed, consumer, unconsumed(cdc));
  const arrived = advance(cdc.ownRing, cdc.peerProduced, producer, peerRoom(cdc));
  const isUrgent = arrived > 0 && (flags & CDC_FLAG.URGENT_PRESENT) !== 0;
  // A sender waits until everything was read before it sends anything behind an urgent byte.
  if (isUrgent && cdc.urgentEnd !== null) throw new PeerFault('an urgent byte before the last one was read');
  const seen = change(cdc, {
    peerConsumed: consumer,
    peerProduced: producer,
    peerFlags: flags | (cdc.peerFlags & END_FLAGS),
    urgentEnd: isUrgent ? producer : cdc.urgentEnd,
  });
  const passed = passUrgent(seen);
  return passed === seen ? { cdc: seen, message: null } : updateWindow(passed, true);
}

/** Bytes were read, from the beginning of what is readable. @param length at most `readable` */
export function consume(cdc: Cdc, length: number): Said {
  const read = change(cdc, { consumed: add(cdc.ownRing, cdc.consumed, length) });
  const passed = passUrgent(read);
  return updateWindow(passed, passed !== read);
}

/**
 * An urgent byte is no part of the stream (SO_OOBINLINE is not set): it is passed over as soon as all before it was read. node:net has
 * no way to read it, as it has none to send one.
 */
function passUrgent(cdc: Cdc): Cdc {
  if (cdc.urgentEnd === null || readable(cdc) > 0) return cdc;
  return change(cdc, { consumed: cdc.urgentEnd, urgentEnd: null, urgentBytes: cdc.urgentBytes + 1 });
}

/** As Linux: a tenth of the ring, and not less than the smallest send buffer, halved. */
function updateLimit(ringBytes: number): number {
  return Math.max(Math.floor(ringBytes / 10), 2304);
}

/**
 * The peer is told of our consumer cursor at once only where that is worth a message (RFC 7609 4.5.1): it asked for it, an urgent byte
 * was passed, or much has come free while the peer is short of room. Otherwise it learns of it from our next message.
 */
function updateWindow(cdc: Cdc, isForced: boolean): Said {
  const { ownRing, flags, peerFlags } = cdc;
  if (((flags | peerFlags) & CDC_FLAG.ABNORMAL_CLOSE) !== 0) return { cdc, message: null };
  const isBlocked = (peerFlags & CDC_FLAG.WRITE_BLOCKED) !== 0;
  const isWorthIt =
    distance(ownRing, cdc.confirmed, cdc.consumed) > updateLimit(ownRing) &&
    (2 * peerRoom(cdc) <= ownRing || isBlocked);
  const isAsked = (peerFlags & CDC_FLAG.UPDATE_REQUESTED) !== 0;
  const said = isForced || isAsked || isWorthIt ? say(cdc) : { cdc, message: null };
  if (!isBlocked || unread(cdc) > 0) return said;
  const peerUnblocked = said.cdc.peerFlags & ~CDC_FLAG.WRITE_BLOCKED;
  return { cdc: change(said.cdc, { peerFlags: peerUnblocked }), message: said.message };
}
