/**
 * `isthmus/smc`: SMC-D without sockets. Codecs and tables, for tools and for those who read.
 * @module
 */
export * from './clc/index.ts';
export { RECEIVER } from './handover/receiver.ts';
export { SENDER } from './handover/sender.ts';
export { FLAG, HEAD_BYTES, WORD } from './head.ts';
export { REASONS, type Reason, type ReasonName, reasonOfCode } from './reasons.ts';
export { CLOSE, STATE_NAMES } from './states.ts';
