/** All scenarios on connections that shake hands in-band, against plain ones. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import type { LayoutName } from '../../src/smc/layout.ts';
import { type SocketDeviation, socketConformance } from '../../src/testing/index.ts';
import { OF_MEMORY } from './deviations.ts';
import { inBandPair } from './pairs.ts';

/** One layout in a process: settings are read once. */
export function compareInBand(layout: LayoutName, deviations: readonly SocketDeviation[] = []): void {
  const directory = mkdtempSync(join(tmpdir(), 'isthmus-in-band-'));
  after(() => rmSync(directory, { recursive: true, force: true }));
  Object.assign(process.env, {
    ISTHMUS_LAYOUT: layout,
    ISTHMUS_RUNTIME_DIR: directory,
    ISTHMUS_FABRIC_IDLE_MS: '500',
    // Small rings, and nothing but what asks for it moves.
    ISTHMUS_DMB_BYTES: '16384',
    ISTHMUS_LAZY_BYTES: '1e15',
    ISTHMUS_LAZY_MS: '1e9',
  });
  socketConformance(`in-band, ${layout}`, inBandPair, {
    deviations: [...OF_MEMORY, ...deviations],
  });
}
