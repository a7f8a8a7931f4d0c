/**
 * What does Isthmus cost a connection that it leaves alone? Connect, 100 bytes there and back, close, one after the other, under the
 * policy lazy.
 */
import type { Inquiry } from './question.ts';
import { takeTurns } from './turns.ts';

const CONNECTIONS = 200;
const MESSAGE_BYTES = 100;

export const short: Inquiry = {
  name: 'short',
  title: `short connections (connect, ${MESSAGE_BYTES} bytes there and back, close) under the policy lazy`,
  answer: (context) =>
    takeTurns(context, {
      conditions: [
        { name: 'without Isthmus', has: 'none' },
        { name: 'with Isthmus', has: 'both' },
        { name: 'without it, once more', has: 'none' },
      ],
      casts: 16,
      warmUpBlocks: 50, // until then V8 compiles, which costs twice as much as the rest
      blocks: 8,
      messageBytes: MESSAGE_BYTES,
      unit: 'µs',
      measure: ({ client }, to) => client.shortConnections({ to, messageBytes: MESSAGE_BYTES, count: CONNECTIONS }),
    }),
};
