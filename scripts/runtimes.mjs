// Installs Bun and Deno for test/integration/runtimes.test.ts: node scripts/runtimes.mjs
// The packages that hold the programs themselves, so that nothing has to be downloaded by a script of theirs.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const folder = join(new URL('..', import.meta.url).pathname, '.runtimes');
const isMusl = process.report?.getReport().header.glibcVersionRuntime === undefined;
const cpu = { x64: ['x64', 'x64'], arm64: ['aarch64', 'arm64'] }[process.arch];
if (process.platform !== 'linux' || isMusl || cpu === undefined) {
  console.error('there are packages for Linux with glibc on x64 and arm64 only');
  process.exit(1);
}
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
const packages = [`@oven/bun-linux-${cpu[0]}@^1.2.0`, `@deno/linux-${cpu[1]}-glibc@^2.2.0`];
const { status } = spawnSync('npm', ['install', '--prefix', folder, '--ignore-scripts', '--no-audit', ...packages], {
  stdio: 'inherit',
});
process.exit(status ?? 1);
