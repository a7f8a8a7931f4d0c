/**
 * How many connections of one thread are on their way to a handshake at a time; further ones are held until fewer are.
 *
 *     hold ----> held ----(room)----> begin ----> under way ----(rest)----> over, or waits for the other end
 *                                     announce -->     |
 *                                                      +----(answered, and was not asked for its socket)----> waits for the other end
 *
 * What waits for the other end counts no more: most such connections never have one. It is under way again once it is shown.
 */
export class UnderWay<One extends object> {
  readonly #most: () => number;
  readonly #proceed: (one: One) => void;
  readonly #underWay = new Set<One>();
  /** Of these, those of which the fabric may not know yet, or has not asked for. */
  readonly #announced = new Set<One>();
  readonly #held = new Set<One>();
  /** What comes to nothing at once calls us again. */
  #isProceeding = false;

  /**
   * @param most asked each time
   * @param proceed takes one that was held, once there is room; it is held no more
   */
  constructor(most: () => number, proceed: (one: One) => void) {
    this.#most = most;
    this.#proceed = proceed;
  }

  get isFull(): boolean {
    return this.#underWay.size >= this.#most();
  }

  get isEmpty(): boolean {
    return this.#underWay.size === 0;
  }

  isHeld(one: One): boolean {
    return this.#held.has(one);
  }

  /** Has to wait until fewer are under way. */
  hold(one: One): void {
    this.#held.add(one);
  }

  /** Is being proven, or shakes hands: whether there is room or not. */
  begin(one: One): void {
    this.#held.delete(one);
    this.#announced.delete(one);
    this.#underWay.add(one);
  }

  /** The fabric was told of it, just now. */
  announce(one: One): void {
    this.begin(one);
    this.#announced.add(one);
  }

  /** The fabric has come as far as what was announced: where the other end is there it has asked for the socket by now, or is about to. */
  answered(): void {
    for (const one of this.#announced) this.#underWay.delete(one);
    this.#announced.clear();
    this.#goOn();
  }

  /** It is over, or waits for the other end. */
  rest(one: One): void {
    this.#held.delete(one);
    this.#announced.delete(one);
    this.#underWay.delete(one);
    this.#goOn();
  }

  #goOn(): void {
    if (this.#isProceeding) return;
    this.#isProceeding = true;
    for (const one of this.#held) {
      if (this.isFull) break;
      this.#held.delete(one);
      this.#proceed(one);
    }
    this.#isProceeding = false;
  }
}
