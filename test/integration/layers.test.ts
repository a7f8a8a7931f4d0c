import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

/** Whether the linter takes a file at this path that imports that. */
function lints(path: string, imported: string): boolean {
  const source = `import { x } from '${imported}';\n\nx();\n`;
  const run = spawnSync('node_modules/.bin/biome', ['lint', `--stdin-file-path=${path}`], { input: source });
  assert.ok(run.status === 0 || run.status === 1, String(run.stderr));
  return run.status === 0;
}

for (const [path, imported] of [
  ['src/os/a.ts', '../ism/index.ts'],
  ['src/ism/a.ts', '../os/index.ts'],
  ['src/ism/a.ts', 'node:net'],
  ['src/fabric/a.ts', '../net/info.ts'],
  ['src/fabric/a.ts', '../smc/reasons.ts'],
  ['src/devices/host/a.ts', '../../fabric/core.ts'],
  ['src/devices/host/a.ts', '../../smc/index.ts'],
  ['src/smc/a.ts', '../os/index.ts'],
  ['src/smc/clc/a.ts', '../../devices/host/index.ts'],
  ['src/smc/a.ts', 'node:net'],
  ['src/net/a.ts', '../cli/ss.ts'],
  ['src/testing/a.ts', '../devices/host/index.ts'],
] as const) {
  test(`${path} may not import ${imported}`, () => assert.equal(lints(path, imported), false));
}

for (const [path, imported] of [
  ['src/fabric/a.ts', '../os/index.ts'],
  ['src/devices/host/a.ts', '../../fabric/client.ts'],
  ['src/devices/host/a.ts', '../../ism/index.ts'],
  ['src/smc/clc/a.ts', '../../ism/index.ts'],
  ['src/net/a.ts', '../devices/host/index.ts'],
  ['src/cli/a.ts', '../net/info.ts'],
  ['src/smc/a.test.ts', '../devices/loopback/index.ts'],
] as const) {
  test(`${path} may import ${imported}`, () => assert.equal(lints(path, imported), true));
}
