/**
 * The states of an SMC connection and how they change at its end (net/smc/smc_close.c). Names as in the kernel.
 *
 * What the kernel finds in further fields is part of the event here: whether we have sent our final message (CLOSED or
 * ABNORMAL_CLOSE), and whether the peer's came.
 */
import { go, never, type Table } from './table.ts';

export type CloseState =
  /** Handshake done, not in use yet. */
  | 'INIT'
  | 'ACTIVE'
  /** We closed or finished sending first; waiting for the peer. */
  | 'PEERCLOSEWAIT1'
  /** And the peer has finished sending. */
  | 'PEERCLOSEWAIT2'
  /** The peer closed or finished sending; the application hasn't reacted. */
  | 'APPCLOSEWAIT1'
  /** And we have finished sending. */
  | 'APPCLOSEWAIT2'
  /** We were first, the peer closed; the application must still close. */
  | 'APPFINCLOSEWAIT'
  /** The peer had finished sending, we closed; waiting for its close. */
  | 'PEERFINCLOSEWAIT'
  /** We abort. */
  | 'PEERABORTWAIT'
  /** The peer aborted; the application must still close. */
  | 'PROCESSABORT'
  | 'CLOSED';

export type CloseEvent =
  | 'established'
  /** The application finished sending (half close). */
  | 'shutdownWrite'
  /** The application closed; the peer has not. */
  | 'close'
  /** The application closed; the peer's final message had come. */
  | 'closeLast'
  /** The peer finished sending. */
  | 'peerDone'
  /** The peer closed; our final message was not sent. */
  | 'peerClosed'
  /** The peer closed; our final message was sent. */
  | 'peerClosedLast'
  /** The peer aborted; our final message was not sent. */
  | 'peerAborted'
  /** The peer aborted; our final message was sent. */
  | 'peerAbortedLast'
  /** The link group, device or peer has died. */
  | 'groupDied';

/** `sendFinal` is CLOSED, or ABNORMAL_CLOSE when bytes of the peer remain unread. */
export type CloseAction = 'sendDone' | 'sendFinal' | 'sendAbort';

const DEAD = go<CloseState, CloseAction>('PEERABORTWAIT', ['sendAbort'], 'nothing arrives any more');
const SAID = 'said already';
const NOT_YET = never('our final message was not sent in this state');
const SENT = never('our final message was sent in this state');

export const CLOSE: Table<CloseState, CloseEvent, CloseAction> = {
  INIT: {
    established: go('ACTIVE', [], 'both ends are up'),
    shutdownWrite: go('PEERCLOSEWAIT1', ['sendDone'], 'as ACTIVE'),
    close: go('PEERCLOSEWAIT1', ['sendFinal'], 'as ACTIVE: the peer may be up already'),
    closeLast: go('CLOSED', ['sendFinal'], 'the peer was faster'),
    peerDone: go('APPCLOSEWAIT1', [], 'the peer was faster'),
    peerClosed: go('APPCLOSEWAIT1', [], 'the peer was faster'),
    peerClosedLast: NOT_YET,
    peerAborted: go('PROCESSABORT', [], 'the peer was faster'),
    peerAbortedLast: NOT_YET,
    groupDied: go('CLOSED', [], 'nothing was begun'),
  },
  ACTIVE: {
    established: never('established once'),
    shutdownWrite: go('PEERCLOSEWAIT1', ['sendDone'], 'active half close'),
    close: go('PEERCLOSEWAIT1', ['sendFinal'], 'active close'),
    closeLast: never('the peer closed in a state of its own'),
    peerDone: go('APPCLOSEWAIT1', [], 'passive half close'),
    peerClosed: go('APPCLOSEWAIT1', [], 'passive close'),
    peerClosedLast: NOT_YET,
    peerAborted: go('PROCESSABORT', [], 'bytes of ours were thrown away'),
    peerAbortedLast: NOT_YET,
    groupDied: DEAD,
  },
  PEERCLOSEWAIT1: {
    established: never('established once'),
    shutdownWrite: go('PEERCLOSEWAIT1', [], SAID),
    close: go('PEERCLOSEWAIT1', ['sendFinal'], 'close after half close'),
    closeLast: never('the peer closed in a state of its own'),
    peerDone: go('PEERCLOSEWAIT2', [], 'the peer has finished too'),
    peerClosed: go('APPFINCLOSEWAIT', [], 'the application must still close'),
    peerClosedLast: go('CLOSED', [], 'both have closed'),
    peerAborted: go('PROCESSABORT', [], 'only half close was said'),
    peerAbortedLast: go('CLOSED', [], 'both have closed'),
    groupDied: DEAD,
  },
  PEERCLOSEWAIT2: {
    established: never('established once'),
    shutdownWrite: go('PEERCLOSEWAIT2', [], SAID),
    close: go('PEERCLOSEWAIT2', ['sendFinal'], 'close after half close'),
    closeLast: never('the peer closed in a state of its own'),
    peerDone: go('PEERCLOSEWAIT2', [], SAID),
    peerClosed: go('APPFINCLOSEWAIT', [], 'the application must still close'),
    peerClosedLast: go('CLOSED', [], 'both have closed'),
    peerAborted: go('PROCESSABORT', [], 'only half close was said'),
    peerAbortedLast: go('CLOSED', [], 'both have closed'),
    groupDied: DEAD,
  },
  APPCLOSEWAIT1: {
    established: go('APPCLOSEWAIT1', [], 'the peer was faster'),
    shutdownWrite: go('APPCLOSEWAIT2', ['sendDone'], 'the second half'),
    close: go('PEERFINCLOSEWAIT', ['sendFinal'], 'the peer has only finished sending'),
    closeLast: go('CLOSED', ['sendFinal'], 'both have closed'),
    peerDone: go('APPCLOSEWAIT1', [], SAID),
    peerClosed: go('APPCLOSEWAIT1', [], 'close after half close'),
    peerClosedLast: NOT_YET,
    peerAborted: go('PROCESSABORT', [], 'bytes of ours were thrown away'),
    peerAbortedLast: NOT_YET,
    groupDied: DEAD,
  },
  APPCLOSEWAIT2: {
    established: never('established once'),
    shutdownWrite: go('APPCLOSEWAIT2', [], SAID),
    close: go('PEERFINCLOSEWAIT', ['sendFinal'], 'the peer has only finished sending'),
    closeLast: go('CLOSED', ['sendFinal'], 'both have closed'),
    peerDone: go('APPCLOSEWAIT2', [], SAID),
    peerClosed: go('APPCLOSEWAIT2', [], 'close after half close'),
    peerClosedLast: NOT_YET,
    peerAborted: go('CLOSED', [], 'both directions had ended'),
    peerAbortedLast: NOT_YET,
    groupDied: DEAD,
  },
  APPFINCLOSEWAIT: {
    established: never('established once'),
    shutdownWrite: go('APPFINCLOSEWAIT', [], SAID),
    close: never('the peer has closed'),
    closeLast: go('CLOSED', ['sendFinal'], 'only half close was said before'),
    peerDone: go('APPFINCLOSEWAIT', [], SAID),
    peerClosed: go('APPFINCLOSEWAIT', [], SAID),
    peerClosedLast: SENT,
    peerAborted: go('PROCESSABORT', [], 'abort after close'),
    peerAbortedLast: SENT,
    groupDied: DEAD,
  },
  PEERFINCLOSEWAIT: {
    established: never('established once'),
    shutdownWrite: go('PEERFINCLOSEWAIT', [], SAID),
    close: go('PEERFINCLOSEWAIT', [], SAID),
    closeLast: go('PEERFINCLOSEWAIT', [], SAID),
    peerDone: go('PEERFINCLOSEWAIT', [], SAID),
    peerClosed: NOT_YET,
    peerClosedLast: go('CLOSED', [], 'both have closed'),
    peerAborted: NOT_YET,
    peerAbortedLast: go('CLOSED', [], 'both have closed'),
    groupDied: DEAD,
  },
  PEERABORTWAIT: {
    established: never('established once'),
    shutdownWrite: go('PEERABORTWAIT', [], SAID),
    close: go('CLOSED', [], 'aborted already'),
    closeLast: go('CLOSED', [], 'aborted already'),
    peerDone: go('PEERABORTWAIT', [], 'too late'),
    peerClosed: go('CLOSED', [], 'both have ended'),
    peerClosedLast: go('CLOSED', [], 'both have ended'),
    peerAborted: go('CLOSED', [], 'both have ended'),
    peerAbortedLast: go('CLOSED', [], 'both have ended'),
    groupDied: go('PEERABORTWAIT', [], SAID),
  },
  PROCESSABORT: {
    established: go('PROCESSABORT', [], 'the peer was faster'),
    shutdownWrite: go('PROCESSABORT', [], 'nobody reads it'),
    close: go('CLOSED', ['sendAbort'], 'our answer'),
    closeLast: go('CLOSED', ['sendAbort'], 'our answer'),
    peerDone: go('PROCESSABORT', [], 'it aborted'),
    peerClosed: go('PROCESSABORT', [], 'it aborted'),
    peerClosedLast: SENT,
    peerAborted: go('PROCESSABORT', [], SAID),
    peerAbortedLast: SENT,
    groupDied: go('PROCESSABORT', [], 'it aborted'),
  },
  CLOSED: {
    established: never('closed before'),
    shutdownWrite: go('CLOSED', [], 'closed'),
    close: go('CLOSED', [], 'closed'),
    closeLast: go('CLOSED', [], 'closed'),
    peerDone: go('CLOSED', [], 'closed'),
    peerClosed: go('CLOSED', [], 'closed'),
    peerClosedLast: go('CLOSED', [], 'closed'),
    peerAborted: go('CLOSED', [], 'closed'),
    peerAbortedLast: go('CLOSED', [], 'closed'),
    groupDied: go('CLOSED', [], 'closed'),
  },
};

/** As smcss prints them. */
export const STATE_NAMES: Readonly<Record<CloseState, string>> = {
  INIT: 'INIT',
  ACTIVE: 'ACTIVE',
  PEERCLOSEWAIT1: 'PEERCLW1',
  PEERCLOSEWAIT2: 'PEERCLW2',
  APPCLOSEWAIT1: 'APPLCLW1',
  APPCLOSEWAIT2: 'APPLCLW2',
  APPFINCLOSEWAIT: 'APPLFINCLW',
  PEERFINCLOSEWAIT: 'PEERFINCLW',
  PEERABORTWAIT: 'PEERABORTW',
  PROCESSABORT: 'PROCESSABORT',
  CLOSED: 'CLOSED',
};
