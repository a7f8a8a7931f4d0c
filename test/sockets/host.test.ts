/** Connections between two partitions, over the host device, against plain ones. Both ends are in this loop; what is between them is real. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { type SocketPairOptions, socketConformance } from '../../src/testing/index.ts';
import { DEVIATIONS } from './deviations.ts';
import { assertHost, type Move, movedPair, twoPartitions } from './pairs.ts';

const directory = mkdtempSync(join(tmpdir(), 'isthmus-host-'));
after(() => rmSync(directory, { recursive: true, force: true }));
Object.assign(process.env, { ISTHMUS_RUNTIME_DIR: directory, ISTHMUS_FABRIC_IDLE_MS: '500' });

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
