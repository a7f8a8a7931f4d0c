// Builds dist/: the compiler's output (dist/src, bench, test), what packages import (dist/lib), the fabric as one file (it must run
// whatever becomes of the rest), and the man pages.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, relative } from 'node:path';
import { build, transform } from 'esbuild';
import { writeManPages } from './man.mjs';

const root = new URL('..', import.meta.url).pathname;
process.chdir(root);
rmSync('dist', { recursive: true, force: true });
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc'], { stdio: 'inherit' });
const node = { platform: 'node', target: 'node20' };
const bundle = { ...node, bundle: true, format: 'esm', external: ['koffi'] };

// What packages import: in few files, and the preload and all that it loads as CommonJS, since the start of each program pays for it.
const { exports } = JSON.parse(readFileSync('package.json', 'utf8'));
const targets = Object.values(exports).flatMap((target) => target.default ?? []);
const moduleOf = (target) => target.replace('dist/lib', 'dist/src').replace(/\.c?js$/, '.js');
const { outputFiles } = await build({
  ...bundle,
  entryPoints: targets.map(moduleOf),
  outbase: 'dist/src',
  outdir: 'dist/lib',
  splitting: true,
  // As deep as the modules they are made of, which find the fabric from where they are.
  chunkNames: 'chunks/[name]-[hash]',
  outExtension: { '.js': '.cjs' },
  write: false,
});
for (const { path, text } of outputFiles) {
  const asModule = relative('.', path).replace(/\.cjs$/, '.js');
  const isModule = targets.includes(`./${asModule}`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(isModule ? asModule : path, isModule ? text : await commonJs(text));
}

/** An ES module as CommonJS. */
async function commonJs(text) {
  const asksWhereItIs = text.includes('import.meta.url');
  const { code } = await transform(text, {
    ...node,
    format: 'cjs',
    supported: { 'dynamic-import': false },
    define: { 'import.meta.url': 'importMetaUrl' },
    banner: `'use strict';${asksWhereItIs ? " const importMetaUrl = require('node:url').pathToFileURL(__filename).href;" : ''}`,
  });
  // Values in the place of getters, which would make each call from one file into another twice as slow.
  return `${code}module.exports = { ...module.exports };\n`;
}

await build({ ...bundle, entryPoints: ['dist/src/fabric/main.js'], outfile: 'dist/isthmus-fabric.js' });
chmodSync('dist/src/cli/isthmus.cjs', 0o755);
await writeManPages('dist/man');
