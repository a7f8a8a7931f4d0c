/** The receiving side of one direction: where the next byte of the stream comes from. */
import { go, never, type Table } from '../table.ts';

export type ReceiverState =
  /** From TCP; nothing is promised. */
  | 'TCP'
  /** From TCP; a cut will be honoured. */
  | 'READY'
  /** As READY, and we have asked to have our promise back. */
  | 'RETRACTING'
  /** From TCP until the byte of the cut. */
  | 'CATCHUP'
  /** From the ring. */
  | 'MOVED'
  /** From the ring until the byte of BACK, then from TCP. */
  | 'DRAIN'
  /** As DRAIN, and TCP has ended: from the ring until the byte of BACK, then what was held, then the end. */
  | 'DRAINREST'
  /** TCP has ended: what is in the ring, then the end. */
  | 'REST'
  /** The end. */
  | 'CLOSED';

export type ReceiverEvent =
  /** All is in place here; we offer the next epoch. */
  | 'arm'
  /** We want the peer on TCP. */
  | 'retract'
  /** CUT of this epoch was seen; TCP has not come that far. */
  | 'cut'
  /** CUT of this epoch was seen, and TCP has come exactly that far. */
  | 'reached'
  /** NEVER of this epoch was seen. */
  | 'never'
  /** BACK of this epoch was seen. */
  | 'back'
  /** The ring was taken out up to BACK. */
  | 'drained'
  /** TCP brought a byte. The words were read before. */
  | 'byte'
  /** TCP has ended, by FIN or by error. The words were read before. */
  | 'end';

export type ReceiverAction = 'publishReady' | 'publishRetract' | 'publishDone';

const FROM_TCP = 'the stream is on TCP';

export const RECEIVER: Table<ReceiverState, ReceiverEvent, ReceiverAction> = {
  TCP: {
    arm: go('READY', ['publishReady'], 'binding from now on'),
    retract: go('TCP', [], 'nothing was promised'),
    cut: never('a cut needs READY'),
    reached: never('a cut needs READY'),
    never: go('TCP', [], 'an answer that was not waited for'),
    back: never('BACK needs a cut'),
    drained: never('the ring is not in use'),
    byte: go('TCP', [], FROM_TCP),
    end: go('CLOSED', [], FROM_TCP),
  },
  READY: {
    arm: never('one epoch at a time'),
    retract: go('RETRACTING', ['publishRetract'], 'a cut may be under way: it is honoured until NEVER was seen'),
    cut: go('CATCHUP', [], 'bytes before the cut are still under way on TCP'),
    reached: go('MOVED', ['publishDone'], 'the next byte is in the ring'),
    never: go('TCP', [], 'the sender has ended'),
    back: never('BACK needs a cut'),
    drained: never('the ring is not in use'),
    byte: go('READY', [], FROM_TCP),
    end: go('CLOSED', [], 'the sender ended without a cut'),
  },
  RETRACTING: {
    arm: never('one epoch at a time'),
    retract: go('RETRACTING', [], 'asked already'),
    cut: go('CATCHUP', [], 'the cut crossed our wish and wins; the sender will answer with BACK'),
    reached: go('MOVED', ['publishDone'], 'the cut crossed our wish and wins; the sender will answer with BACK'),
    never: go('TCP', [], 'our promise is given back'),
    back: never('BACK needs a cut'),
    drained: never('the ring is not in use'),
    byte: go('RETRACTING', [], FROM_TCP),
    end: go('CLOSED', [], 'the sender ended without a cut'),
  },
  CATCHUP: {
    arm: never('one epoch at a time'),
    retract: go('CATCHUP', ['publishRetract'], 'the sender will answer with BACK'),
    cut: never('an epoch is cut once'),
    reached: go('MOVED', ['publishDone'], 'the next byte is in the ring'),
    never: never('an epoch that was cut is not given back'),
    back: never('looked for only when the cut was reached'),
    drained: never('the ring is not in use yet'),
    byte: go('CATCHUP', [], 'it stands before the cut'),
    end: never('TCP ended before the byte of the cut: bytes are missing'),
  },
  MOVED: {
    arm: never('one epoch at a time'),
    retract: go('MOVED', ['publishRetract'], 'the sender will answer with BACK'),
    cut: never('an epoch is cut once'),
    reached: never('reached already'),
    never: never('an epoch that was cut is not given back'),
    back: go('DRAIN', [], 'what stands in the ring comes first'),
    drained: never('no BACK was seen'),
    byte: never('a byte on TCP without BACK'),
    end: go('REST', [], 'the ring holds what is missing'),
  },
  DRAIN: {
    arm: never('one epoch at a time'),
    retract: go('DRAIN', [], 'the sender is back'),
    cut: never('an epoch is cut once'),
    reached: never('reached already'),
    never: never('an epoch that was cut is not given back'),
    back: never('said already'),
    drained: go('TCP', [], 'the next byte is on TCP'),
    byte: go('DRAIN', [], 'held until the ring is drained'),
    end: go('DRAINREST', [], 'held until the ring is drained'),
  },
  DRAINREST: {
    arm: go('DRAINREST', [], 'nothing new comes any more'),
    retract: go('DRAINREST', [], 'nothing new comes any more'),
    cut: never('an epoch is cut once'),
    reached: never('reached already'),
    never: never('an epoch that was cut is not given back'),
    back: never('said already'),
    drained: go('CLOSED', [], 'the end that was held'),
    byte: never('a byte after the end of TCP'),
    end: go('DRAINREST', [], 'told already'),
  },
  REST: {
    arm: go('REST', [], 'nothing new comes any more'),
    retract: go('REST', [], 'nothing new comes any more'),
    cut: never('an epoch is cut once'),
    reached: never('reached already'),
    never: never('an epoch that was cut is not given back'),
    back: never('BACK after the end'),
    drained: never('no BACK was seen'),
    byte: never('a byte after the end of TCP'),
    end: go('REST', [], 'told already'),
  },
  CLOSED: {
    arm: go('CLOSED', [], 'nothing comes any more'),
    retract: go('CLOSED', [], 'nothing comes any more'),
    cut: never('a cut after the end of TCP'),
    reached: never('a cut after the end of TCP'),
    never: go('CLOSED', [], 'an answer that was not waited for'),
    back: never('BACK after the end mark'),
    drained: never('no BACK was seen'),
    byte: never('a byte after the end of TCP'),
    end: go('CLOSED', [], 'told already'),
  },
};
