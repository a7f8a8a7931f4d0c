/**
 * `isthmus/smc`: SMC-D without sockets. Codecs and tables, for tools and for those who read.
 * @module
 */
export {
  type ByteOrder,
  CDC_BYTES,
  CDC_FLAG,
  type CdcMessage,
  decodeCdc,
  describeCdc,
  encodeCdc,
} from './cdc/message.ts';
export * from './clc/index.ts';
export { RECEIVER } from './handover/receiver.ts';
export { SENDER } from './handover/sender.ts';
export { FLAG, HEAD_BYTES, WORD } from './head.ts';
export { REASONS, type Reason, type ReasonName, reasonOfCode } from './reasons.ts';
export { CLOSE, STATE_NAMES } from './states.ts';
