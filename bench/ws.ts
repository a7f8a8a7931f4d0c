/** How long does a message take there and back by WebSocket? The package ws, if it is installed. */
import type { Comparison } from './question.ts';
import { ROUND_TRIP_FIGURES, roundTripValues } from './rtt.ts';

const MESSAGE_BYTES = 64;

export const ws: Comparison = {
  name: 'ws',
  steps: [
    {
      name: `ws, round trip ${MESSAGE_BYTES} B`,
      figures: ROUND_TRIP_FIGURES,
      window: { warmMs: 3000, windowMs: 700 },
      isQuick: true,
      measure: ({ ends, transport: { expects }, path }, window) =>
        ends.withServer({ kind: 'ws', messageBytes: MESSAGE_BYTES, path: path() }, async (to) => {
          const { pids } = ends;
          const options = { to, messageBytes: MESSAGE_BYTES, expects, pids, ...window };
          return roundTripValues(await ends.client.webSocketRoundTrips(options));
        }),
    },
  ],
};
