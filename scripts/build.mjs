// Builds dist/: the compiler's output (dist/src, bench, test), what packages import (dist/lib), the fabric as one file (it must run
// whatever becomes of the rest), and the man pages.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
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
const files = new Map();
for (const { path, text } of outputFiles) {
  const asModule = relative('.', path).replace(/\.cjs$/, '.js');
  const isModule = targets.includes(`./${asModule}`);
  files.set(isModule ? asModule : relative('.', path), isModule ? text : await commonJs(text));
}
await joinPreload('dist/lib/register.cjs', 'dist/lib/chunks/preload.cjs');
for (const [path, text] of files) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/**
 * Puts the chunks that a file needs from the beginning into one of their folder, short but for its names: what is found, read and
 * compiled takes time.
 */
async function joinPreload(path, joined) {
  const chunks = new Set();
  const required = /require\("(\.[^"]*\/(chunk-[^"]+)\.cjs)"\)/g;
  const joinedIn = (code) => code.replace(required, 'chunks["$2"]');
  const gather = (from) => {
    for (const [, to] of files.get(from).matchAll(required)) {
      const chunk = join(dirname(from), to);
      if (chunks.has(chunk)) continue;
      gather(chunk);
      chunks.add(chunk); // behind those that it needs
    }
  };
  gather(path);
  let text = "'use strict';\nconst chunks = {};\n";
  for (const chunk of chunks) {
    const code = files.get(chunk);
    const id = basename(chunk, '.cjs');
    text += `chunks["${id}"] = ((module) => {\n${joinedIn(code)}return module.exports;\n})({ exports: {} });\n`;
    // Who imports it from an ES module is told the names, which nobody reads out of an expression.
    const names = /^0 && \(module\.exports = \{[^}]*\}\);/m.exec(code)?.[0] ?? '';
    files.set(chunk, `'use strict';\n${names}\nmodule.exports = require("./${basename(joined)}")["${id}"];\n`);
  }
  const all = `const chunks = require("./${relative(dirname(path), joined)}");\n`;
  files.set(path, joinedIn(files.get(path)).replace(/^var /m, `${all}var `));
  const short = { ...node, minifyWhitespace: true, minifySyntax: true, lineLimit: 120 };
  files.set(joined, (await transform(`${text}module.exports = chunks;\n`, short)).code);
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
