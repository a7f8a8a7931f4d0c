/** What does Isthmus cost a program whose peers have none? Round trips over TCP, once it is known that the connection stays there. */
import type { Inquiry } from './question.ts';
import { takeTurns } from './turns.ts';

const MESSAGE_BYTES = 64;
/** How long the membership in the fabric outlasts its use: a program waits with a timer meanwhile, which costs about 2 %. */
const LINGER_MS = 100;
/** Until the connection was looked at, and that time has passed. */
const WARM_MS = 600;
const WINDOW_MS = 200;

export const alone: Inquiry = {
  name: 'alone',
  title: `round trips of ${MESSAGE_BYTES} B to a peer without Isthmus`,
  answer: (context) =>
    takeTurns(context, {
      conditions: [
        { name: 'neither end has Isthmus', has: 'none' },
        { name: 'the client has Isthmus', has: 'client' },
        { name: 'the server has Isthmus', has: 'server' },
        { name: 'neither, once more', has: 'none' },
      ],
      casts: 4,
      warmUpBlocks: 2,
      blocks: 8,
      messageBytes: MESSAGE_BYTES,
      env: { ISTHMUS_LINGER_MS: String(LINGER_MS) },
      unit: 'µs',
      measure: async ({ client }, to) => {
        const window = { warmMs: WARM_MS, windowMs: WINDOW_MS };
        const { p50 } = await client.roundTrips({
          to,
          messageBytes: MESSAGE_BYTES,
          expects: null,
          pids: [],
          ...window,
        });
        return p50;
      },
    }),
};
