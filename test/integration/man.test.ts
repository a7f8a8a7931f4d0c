/** The man pages that the build makes of the help. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { COMMANDS } from '../../src/cli/commands.ts';
import { ROOT } from './commands.ts';

const FOLDER = 'dist/man';
const pages = ['isthmus', ...Object.keys(COMMANDS).map((name) => `isthmus-${name}`)].map((name) => `${name}.1`);

test('there is one for each command, and the package has them all', () => {
  const { man, files } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<string, string[]>;
  assert.deepEqual(readdirSync(join(ROOT, FOLDER)).sort(), [...pages].sort());
  assert.deepEqual(
    man,
    pages.map((page) => `${FOLDER}/${page}`),
  );
  assert.ok(files?.includes(FOLDER));
});

test('a page has every word of the help', async () => {
  for (const [name, load] of Object.entries(COMMANDS)) {
    const { help } = await load();
    const page = readFileSync(join(ROOT, FOLDER, `isthmus-${name}.1`), 'utf8');
    const plain = page
      .replaceAll('\\-', '-')
      .replaceAll('\\(aq', "'")
      .replaceAll('\\(ga', '`')
      .replaceAll('\\(ti', '~');
    const words = new Set(plain.replaceAll('\\e', '\\').split(/\s+/));
    assert.deepEqual(
      help
        .trim()
        .split(/\s+/)
        .filter((word) => word !== 'Usage:' && !words.has(word)),
      [],
      name,
    );
  }
});

/** Each prints what is wrong. */
const READERS = {
  man: (page: string) => spawnSync('man', ['--warnings', '-E', 'UTF-8', '-l', page], { encoding: 'utf8' }).stderr,
  mandoc: (page: string) => spawnSync('mandoc', ['-T', 'lint', '-W', 'warning', page], { encoding: 'utf8' }).stdout,
};

for (const [reader, lint] of Object.entries(READERS)) {
  const skip = spawnSync(reader, ['--version']).error !== undefined && `${reader} is missing`;
  test(`${reader} has nothing against them`, { skip }, () => {
    for (const page of pages) {
      const said = lint(join(ROOT, FOLDER, page)).split('\n');
      // Pages of one version are the same whenever they are made.
      assert.deepEqual(
        said.filter((line) => line !== '' && !line.includes('missing date')),
        [],
        page,
      );
    }
  });
}
