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

export const peers: Comparison = {
  name: 'peers',
  steps: [roundTrip(64), roundTrip(16 << 10), stream(1 << 10), stream(64 << 10)],
  transports: [TCP, UNIX, MAPPED, STORE, PIPES, IPC_JSON, IPC_ADVANCED, ZEROMQ, PORT_COPY, PORT_TRANSFER, ...LIMITS],
  isInOnePlace: true,
};
