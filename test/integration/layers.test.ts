import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before, test } from 'node:test';

const FORBIDDEN = [
  ['src/os', '../ism/index.ts'],
  ['src/ism', '../os/index.ts'],
  ['src/ism', 'node:net'],
  ['src/fabric', '../net/info.ts'],
  ['src/fabric', '../smc/reasons.ts'],
  ['src/devices/host', '../../fabric/core.ts'],
  ['src/devices/host', '../../smc/index.ts'],
  ['src/smc', '../os/index.ts'],
  ['src/smc/clc', '../../devices/host/index.ts'],
  ['src/smc', 'node:net'],
  ['src/net', '../cli/ss.ts'],
  ['src/testing', '../devices/host/index.ts'],
] as const;
const ALLOWED = [
  ['src/fabric', '../os/index.ts'],
  ['src/devices/host', '../../fabric/client.ts'],
  ['src/devices/host', '../../ism/index.ts'],
  ['src/smc/clc', '../../ism/index.ts'],
  ['src/net', '../devices/host/index.ts'],
  ['src/cli', '../net/info.ts'],
] as const;

let directory: string;
/** What the linter says of a project with one file for each import. */
let output: string;

const fileOf = (folder: string, imported: string) => `${folder}/x-${imported.replace(/[^a-z]+/g, '-')}.ts`;

before(() => {
  directory = mkdtempSync(join(tmpdir(), 'isthmus-layers-'));
  cpSync('biome.json', join(directory, 'biome.json'));
  for (const [folder, imported] of [...FORBIDDEN, ...ALLOWED]) {
    const file = join(directory, fileOf(folder, imported));
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `import { x } from '${imported}';\n\nx();\n`);
  }
  const run = spawnSync(
    resolve('node_modules/.bin/biome'),
    ['lint', '--vcs-enabled=false', '--max-diagnostics=none', '.'],
    {
      cwd: directory,
      encoding: 'utf8',
    },
  );
  output = run.stdout + run.stderr;
});
after(() => rmSync(directory, { recursive: true }));

for (const [folder, imported] of FORBIDDEN) {
  test(`${folder} may not import ${imported}`, () => {
    assert.ok(output.includes(`${fileOf(folder, imported)}:1:19 lint/style/noRestrictedImports`), output);
  });
}
for (const [folder, imported] of ALLOWED) {
  test(`${folder} may import ${imported}`, () => assert.ok(!output.includes(fileOf(folder, imported)), output));
}
