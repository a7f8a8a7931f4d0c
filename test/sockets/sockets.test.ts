import assert from 'node:assert/strict';
import { test } from 'node:test';
import { movablePair, moveNow, plainPair } from './pairs.ts';
import { run, scenarios, warmed } from './scenarios.ts';

for (const [name, scenario] of Object.entries(scenarios)) {
  test(name, async () => {
    const plain = await run(
      scenario,
      warmed(plainPair, async () => {}),
    );
    const moved = await run(scenario, warmed(movablePair, moveNow));
    assert.deepEqual(moved, plain);
  });
}
