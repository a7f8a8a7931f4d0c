/** All scenarios on connections that shake hands in-band, against plain ones. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { OnReadOpts } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { LayoutName } from '../../src/smc/layout.ts';
import { type SocketDeviation, socketConformance, socketPair } from '../../src/testing/index.ts';
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

  test(`in-band, ${layout}: a buffer of onread without room is the same error as on TCP`, async () => {
    const onread: OnReadOpts = { buffer: Buffer.alloc(0), callback: () => true };
    const seen = [];
    for (const makePair of [socketPair, inBandPair]) {
      const { client, server, close } = await makePair({ connect: { onread } });
      server.on('error', () => {}).write('no room');
      const [{ code, syscall, errno, message }] = await once(client, 'error');
      seen.push({ code, syscall, errno, message });
      await close();
    }
    assert.equal(seen[0]?.code, 'ENOBUFS');
    assert.deepEqual(seen[1], seen[0]);
  });
}
