/** The programs of compat/, for a moment each; `npm run compat` measures them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Programs } from '../../src/cli/programs.ts';
import { cannotMove, ROOT } from '../integration/commands.ts';
import { exchange, hasNotMoved, judge, missingFor, SUBJECTS } from './packages.ts';

/** For a connection to become old enough, and move. */
const SECONDS = 1;
/** Where others had the CPU meanwhile. */
const MORE_SECONDS = 6;

const programs = new Programs(() => {}, new Promise(() => {}));
after(() => programs.close());

for (const subject of SUBJECTS) {
  const { name, expects } = subject;
  const skip = missingFor(subject) ?? cannotMove();
  test(`${name} answers as over plain TCP, and its connections are ${expects}`, { skip }, async () => {
    const runFor = (seconds: number) => exchange(programs, subject, 'run', seconds);
    const [plain, run] = await Promise.all([exchange(programs, subject, 'plain', 0), runFor(SECONDS)]);
    judge(subject, plain, hasNotMoved(subject, run) ? await runFor(MORE_SECONDS) : run);
  });
}

test('docs/compatibility.md is about these programs', () => {
  const text = readFileSync(join(ROOT, 'docs/compatibility.md'), 'utf8');
  const rows = [...text.matchAll(/^\| `([\w.-]+)` \| .*? \| .*? \| (SMC-D|TCP)\b/gm)].map(([, ...row]) => row);
  assert.deepEqual(
    rows,
    SUBJECTS.map(({ name, expects }) => [name, expects]),
  );
  const moved = SUBJECTS.filter(({ expects }) => expects === 'SMC-D').length;
  assert.ok(text.includes(`${moved} of ${SUBJECTS.length} programs moved`), 'the count of those that moved');
});
