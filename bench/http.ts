/** How many HTTP requests a second? Keep-alive connections with one request at a time each, 1 KiB answers. */
import type { Comparison, Step } from './question.ts';

const CONNECTIONS = 8;

function requests(by: 'node:http' | 'fetch', more: Partial<Step> = {}): Step {
  return {
    name: `${by === 'fetch' ? 'fetch' : 'HTTP'} over ${CONNECTIONS} connections`,
    figures: [{ name: 'requests', unit: '/s', better: 'higher' }],
    window: { warmMs: 300, windowMs: 1000 },
    isQuick: true,
    measure: ({ ends, transport: { expects }, path }, window) =>
      ends.withServer({ kind: 'http', messageBytes: 1024, path: path() }, async (to) => [
        await ends.client.requests({ to, by, connections: CONNECTIONS, expects, ...window }),
      ]),
    ...more,
  };
}

export const http: Comparison = {
  name: 'http',
  isShort: true,
  steps: [
    requests('node:http'),
    requests('fetch', { canTake: ({ isUnix }) => !isUnix }), // it knows no Unix sockets
  ],
};
