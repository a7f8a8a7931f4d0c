import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_POLICY, readPolicy } from './policy.ts';

const VARIABLES = ['POLICY', 'LAZY_BYTES', 'LAZY_MS', 'ACCESS', 'DMB_BYTES', 'BUSY_POLL_US', 'LINGER_MS'];
const all = (text: string) => Object.fromEntries(VARIABLES.map((name) => [`ISTHMUS_${name}`, text]));

function read(env: NodeJS.ProcessEnv): { policy: ReturnType<typeof readPolicy>; warnings: string[] } {
  const warnings: string[] = [];
  return { policy: readPolicy(env, (text) => warnings.push(text)), warnings };
}

test('variables that are not set, or empty, leave the defaults', () => {
  for (const env of [{}, all('')]) assert.deepEqual(read(env), { policy: DEFAULT_POLICY, warnings: [] });
});

test('values that make no sense leave the defaults, with a warning each', () => {
  for (const text of ['soon', ' ', '-1', '1.5', 'Infinity', 'NaN']) {
    const { policy, warnings } = read(all(text));
    assert.deepEqual(policy, DEFAULT_POLICY);
    assert.equal(warnings.length, VARIABLES.length, warnings.join());
  }
  // A timer of Node.js that is longer ends at once.
  assert.equal(read({ ISTHMUS_LINGER_MS: '2147483648' }).policy.lingerMs, DEFAULT_POLICY.lingerMs);
});

test('values are taken', () => {
  assert.deepEqual(read({ ISTHMUS_LAZY_MS: '0', ISTHMUS_DMB_BYTES: '16384', ISTHMUS_POLICY: 'off' }), {
    policy: { ...DEFAULT_POLICY, lazyMs: 0, dmbBytes: 16384, mode: 'off' },
    warnings: [],
  });
});
