import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type MakePair, movablePair, moveNow, plainPair, type SocketPair } from './pairs.ts';
import { type Scenario, scenarios, warmed } from './scenarios.ts';

async function run(scenario: Scenario, make: MakePair): Promise<unknown> {
  const pairs: SocketPair[] = [];
  try {
    return await scenario(async (options) => {
      const pair = await make(options);
      pairs.push(pair);
      return pair;
    });
  } finally {
    for (const pair of pairs) await pair.close();
  }
}

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
