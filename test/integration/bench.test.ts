/** The benchmark gives figures. What they are is no matter of a test. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Report } from '../../bench/report.ts';
import { CLI, cannotMove, ROOT, Workplace } from './commands.ts';

let work: Workplace;
before(() => {
  work = new Workplace();
});
after(() => work.close());

/** On a busy machine. */
const LIMIT_MS = 280_000;
/** Packages that only those have who develop this one. */
const NOT_INSTALLED = /: (the package \w+ is not installed)$/;

for (const question of ['http', 'ws', 'peers', 'sweep', 'scale']) {
  test(`bench --quick --only ${question} gives figures`, { skip: cannotMove() }, async (t) => {
    const args = [CLI, 'bench', '--quick', '--rounds', '1', '--json', '--only', question];
    const { stdout, stderr } = await work.finish(process.execPath, args, {}, LIMIT_MS);
    assert.notEqual(stdout, '', stderr);
    const { comparisons, gaps } = JSON.parse(stdout) as Report;
    assert.deepEqual(
      gaps.filter((gap) => !NOT_INSTALLED.test(gap)),
      [],
    );
    assert.ok(comparisons.length > 0);
    for (const why of new Set(gaps.map((gap) => NOT_INSTALLED.exec(gap)?.[1]))) t.diagnostic(`left out: ${why}`);
    const withoutValue = comparisons.flatMap(({ step, figure, transports }) =>
      transports.filter(({ value }) => value === null).map(({ name }) => `${step}, ${figure}: ${name}`),
    );
    const mayBeMissing = [
      /^fetch .*: Unix$/, // it knows no Unix sockets
      /^round trip .*: memcpy$/,
      ...(gaps.length > 0 ? [/: zeromq$/, /^ws/] : []),
    ];
    assert.deepEqual(
      withoutValue.filter((one) => !mayBeMissing.some((pattern) => pattern.test(one))),
      [],
    );
    const values = comparisons.flatMap(({ transports }) => transports.flatMap(({ value }) => value?.median ?? []));
    assert.deepEqual(
      values.filter((value) => !(value > 0)),
      [],
    );
  });
}

test('a report that was kept becomes a document', async () => {
  const { stdout } = await work.finish(process.execPath, [CLI, 'bench', '--only', 'clc', '--json']);
  const [kept, document, plots] = ['kept.json', 'RESULTS.md', 'plots'].map((name) => join(work.directory, name));
  writeFileSync(kept as string, stdout);
  const args = [CLI, 'bench', '--from', kept, '--markdown', document, '--svg', plots] as string[];
  const { code, stdout: text, stderr } = await work.finish(process.execPath, args);
  assert.equal(code, 0, stderr);
  const [{ findings = [] } = {}] = (JSON.parse(stdout) as Report).answers;
  assert.ok(findings.length > 0);
  for (const { name } of findings) {
    assert.ok(text.includes(name), name);
    assert.ok(readFileSync(document as string, 'utf8').includes(name), name);
  }
  assert.ok(existsSync(plots as string));
});

test('what is no report is called wrongly', async () => {
  for (const file of ['/nowhere.json', CLI, join(ROOT, 'package.json')]) {
    const { code, stderr } = await work.finish(process.execPath, [CLI, 'bench', '--from', file]);
    assert.equal(code, 2);
    assert.match(stderr, /--from: /);
  }
});
