/**
 * The head of a DMB as Isthmus uses it: aligned 32-bit words, then the ring (ism/ring.ts).
 *
 * All of them are written by the one peer that may write into the DMB, and read by its owner. Native byte order: both ends are
 * on one host. It is negotiated in the vendor options of the first contact (see negotiation.ts). The kernel's layout, whose cursors are
 * not aligned and which knows no hand-over, is in cdc/message.ts.
 *
 *     word | name       | written by the peer as | meaning
 *     -----+------------+------------------------+----------------------------------------------------------------------------
 *        0 | GENERATION | both                   | of the DMB, from its token; while it is another one all words are ignored
 *        1 | PRODUCED   | sender to us           | bytes put into this ring, modulo 2^32
 *        2 | CONSUMED   | receiver from us       | bytes taken out of our ring over there, modulo 2^32
 *        3 | FLAGS      | both                   | see below
 *        4 | READY      | receiver from us       | epoch: a cut of this epoch will be honoured
 *        5 | RETRACT    | receiver from us       | epoch: please come back (answered by NEVER or BACK)
 *        6 | DONE       | receiver from us       | epoch: has switched to the ring
 *        7 | CUT        | sender to us           | epoch: after CUT_AT bytes of TCP the rest is in this ring
 *        8 | CUT_AT     | sender to us           | lower 32 bits
 *        9 | CUT_AT     | sender to us           | upper 32 bits
 *       10 | BACK       | sender to us           | epoch: after BACK_AT bytes of this ring the rest is on TCP again
 *       11 | BACK_AT    | sender to us           | as PRODUCED was at that moment
 *       12 | NEVER      | sender to us           | epoch: will not be cut
 *       13 | NEWS       | both                   | changed after FLAGS or a word of the hand-over (4 to 12) or of a ring (14 to 18) was: one look tells
 *       14 | RING       | receiver from us       | so many rings were offered beside the first; this one is in the DMB of RING_TOKEN
 *       15 | RING_TOKEN | receiver from us       | lower 32 bits
 *       16 | RING_TOKEN | receiver from us       | upper 32 bits
 *       17 | RING_USED  | sender to us           | RING: what follows goes into that ring (answers RING)
 *       18 | RING_UNFIT | sender to us           | RING: cannot be written into (answers RING)
 *       19 | WAITING    | sender to us           | with WRITE_BLOCKED: so many bytes are to follow at least (a hint)
 *       20-31 | -       |                        | reserved, 0
 *
 * Cursors only grow; words that belong together are stored first, the word that publishes them last.
 *
 * The ring can change while it is in use (growth.ts): the receiver offers another DMB, or the first one again, and the sender goes on
 * there when it likes, with the same cursor. It stores PRODUCED in the DMB whose ring it writes; all other words stay in the first one.
 */
import { RING_HEAD_BYTES, RING_WORD } from '../ism/index.ts';

export const WORD = {
  GENERATION: 0,
  ...RING_WORD,
  FLAGS: 3,
  READY: 4,
  RETRACT: 5,
  DONE: 6,
  CUT: 7,
  CUT_AT_LOW: 8,
  CUT_AT_HIGH: 9,
  BACK: 10,
  BACK_AT: 11,
  NEVER: 12,
  NEWS: 13,
  RING: 14,
  RING_TOKEN_LOW: 15,
  RING_TOKEN_HIGH: 16,
  RING_USED: 17,
  RING_UNFIT: 18,
  WAITING: 19,
} as const;

export type WordName = keyof typeof WORD;
export type Word = (typeof WORD)[WordName];

export const HEAD_BYTES = RING_HEAD_BYTES;

/** Flags have the values they have in the kernel's CDC message: producer flags in the upper byte, connection state in the lower. */
export const FLAG = {
  /** The writer has no room: signal when something was consumed. */
  WRITE_BLOCKED: 0x8000,
  /** Half close: nothing follows what was produced. */
  SENDING_DONE: 0x80,
  /** Closed; nothing is read any more. */
  CLOSED: 0x40,
  /** Closed, and bytes of ours were thrown away unread. */
  ABNORMAL_CLOSE: 0x20,
} as const;

/** A peer that has said one of these reads nothing any more ... */
export const CLOSED_FLAGS = FLAG.CLOSED | FLAG.ABNORMAL_CLOSE;
/** ... and one that has said one of these sends nothing any more. */
export const END_FLAGS = FLAG.SENDING_DONE | CLOSED_FLAGS;
