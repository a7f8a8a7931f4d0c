/** Connections between two partitions, over the host device, against plain ones. Both ends are in this loop; what is between them is real. */
import { type SocketPairOptions, socketConformance } from '../../src/testing/index.ts';
import { DEVIATIONS } from './deviations.ts';
import './own-fabric.ts';
import { assertHost, type Move, movedPair, twoPartitions } from './pairs.ts';

const RUNS = {
  mapped: ['moved at the first byte', 'moved in mid-stream', 'moved and moved back'],
  store: ['moved at the first byte', 'moved in mid-stream'],
} as const satisfies Record<string, readonly Move[]>;

for (const access of ['mapped', 'store'] as const) {
  const grounds = twoPartitions(access);
  for (const move of RUNS[access]) {
    const makePair = async (options?: SocketPairOptions) => {
      const pair = await movedPair(move, grounds)(options);
      assertHost(pair);
      return pair;
    };
    socketConformance(`host, ${access}, ${move}`, makePair, { deviations: DEVIATIONS[move] });
  }
}
