/**
 * The event loop as it was at load. A program's tests may put clocks of their own in the place of its functions (node:test, sinon):
 * the bytes of its connections have to go on. Not for timers that only bound how long something may take.
 */
export const { setImmediate, setTimeout, queueMicrotask } = globalThis;
const { setInterval } = globalThis;
export const nextTick = process.nextTick.bind(process) as typeof process.nextTick;
/** Milliseconds, as performance.now. */
export const now = performance.now.bind(performance);

let wanted = 0;

/** As setImmediate, for the bytes of a connection: who looks for others between two turns (`isTurnWanted`) lets the next one come. */
export function inNextTurn(callback: () => void): void {
  wanted++;
  setImmediate(() => {
    wanted--;
    callback();
  });
}

export function isTurnWanted(): boolean {
  return wanted > 0;
}

const { _tickCallback: tickCallback } = process as { readonly _tickCallback?: () => void };

/**
 * Runs what the program has put into ticks and microtasks, as Node.js does after each event and between two immediates. To be called by
 * what Node.js has called itself. Null where there is no such function, or calling it tells the program that it is an old one
 * (--pending-deprecation).
 */
export const runTicks: (() => void) | null = tickCallback?.name === 'runNextTicks' ? tickCallback : null;

const MAX_DELAY_MS = 2 ** 31 - 1;
let holder: NodeJS.Timeout | null = null;
let holds = 0;

/** Something keeps the program running, as a request of libuv does. To be followed by `letLoopGo`. */
export function holdLoop(): void {
  holder ??= setInterval(() => {}, MAX_DELAY_MS);
  if (holds++ === 0) holder.ref();
}

export function letLoopGo(): void {
  if (--holds === 0) holder?.unref();
}
