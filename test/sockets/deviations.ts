/** Where a connection that goes through shared memory shows something else than plain TCP, on this version of Node.js. */
import { type SocketDeviation, socketScenarios } from '../../src/testing/index.ts';
import type { Move } from './pairs.ts';

const MAJOR = Number.parseInt(process.versions.node, 10);
const { closing } = socketScenarios;

/** Of every way. */
export const OF_MEMORY: readonly SocketDeviation[] =
  MAJOR >= 24
    ? []
    : [
        {
          scenario: closing['a reset behind more than a paused reader holds'],
          reason:
            'before Node.js 24 plain TCP shows an end, as if all bytes had come; here it is ECONNRESET, as later versions show it',
        },
      ];

/** A connection that moves meanwhile has filled the kernel's buffers before. */
export const DEVIATIONS: Readonly<Record<Move, readonly SocketDeviation[]>> = {
  'moved at the first byte': OF_MEMORY,
  'moved in mid-stream': OF_MEMORY,
  'moved and moved back': OF_MEMORY,
  'moving meanwhile': OF_MEMORY,
};
