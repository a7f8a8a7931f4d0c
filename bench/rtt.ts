/** How long does a message take there and back, and what CPU time does it cost at both ends? Ping-pong over one connection. */
import type { Window } from './programs/control.ts';
import type { RoundTrips } from './programs/times.ts';
import type { Comparison, Step, Subject } from './question.ts';
import { sizeText } from './statistics.ts';
import { MEMCPY } from './transports.ts';

/** Better, CPU time for messages: a round trip is two of them. */
export const ROUND_TRIP_FIGURES = [
  { name: 'p50', unit: 'µs', better: 'lower' },
  { name: 'p99', unit: 'µs', better: 'lower' },
  { name: 'CPU', unit: 's/million messages', better: 'lower' },
] as const;

export function roundTripValues({ p50, p99, count, cpuSeconds }: RoundTrips): readonly number[] {
  return [p50, p99, (cpuSeconds / (2 * count)) * 1e6];
}

export function roundTrip(messageBytes: number, more: Partial<Step> = {}): Step {
  return {
    name: `round trip ${sizeText(messageBytes)}`,
    figures: ROUND_TRIP_FIGURES,
    window: { warmMs: 500, windowMs: 700 },
    isQuick: true,
    canTake: ({ name }) => name !== MEMCPY.name,
    measure: async (subject, window) => roundTripValues(await measure(subject, messageBytes, window)),
    ...more,
  };
}

function measure(
  { ends, transport, placement, path }: Subject,
  messageBytes: number,
  window: Window,
): Promise<RoundTrips> {
  const { peer, expects } = transport;
  if (peer !== null) {
    const cpu = placement.cpus?.server ?? null;
    return ends.peer.roundTrips({ peer, cpu, path: path(), messageBytes, ...window });
  }
  return ends.withServer({ kind: 'echo', messageBytes, path: path() }, (to) =>
    ends.client.roundTrips({ to, messageBytes, expects, pids: ends.pids, ...window }),
  );
}

export const rtt: Comparison = {
  name: 'rtt',
  steps: [roundTrip(64), roundTrip(16 << 10)],
  isShort: true,
};
