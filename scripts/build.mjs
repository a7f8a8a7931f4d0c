// Builds dist/: the compiler's output (dist/src), what packages import, in few files (dist/lib: each file more costs the start of a
// program a millisecond), and the fabric as one file (it must run whatever becomes of the rest).
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { build } from 'esbuild';

const root = new URL('..', import.meta.url).pathname;
process.chdir(root);
rmSync('dist', { recursive: true, force: true });
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc'], { stdio: 'inherit' });
const { exports } = JSON.parse(readFileSync('package.json', 'utf8'));
/** What programs load that have their connections moved: of its own, since what is shared with more falls into more files. */
const program = ['.', './register'];
const options = {
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  external: ['koffi'],
  sourcemap: true,
  sourcesContent: false,
};
for (const isOfProgram of [true, false]) {
  const files = Object.entries(exports)
    .filter(([name, { default: file }]) => file !== undefined && program.includes(name) === isOfProgram)
    .map(([, { default: file }]) => join('dist/src', relative('dist/lib', file)));
  await build({
    ...options,
    entryPoints: files,
    outbase: 'dist/src',
    outdir: 'dist/lib',
    splitting: true,
    // As deep as the modules they are made of, which find the fabric from where they are.
    chunkNames: 'chunks/[name]-[hash]',
  });
}
await build({ ...options, entryPoints: ['dist/src/fabric/main.js'], outfile: 'dist/isthmus-fabric.js' });
chmodSync('dist/src/cli/isthmus.cjs', 0o755);
