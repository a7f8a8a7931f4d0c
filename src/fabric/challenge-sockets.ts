/** Challenges between sockets that are held. */
import { randomBytes } from 'node:crypto';
import { isAtMark, passedBytes, peekUrgent, sendUrgent, tcpInfo } from '../os/index.ts';
import { Challenge, type UrgentEnd, type Verdict } from './challenge.ts';

/** How long a descriptor may be held, which holds back a FIN. */
const CHALLENGE_MS = 250;
const CHALLENGE_LOOK_MS = 1;

/** To be cancelled before a descriptor is closed. */
export function challenge(
  one: number,
  other: number,
  rounds: number,
  done: (verdict: Verdict) => void,
): { cancel(): void } {
  const until = performance.now() + CHALLENGE_MS;
  let timer: NodeJS.Timeout | undefined;
  let run: Challenge;
  const go = () => {
    let verdict: Verdict | null;
    try {
      run ??= new Challenge(urgentEnd(one), urgentEnd(other), rounds, () => randomBytes(1)[0] as number);
      verdict = run.step();
    } catch {
      verdict = 'refuted'; // one of the two has ended
    }
    if (verdict === null && performance.now() < until) timer = setTimeout(go, CHALLENGE_LOOK_MS);
    else done(verdict ?? 'later');
  };
  timer = setTimeout(go, 0);
  return { cancel: () => clearTimeout(timer) };
}

function urgentEnd(fd: number): UrgentEnd {
  return {
    send: (byte) => sendUrgent(fd, byte),
    peek: () => peekUrgent(fd),
    isAtMark: () => isAtMark(fd),
    given: () => passedBytes(fd).sent,
    acknowledged: () => tcpInfo(fd).bytesAcked,
  };
}
