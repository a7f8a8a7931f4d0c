/**
 * koffi ends the whole process when the thread it runs in is terminated while it is loaded, declares a function or makes a view: a
 * Node-API call that fails is fatal to it. (Calls of declared functions are safe.) So a worker says in shared memory when it is in
 * there, and whoever terminates it waits until it is out. Each says what it is about to do before it looks at what the other
 * has said, so at least one of them sees the other.
 */

/** Words of a gate: the thread's, then that of whoever terminates it. */
const INSIDE = 0;
const ENDING = 1;
export const GATE_WORDS = 2;
/** A load takes some milliseconds. */
const LONGEST_MS = 1000;

let own: Int32Array | null = null;

/** Worker threads: this thread can be terminated by who has these words. */
export function openGate(words: Int32Array): void {
  own = words;
}

/** Runs it to its end, even if the thread is being terminated. */
export function unterminated<T>(run: () => T): T {
  const gate = own;
  if (gate === null || Atomics.load(gate, INSIDE) === 1) return run();
  Atomics.store(gate, INSIDE, 1);
  if (Atomics.load(gate, ENDING) === 1) {
    leave(gate);
    Atomics.wait(gate, ENDING, 1, LONGEST_MS); // where this thread ends
    Atomics.store(gate, INSIDE, 1);
  }
  try {
    return run();
  } finally {
    leave(gate);
  }
}

function leave(gate: Int32Array): void {
  Atomics.store(gate, INSIDE, 0);
  Atomics.notify(gate, INSIDE);
}

/** From now on the thread of this gate can be terminated. Waits until it can, but not for ever. */
export function waitToTerminate(gate: Int32Array): void {
  Atomics.store(gate, ENDING, 1);
  Atomics.wait(gate, INSIDE, 1, LONGEST_MS);
}
