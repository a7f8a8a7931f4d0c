/** What else programs of Node.js talk by on one host, and what the machine could do at best. */
import type { Comparison } from './question.ts';
import { roundTrip } from './rtt.ts';
import { stream } from './stream.ts';
import {
  IPC_ADVANCED,
  IPC_JSON,
  LIMITS,
  MAPPED,
  PIPES,
  PORT_COPY,
  PORT_TRANSFER,
  STORE,
  TCP,
  UNIX,
  ZEROMQ,
} from './transports.ts';

/** A single message that is very long: what is handed over instead of copied takes no longer for it. */
const long = roundTrip(16 << 20, { window: { warmMs: 500, windowMs: 2000 }, isQuick: false });

export const peers: Comparison = {
  name: 'peers',
  steps: [roundTrip(64), roundTrip(16 << 10), long, stream(1 << 10), stream(64 << 10)],
  transports: [TCP, UNIX, MAPPED, STORE, PIPES, IPC_JSON, IPC_ADVANCED, ZEROMQ, PORT_COPY, PORT_TRANSFER, ...LIMITS],
  isInOnePlace: true,
};
