/** All scenarios on connections that shake hands in-band, against plain ones. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { LayoutName } from '../../src/smc/layout.ts';
import { inBandPair, plainPair } from './pairs.ts';
import { run, scenarios, warmed } from './scenarios.ts';

/**
 * One layout in a process: settings are read once.
 * @param deviations scenarios that differ, which is asserted too, and why
 */
export function compareInBand(layout: LayoutName, deviations: { readonly [scenario: string]: string } = {}): void {
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
  const atOnce = async () => {};
  for (const [name, scenario] of Object.entries(scenarios)) {
    const why = deviations[name];
    test(why === undefined ? name : `not as on TCP: ${name}. ${why}`, async () => {
      const plain = await run(scenario, warmed(plainPair, atOnce));
      const moved = await run(scenario, warmed(inBandPair, atOnce));
      if (why === undefined) assert.deepEqual(moved, plain);
      else assert.notDeepEqual(moved, plain);
    });
  }
}
