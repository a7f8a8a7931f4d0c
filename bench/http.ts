/** How many HTTP requests a second? Keep-alive connections with one request at a time each, 1 KiB answers. */
import type { Comparison, Step } from './question.ts';

/** As long as V8 takes on a slow machine to compile what a request needs, in both processes; before, all are slower by half and more. */
const WARM_MS = 4000;

function requests(by: 'node:http' | 'fetch', connections: number, more: Partial<Step> = {}): Step {
  return {
    name: `${by === 'fetch' ? 'fetch' : 'HTTP'} over ${connections} connection${connections === 1 ? '' : 's'}`,
    figures: [{ name: 'requests', unit: '/s', better: 'higher' }],
    window: { warmMs: WARM_MS, windowMs: 1000 },
    isQuick: connections === 8,
    measure: ({ ends, transport: { expects }, path }, window) =>
      ends.withServer({ kind: 'http', messageBytes: 1024, path: path() }, async (to) => [
        await ends.client.requests({ to, by, connections, expects, ...window }),
      ]),
    ...more,
  };
}

export const http: Comparison = {
  name: 'http',
  isShort: true,
  steps: [
    requests('node:http', 1),
    requests('node:http', 8),
    requests('node:http', 64),
    requests('fetch', 8, { canTake: ({ isUnix }) => !isUnix }), // it knows no Unix sockets
  ],
};
