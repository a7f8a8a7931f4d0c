/** How long does a message take there and back? Ping-pong over one connection. */
import type { Comparison, Step } from './question.ts';

function roundTrip(size: string, messageBytes: number): Step {
  return {
    name: `round trip ${size}`,
    figures: [
      { name: 'p50', unit: 'µs', better: 'lower' },
      { name: 'p99', unit: 'µs', better: 'lower' },
    ],
    window: { warmMs: 200, windowMs: 700 },
    isQuick: true,
    measure: ({ ends, expects, path }, window) =>
      ends.withServer({ kind: 'echo', messageBytes, path: path() }, async (to) => {
        const { p50, p99 } = await ends.client.roundTrips({ to, messageBytes, expects, ...window });
        return [p50, p99];
      }),
  };
}

export const rtt: Comparison = { name: 'rtt', steps: [roundTrip('64 B', 64), roundTrip('16 KiB', 16 * 1024)] };
