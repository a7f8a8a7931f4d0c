/** Challenges between sockets that are held. */
import { randomBytes } from 'node:crypto';
import { errorCode, isAtMark, passedBytes, peekUrgent, sendUrgent, tcpInfo } from '../os/index.ts';
import { Challenge, type PendingChallenge, type UrgentEnd, type Verdict } from './challenge.ts';

/** How long a descriptor may be held, which holds back a FIN. */
const CHALLENGE_MS = 250;
const CHALLENGE_LOOK_MS = 1;
/** How often to ask for counters that do not stand still, before others have their turn. */
const COUNTER_TRIES = 20;

/** To be cancelled before a descriptor is closed. @param done with what came of it; not called at once */
export function challenge(
  one: number,
  other: number,
  rounds: number,
  done: (verdict: Verdict) => void,
): PendingChallenge {
  const until = performance.now() + CHALLENGE_MS;
  let timer: NodeJS.Timeout | undefined;
  let run: Challenge | undefined;
  const go = () => {
    let verdict: Verdict | null;
    try {
      run ??= new Challenge(urgentEnd(one), urgentEnd(other), rounds, () => randomBytes(1)[0] as number);
      verdict = run.step();
    } catch (error) {
      verdict = errorCode(error) === 'EAGAIN' ? null : 'refuted'; // counters that do not stand still; one of the two has ended
    }
    if (verdict === null && performance.now() < until) timer = setTimeout(go, CHALLENGE_LOOK_MS);
    else done(verdict ?? 'later');
  };
  timer = setTimeout(go, 0);
  return {
    cancel: () => clearTimeout(timer),
    get hasSent() {
      return run?.hasSent ?? false;
    },
  };
}

function urgentEnd(fd: number): UrgentEnd {
  return {
    send: (byte) => sendUrgent(fd, byte),
    peek: () => peekUrgent(fd),
    isAtMark: () => isAtMark(fd),
    given: () => passedBytes(fd, COUNTER_TRIES).sent,
    acknowledged: () => tcpInfo(fd).bytesAcked,
    received: () => tcpInfo(fd).bytesReceived,
  };
}
