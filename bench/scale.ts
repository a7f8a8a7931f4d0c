/** What do connections cost that say nothing? Ten talk, among ten and among many more. */
import { mostConnections } from './process-facts.ts';
import type { Comparison, Step } from './question.ts';
import { ROUND_TRIP_FIGURES, roundTripValues } from './rtt.ts';
import { MAPPED, TCP, UNIX } from './transports.ts';

const ACTIVE = 10;
const MOST = Math.min(10_000, mostConnections());
const COUNTS = [10, 100, 1000, 10_000].map((count) => Math.min(count, MOST));
const MESSAGE_BYTES = 64;

function among(count: number): Step {
  const isMost = count === MOST;
  return {
    name: `${ACTIVE} talk, ${count} are open${isMost && count < 10_000 ? ' (what the limit of open files allows)' : ''}`,
    figures: [
      ...ROUND_TRIP_FIGURES,
      ...(isMost
        ? ([
            { name: 'all were open after', unit: 's', better: 'lower' },
            { name: 'all had moved after', unit: 's', better: 'lower' },
          ] as const)
        : []),
    ],
    window: { warmMs: 200, windowMs: 500 },
    isQuick: count <= 100,
    point: { plot: 'connections', at: count },
    async measure({ ends, transport, path }, window) {
      if (count < ACTIVE) throw new Error('a process may have too few open files');
      return await ends.withServer({ kind: 'echo', messageBytes: MESSAGE_BYTES, path: path() }, async (to) => {
        const common = { messageBytes: MESSAGE_BYTES, expects: transport.expects };
        try {
          const { openSeconds, movedSeconds } = await ends.client.openMany({ to, count, ...common });
          const all = { active: ACTIVE, pids: ends.pids, ...common, ...window };
          const values = roundTripValues(await ends.client.roundTripsAmong(all));
          return isMost ? [...values, openSeconds, movedSeconds] : values;
        } finally {
          if (ends.failure === null) await ends.client.closeMany();
        }
      });
    },
  };
}

export const scale: Comparison = {
  name: 'scale',
  steps: [...new Set(COUNTS)].map(among),
  transports: [TCP, UNIX, MAPPED],
  isInOnePlace: true,
};
