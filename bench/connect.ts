/** How long from `connect` to the first byte of an answer? Short connections, which the policy lazy leaves on TCP. */
import type { Comparison } from './question.ts';

export const connects: Comparison = {
  name: 'connect',
  steps: [
    {
      name: 'connect + first byte',
      figures: [
        { name: 'p50', unit: 'µs', better: 'lower' },
        { name: 'p99', unit: 'µs', better: 'lower' },
      ],
      window: { warmMs: 200, windowMs: 700 },
      isQuick: true,
      measure: ({ ends, path }, window) =>
        ends.withServer({ kind: 'echo', messageBytes: 1, path: path() }, async (to) => {
          const { p50, p99 } = await ends.client.connects({ to, ...window });
          return [p50, p99];
        }),
    },
  ],
};
