/** What is asked of the two ends of a connection. */
import { type Kind, type Life, otherSide, traitsOf } from './plan.ts';
import type { Outcome } from './words.ts';

/** What an end may fail with when something was done to the other one. */
const ERRORS = new Set(['ECONNRESET', 'EPIPE', 'ECONNREFUSED']);
/** As Node.js words it where a protocol stands between. */
const ERRORS_OF: Partial<Record<Kind, ReadonlySet<string>>> = {
  h2c: new Set([
    'ERR_HTTP2_STREAM_CANCEL',
    'ERR_HTTP2_INVALID_SESSION',
    'ERR_HTTP2_STREAM_ERROR',
    'ERR_HTTP2_GOAWAY_SESSION',
    'ABORT_ERR',
  ]),
  tls: new Set(['ERR_SSL_UNEXPECTED_EOF_WHILE_READING', 'ERR_STREAM_PREMATURE_CLOSE']),
};
const IN_ORDER = 'end,close';

export interface Case {
  readonly kind: Kind;
  readonly life: Life;
  readonly client: Outcome | null;
  readonly server: Outcome | null;
  /** A program of the pair, or a thread, was killed shortly before or meanwhile. */
  readonly disturbed: boolean;
  /** The pair shakes hands in-band, and one of its programs was stopped or killed shortly before or meanwhile: nobody answers in time. */
  readonly unanswered: boolean;
  /** In the kernel's layout an end may have read more than it has said; of one that was killed nobody knows. */
  readonly saysLate: boolean;
}

/** Faults, in words; none when all is as on TCP. */
export function judge(one: Case): string[] {
  const { life, client, server } = one;
  const ends = [client, server].filter((end) => end !== null);
  const faults = ends.flatMap((mine) => {
    const peer = mine.side === 'client' ? server : client;
    return faultsOf(one, mine, peer).map((fault) => `${mine.side}: ${fault}`);
  });
  const isViolent = [life.client, life.server].some(({ last }) => last !== 'end');
  if (!one.disturbed && !one.unanswered && !isViolent && (client === null || server === null))
    faults.push(`there is no ${client === null ? 'client' : 'server'}`);
  return faults;
}

function faultsOf(
  { kind, life, disturbed, unanswered, saysLate }: Case,
  mine: Outcome,
  peer: Outcome | null,
): string[] {
  const { isRaw = false, isShared = false } = traitsOf(kind);
  const [myLast, peersLast] = [life[mine.side].last, life[otherSide(mine.side)].last];
  const faults: string[] = [];
  const assert = (holds: boolean, fault: string) => {
    if (!holds) faults.push(fault);
  };
  assert(mine.wrongAt === null, `a wrong byte at ${mine.wrongAt}`);
  if (peer !== null)
    assert(mine.received <= peer.written, `${mine.received} bytes received of ${peer.written} that were written`);
  if (mine.died) return faults;
  assert(mine.stuck === null, 'it does not end');
  if (mine.stuck !== null) return faults;

  const errors = mine.events.filter((event) => event.startsWith('error ')).map((event) => event.slice('error '.length));
  const isRefused = errors.includes('ECONNREFUSED');
  const isLate = unanswered && peer === null && mine.received + mine.written === 0;
  const isViolent = myLast !== 'end' || peersLast !== 'end';
  const struck = isLate || (peer === null || isShared || isRefused ? disturbed : peer.died);
  for (const error of errors) {
    const isKnown = ERRORS.has(error) || (ERRORS_OF[kind]?.has(error) ?? false) || (isLate && error === 'ETIMEDOUT');
    assert(isKnown, `an error that TCP does not know: ${error}`);
    assert(isViolent || struck, `an error though nothing was done to it: ${error}`);
  }
  if (isRaw) assert(/^(end,)?(error \w+,)?(close)?$/.test(mine.events.join()), 'events out of order');
  if (!isViolent && !struck) {
    if (peer !== null)
      assert(mine.received === peer.written, `only ${mine.received} of ${peer.written} bytes came, and no error`);
    assert(mine.events.includes('end'), 'no end');
    if (isRaw) assert(mine.events.join() === IN_ORDER, 'not in order');
  }
  // TCP resets when something is unread, or comes later; else it ends. Isthmus also where a peer that died had more to write.
  const isCutShort = peer?.died === true && mine.received < peer.written;
  const isUnknown = saysLate && peer?.died === true;
  // In Node.js a request that is answered by nothing but an end is reset, too.
  const isUnanswered = kind === 'upgrade' && peer?.died === true && mine.received + mine.written === 0;
  const isExcused = isCutShort || isUnknown || isUnanswered;
  if (isRaw && errors.length > 0 && myLast === 'end' && peer !== null && peersLast !== 'reset' && !isExcused)
    assert(peer.received < mine.written, 'a reset though all that was written had been read');
  return faults;
}
