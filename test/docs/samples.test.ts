/** Runs what documents show: fenced blocks whose info string ends in `run`, as a user would, in a folder with the package installed. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { cannotMove, type Finished, ROOT, Workplace } from '../integration/commands.ts';

const DOCUMENTS = ['README.md', 'CONTRIBUTING.md', 'docs/devices.md', 'docs/settings.md'];

/** Stands for the user's program. */
const SERVER = `
  const server = require('node:net').createServer().listen(0, '127.0.0.1');
  setTimeout(() => server.close(), 100);
`;

let work: Workplace;
beforeEach(() => {
  work = new Workplace();
  mkdirSync(join(work.directory, 'node_modules/.bin'), { recursive: true });
  symlinkSync(ROOT, join(work.directory, 'node_modules/isthmus'));
  symlinkSync('../isthmus/dist/src/cli/isthmus.cjs', join(work.directory, 'node_modules/.bin/isthmus'));
  writeFileSync(join(work.directory, 'server.js'), SERVER);
});
afterEach(() => work.close());

function run(language: string, code: string): Promise<Finished> {
  const options = { cwd: work.directory, env: work.env };
  if (language === 'sh') return work.finish('sh', ['-e', '-c', code], options);
  const file = join(work.directory, 'sample.mjs');
  writeFileSync(file, code);
  return work.finish(process.execPath, [file], options);
}

for (const document of DOCUMENTS) {
  const blocks = readFileSync(join(ROOT, document), 'utf8').matchAll(/^```(sh|js) run( tests)?\n([\s\S]*?)^```/gm);
  for (const [, language = '', isTests, code = ''] of blocks) {
    test(`${document}: ${code.trim().split('\n').at(-1)}`, { skip: cannotMove() }, async () => {
      const { code: exitCode, stdout, stderr } = await run(language, code);
      assert.equal(exitCode, 0, stderr);
      // A line that a sample prints stands in a comment beside it.
      if (language === 'js' && isTests === undefined)
        for (const line of stdout.split('\n')) assert.ok(line === '' || code.includes(`// ${line}`), line);
    });
  }
}
