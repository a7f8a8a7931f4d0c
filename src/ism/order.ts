/**
 * The order in which another partition sees what we store into memory that both have mapped.
 *
 * Loads are always `Atomics.load`. A store must not be seen before the stores that came before it; where that is all, x86 needs
 * nothing, and a plain store does not wait until the other CPU has given up the cache line. Where we have to look, after a store,
 * whether the other one has stored meanwhile, a fence stands between the two.
 */
const STORES_STAY_IN_ORDER = process.arch === 'x64';

/** Stores an aligned word: seen after everything that was stored before. */
export const storeInOrder: (words: Int32Array, index: number, value: number) => void = STORES_STAY_IN_ORDER
  ? (words, index, value) => {
      words[index] = value;
    }
  : (words, index, value) => {
      Atomics.store(words, index, value);
    };

const own = new Int32Array(new SharedArrayBuffer(4));

/** What was stored before is seen by others before we load anything after. */
export function fence(): void {
  Atomics.store(own, 0, 0); // on x86 a locked exchange; elsewhere stores and loads of Atomics stay in order by themselves
}
