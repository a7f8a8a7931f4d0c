/** Isthmus' own layout of a DMB (head.ts): each direction moves at a byte offset, and back (handover/). */
import type { Dmb, RemoteDmb } from '../ism/index.ts';
import { WORD } from './head.ts';
import { Inbound } from './inbound.ts';
import type { Layout } from './layout.ts';
import { Outbound } from './outbound.ts';
import { Words } from './words.ts';

export class IsthmusLayout implements Layout {
  readonly in: Inbound;
  readonly out: Outbound;
  readonly canGoBack = true;
  readonly #words: Words;

  /** @param tcpBytesRead bytes of TCP delivered to the program so far, since the connection began */
  constructor(dmb: Dmb, remote: RemoteDmb, tcpBytesRead: number) {
    this.#words = new Words(dmb, remote);
    this.in = new Inbound(dmb, this.#words, tcpBytesRead);
    this.out = new Outbound(remote, this.#words);
  }

  look(): number | null {
    if (!this.#words.isValid) return null;
    if (!this.#words.takeNews()) {
      this.out.lookAtRing();
      this.in.lookAtRing();
      return null;
    }
    // Flags first: an end that is seen here comes with cursors that are seen below.
    const flags = this.#words.load(WORD.FLAGS);
    this.out.look();
    this.in.look();
    return flags;
  }
}
