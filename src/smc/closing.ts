/** How a connection ends, as a value: pure functions over the table in states.ts and the flags that the two ends tell each other. */
import { CLOSED_FLAGS, END_FLAGS, FLAG } from './head.ts';
import { CLOSE, type CloseEvent, type CloseState } from './states.ts';
import { step } from './table.ts';

export interface Closing {
  readonly state: CloseState;
  /** What the peer has said of its end, ever. */
  readonly peerFlags: number;
  /** We have said CLOSED or ABNORMAL_CLOSE. */
  readonly isFinalSent: boolean;
}

export const OPENING: Closing = { state: 'INIT', peerFlags: 0, isFinalSent: false };

/** What follows an event, and the flags to raise with the peer: 0 for none. */
export interface Next {
  readonly closing: Closing;
  readonly raise: number;
}

/** @param isAbort for a close: what the peer sent is thrown away, or the program wants a reset */
export function happened(closing: Closing, event: CloseEvent, isAbort = false): Next {
  const { next, actions } = step(CLOSE, closing.state, event);
  let { isFinalSent } = closing;
  let raise = 0;
  for (const action of actions) {
    switch (action) {
      case 'sendDone':
        raise |= FLAG.SENDING_DONE;
        break;
      case 'sendFinal':
        isFinalSent = true;
        raise |= isAbort ? FLAG.ABNORMAL_CLOSE : FLAG.CLOSED;
        break;
      case 'sendAbort':
        isFinalSent = true;
        raise |= FLAG.ABNORMAL_CLOSE;
        break;
      default:
        action satisfies never;
    }
  }
  return { closing: { ...closing, state: next, isFinalSent }, raise };
}

/** The program has closed. */
export function closed(closing: Closing, isAbort: boolean): Next {
  const next = happened(closing, peerReads(closing) ? 'close' : 'closeLast', isAbort);
  return closing.isFinalSent ? { ...next, raise: 0 } : next;
}

/** The peer's flags were read. Throws PeerFault for an end that cannot be. */
export function peerSaid(closing: Closing, flags: number): Closing {
  const news = flags & END_FLAGS & ~closing.peerFlags;
  let after: Closing = { ...closing, peerFlags: closing.peerFlags | news };
  if (news & FLAG.SENDING_DONE) after = happened(after, 'peerDone').closing;
  if (news & FLAG.CLOSED) after = happened(after, closing.isFinalSent ? 'peerClosedLast' : 'peerClosed').closing;
  if (news & FLAG.ABNORMAL_CLOSE)
    after = happened(after, closing.isFinalSent ? 'peerAbortedLast' : 'peerAborted').closing;
  return after;
}

/** Whether the peer reads what we put into its ring. */
export function peerReads({ peerFlags }: Closing): boolean {
  return (peerFlags & CLOSED_FLAGS) === 0;
}

/** Whether the peer has announced an end. */
export function saidGoodbye({ peerFlags }: Closing): boolean {
  return peerFlags !== 0;
}
