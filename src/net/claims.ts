/**
 * Connections of this event loop that a fabric is to hear of: announced, or waiting to be. By number, by mover, and by the key of their
 * connection, which finds both ends of one that begins and ends here.
 */
import { connectionKey, endOf } from '../fabric/match.ts';
import type { MessageByName } from '../fabric/protocol.ts';
import { localName, netnsCookie, peerName, socketCookie, TCP_ESTABLISHED, tcpInfo } from '../os/index.ts';
import type { Carrier } from './carrier.ts';
import type { Mover } from './mover.ts';

export interface Claim {
  readonly number: number;
  readonly mover: Mover;
  readonly announced: MessageByName<'ANNOUNCE'>;
  readonly key: string;
  /** The fabric has, or may have, a descriptor. */
  shown: boolean;
  /** The fabric knows of it. */
  told: boolean;
}

export class Claims {
  readonly #byNumber = new Map<number, Claim>();
  readonly #byMover = new Map<Mover, Claim>();
  readonly #byKey = new Map<string, Claim[]>();
  #next = 1;

  get size(): number {
    return this.#byNumber.size;
  }

  /** All there are now, oldest first. */
  get all(): readonly Claim[] {
    return [...this.#byNumber.values()];
  }

  get oldest(): Claim | undefined {
    return this.#byNumber.values().next().value;
  }

  /** Throws SystemError when the socket is not one of TCP. */
  make(mover: Mover): Claim {
    const { fd } = mover.carrier as Carrier;
    const announced: MessageByName<'ANNOUNCE'> = {
      type: 'ANNOUNCE',
      claim: this.#next++,
      role: mover.role === 'client' ? 0 : 1,
      local: localName(fd),
      peer: peerName(fd),
      netnsCookie: netnsCookie(fd),
      socketCookie: socketCookie(fd),
    };
    const key = connectionKey(announced);
    const claim: Claim = { number: announced.claim, mover, announced, key, shown: false, told: false };
    this.#byNumber.set(claim.number, claim);
    this.#byMover.set(mover, claim);
    const here = this.#byKey.get(key) ?? [];
    here.push(claim);
    this.#byKey.set(key, here);
    return claim;
  }

  get(number: number): Claim | undefined {
    return this.#byNumber.get(number);
  }

  of(mover: Mover): Claim | undefined {
    return this.#byMover.get(mover);
  }

  forget(claim: Claim): void {
    this.#byNumber.delete(claim.number);
    this.#byMover.delete(claim.mover);
    const here = this.#byKey.get(claim.key)?.filter((one) => one !== claim) ?? [];
    if (here.length > 0) this.#byKey.set(claim.key, here);
    else this.#byKey.delete(claim.key);
  }

  /** The other end of the same connection, if it is here, too. */
  otherEndOf(claim: Claim): Claim | null {
    const other = this.#byKey.get(claim.key)?.find((one) => endOf(one.announced) !== endOf(claim.announced));
    return other !== undefined && areTwoEnds(claim, other) ? other : null;
  }
}

/** Names are proof inside one network namespace while both sockets are held and established. */
function areTwoEnds(one: Claim, other: Claim): boolean {
  try {
    return (
      one.announced.socketCookie !== other.announced.socketCookie &&
      [one, other].every(({ mover, announced }) => {
        const fd = mover.carrier?.fd ?? -1;
        return tcpInfo(fd).state === TCP_ESTABLISHED && socketCookie(fd) === announced.socketCookie;
      })
    );
  } catch {
    return false;
  }
}
