/** The same over the length of messages and writes, for plots. */
import type { Comparison } from './question.ts';
import { roundTrip } from './rtt.ts';
import { stream } from './stream.ts';
import { IPC_ADVANCED, MAPPED, PIPES, PORT_COPY, PORT_TRANSFER, RING, TCP, UNIX, ZEROMQ } from './transports.ts';

/** There are many of them. */
const window = { warmMs: 100, windowMs: 300 };
const sizes = (from: number, to: number): number[] => (from > to ? [] : [from, ...sizes(from * 4, to)]);
const isQuick = (at: number) => at === 64 || at === 1 << 20;

export const sweep: Comparison = {
  name: 'sweep',
  steps: [
    ...sizes(64, 1 << 20).map((at) =>
      roundTrip(at, { window, isQuick: isQuick(at), point: { plot: 'round trip', at } }),
    ),
    ...sizes(1 << 10, 1 << 20).map((at) => stream(at, { window, isQuick: isQuick(at), point: { plot: 'stream', at } })),
  ],
  transports: [TCP, UNIX, MAPPED, PIPES, IPC_ADVANCED, ZEROMQ, PORT_COPY, PORT_TRANSFER, RING],
  isInOnePlace: true,
};
