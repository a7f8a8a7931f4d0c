/** Isthmus' own layout of a DMB (head.ts): each direction moves at a byte offset, and back (handover/); rings grow (growth.ts). */
import type { ConnectionParts } from './connection.ts';
import { Growth } from './growth.ts';
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
  readonly #growth: Growth;

  /** @param tcpBytesRead bytes of TCP delivered to the program so far, since the connection began */
  constructor(parts: ConnectionParts, tcpBytesRead: number) {
    const { dmb, remote } = parts;
    this.#words = new Words(dmb, remote);
    this.out = new Outbound(remote, this.#words);
    this.in = new Inbound(dmb, this.#words, tcpBytesRead);
    this.#growth = new Growth(parts, this.in, this.out);
  }

  get dmbBytes(): number {
    return this.in.ringDmb.lengthBytes;
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
    this.#growth.look();
    return flags;
  }

  makeRoom(): boolean {
    return this.#growth.makeRoom();
  }

  release(): void {
    this.#growth.release();
  }
}
