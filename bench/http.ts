/** How many HTTP requests a second? Keep-alive connections with one request at a time each, 1 KiB answers. */
import type { Comparison } from './question.ts';

const CONNECTIONS = 8;

export const http: Comparison = {
  name: 'http',
  steps: [
    {
      name: `HTTP over ${CONNECTIONS} connections`,
      figures: [{ name: 'requests', unit: '/s', better: 'higher' }],
      window: { warmMs: 300, windowMs: 1000 },
      isQuick: true,
      measure: ({ ends, expects, path }, window) =>
        ends.withServer({ kind: 'http', messageBytes: 1024, path: path() }, async (to) => [
          await ends.client.requests({ to, connections: CONNECTIONS, expects, ...window }),
        ]),
    },
  ],
};
