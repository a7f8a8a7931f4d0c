/**
 * The event loop as it was at load. A program's tests may put clocks of their own in the place of its functions (node:test, sinon):
 * the bytes of its connections have to go on. Not for timers that only bound how long something may take.
 */
export const { setImmediate, queueMicrotask } = globalThis;
export const nextTick = process.nextTick.bind(process) as typeof process.nextTick;
/** Milliseconds, as performance.now. */
export const now = performance.now.bind(performance);
