/** Connections that are in shared memory from the first byte on, against plain ones. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { inBandPair, plainPair } from './pairs.ts';
import { run, scenarios, warmed } from './scenarios.ts';

// Small rings, and nothing but what asks for it moves.
Object.assign(process.env, { ISTHMUS_DMB_BYTES: '16384', ISTHMUS_LAZY_BYTES: '1e15', ISTHMUS_LAZY_MS: '1e9' });
const directory = mkdtempSync(join(tmpdir(), 'isthmus-in-band-'));
Object.assign(process.env, { ISTHMUS_RUNTIME_DIR: directory, ISTHMUS_FABRIC_IDLE_MS: '500' });
after(() => rmSync(directory, { recursive: true, force: true }));

const atOnce = async () => {};

for (const [name, scenario] of Object.entries(scenarios)) {
  test(name, async () => {
    const plain = await run(scenario, warmed(plainPair, atOnce));
    assert.deepEqual(await run(scenario, warmed(inBandPair, atOnce)), plain);
  });
}
