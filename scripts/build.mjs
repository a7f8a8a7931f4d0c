// Builds dist/: the compiler's output, and the fabric as one bundled file (it must run whatever becomes of the rest).
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, rmSync } from 'node:fs';
import { build } from 'esbuild';

const root = new URL('..', import.meta.url).pathname;
process.chdir(root);
rmSync('dist', { recursive: true, force: true });
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc'], { stdio: 'inherit' });
if (existsSync('dist/src/fabric/main.js')) {
  await build({
    entryPoints: ['dist/src/fabric/main.js'],
    outfile: 'dist/isthmus-fabric.js',
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    external: ['koffi'],
  });
}
if (existsSync('dist/src/cli/isthmus.cjs')) chmodSync('dist/src/cli/isthmus.cjs', 0o755);
