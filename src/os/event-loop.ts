/**
 * The event loop as it was at load. A program's tests may put clocks of their own in the place of its functions (node:test, sinon):
 * the bytes of its connections have to go on. Not for timers that only bound how long something may take.
 */
export const { setImmediate, queueMicrotask } = globalThis;
const { setInterval } = globalThis;
export const nextTick = process.nextTick.bind(process) as typeof process.nextTick;
/** Milliseconds, as performance.now. */
export const now = performance.now.bind(performance);

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
