/** The words of a connection: those the peer wrote into our DMB, and those we write into the peer's. Layout: head.ts. */
import type { Dmb, RemoteDmb } from '../ism/index.ts';
import { WORD, type Word } from './head.ts';

export class Words {
  readonly #dmb: Dmb;
  readonly #peer: RemoteDmb;
  #isValid = false;
  #seenNews = 0;
  #news = 0;

  /** Says at once of which generation our words are. */
  constructor(dmb: Dmb, peer: RemoteDmb) {
    this.#dmb = dmb;
    this.#peer = peer;
    this.store(WORD.GENERATION, peer.generation);
  }

  /** Whether the peer has begun to write: words of another generation are none. */
  get isValid(): boolean {
    this.#isValid ||= this.load(WORD.GENERATION) === this.#dmb.generation;
    return this.#isValid;
  }

  load(word: Word): number {
    return Atomics.load(this.#dmb.words, word);
  }

  /** Stores a word in the peer's DMB, after everything stored before. */
  store(word: Word, value: number): void {
    this.#peer.storeWord(4 * word, value);
  }

  /** Flags or words of the hand-over were stored: the peer should look at all of them. */
  tellNews(): void {
    this.#news = (this.#news + 1) | 0;
    this.store(WORD.NEWS, this.#news);
    this.#peer.signal();
  }

  /** Whether the peer told news since this was asked before. All words are to be read then. */
  takeNews(): boolean {
    const news = this.load(WORD.NEWS);
    if (news === this.#seenNews) return false;
    this.#seenNews = news;
    return true;
  }

  signal(): void {
    this.#peer.signal();
  }
}
