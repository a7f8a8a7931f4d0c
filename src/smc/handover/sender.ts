/**
 * The sending side of one direction: when its bytes go on TCP and when into the peer's ring.
 *
 * A move is an epoch. The receiver offers it (READY); the sender takes it with CUT or not at all. It ends with BACK, or unused
 * with NEVER. Each epoch is used once, and the next is offered only after the one before was ended.
 */
import { go, never, type Table } from '../table.ts';

export type SenderState =
  /** Bytes go on TCP; nothing is offered. */
  | 'TCP'
  /** Bytes go on TCP; the receiver honours a cut. */
  | 'OFFERED'
  /** Bytes go into the ring. */
  | 'MOVED'
  /** Nothing is sent any more. */
  | 'CLOSED';

export type SenderEvent =
  /** READY of the next epoch was seen. */
  | 'ready'
  /** RETRACT of the current epoch was seen. */
  | 'retract'
  /** We move. */
  | 'cut'
  /** We want to be on TCP. */
  | 'back'
  /** Our end of stream. */
  | 'end';

export type SenderAction = 'publishCut' | 'publishBack' | 'publishNever';

export const SENDER: Table<SenderState, SenderEvent, SenderAction> = {
  TCP: {
    ready: go('OFFERED', [], 'the receiver is bound from now on, we are not'),
    retract: never('an epoch is taken back after it was offered'),
    cut: never('a cut without READY would not be honoured'),
    back: go('TCP', [], 'we are there'),
    end: go('CLOSED', [], 'the FIN says it'),
  },
  OFFERED: {
    ready: never('the epoch on offer was neither used nor taken back'),
    retract: go('TCP', ['publishNever'], 'no cut of ours crossed it'),
    cut: go('MOVED', ['publishCut'], 'the first byte after the cut goes into the ring'),
    back: go('OFFERED', [], 'we are there'),
    end: go('CLOSED', ['publishNever'], 'frees the receiver of its promise'),
  },
  MOVED: {
    ready: never('the next epoch is offered only after BACK'),
    retract: go('TCP', ['publishBack'], 'the cut has won, so the way out is BACK'),
    cut: never('an epoch is cut once'),
    back: go('TCP', ['publishBack'], 'published before the first byte on TCP'),
    end: go('CLOSED', [], 'the flag says it, then the FIN'),
  },
  CLOSED: {
    ready: go('CLOSED', [], 'it crossed our end'),
    retract: go('CLOSED', [], 'nothing comes after the end mark, so there is nothing to bring back'),
    cut: never('nothing is sent any more'),
    back: go('CLOSED', [], 'nothing is sent any more'),
    end: go('CLOSED', [], 'said already'),
  },
};
