import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { eidPath, loadEids, saveEids } from './eid-file.ts';
import { parseUeids } from './eids.ts';

let directory: string;
let socket: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'isthmus-eids-'));
  socket = join(directory, 'fabric.sock');
});
afterEach(() => rmSync(directory, { recursive: true }));

const ueidsOf = (list: readonly string[]) => ({ ueids: parseUeids(list), seid: null, seidEnabled: false });
const silent = (text: string) => assert.fail(text);

test('what is stored is found again; without a file there is the default', () => {
  assert.deepEqual(loadEids(socket, silent).ueids, ['ISTHMUS']);
  for (const list of [['A', 'B.C'], [], ['A', 'B', 'C', 'D']]) {
    saveEids(socket, ueidsOf(list));
    assert.deepEqual(loadEids(socket, silent).ueids, list);
    assert.deepEqual(readdirSync(directory), ['fabric.eids'], 'nothing else is left');
  }
});

test('what a fabric that was killed left unfinished is in nobody’s way', () => {
  saveEids(socket, ueidsOf(['A']));
  writeFileSync(`${eidPath(socket)}.new`, '{"ueids":["B"');
  assert.deepEqual(loadEids(socket, silent).ueids, ['A']);
  saveEids(socket, ueidsOf(['C']));
  assert.deepEqual(loadEids(socket, silent).ueids, ['C']);
});

test('a link in the place of the unfinished file is not followed', () => {
  const victim = join(directory, 'victim');
  writeFileSync(victim, 'precious');
  symlinkSync(victim, `${eidPath(socket)}.new`);
  saveEids(socket, ueidsOf(['A']));
  assert.equal(readFileSync(victim, 'utf8'), 'precious');
  assert.deepEqual(loadEids(socket, silent).ueids, ['A']);
});

test('a directory that cannot be written to is an error, and the old table stands', () => {
  saveEids(socket, ueidsOf(['A']));
  mkdirSync(`${eidPath(socket)}.new`); // root may write everywhere else
  assert.throws(() => saveEids(socket, ueidsOf(['B'])));
  assert.deepEqual(loadEids(socket, silent).ueids, ['A']);
});

/** Passed over with one warning. */
function assertPassedOver(pattern: RegExp): void {
  const warnings: string[] = [];
  assert.deepEqual(loadEids(socket, (text) => warnings.push(text)).ueids, ['ISTHMUS']);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] as string, pattern);
}

test('what is no table is passed over, with a warning', () => {
  for (const text of [
    '',
    'null',
    '7',
    '[]',
    '"A"',
    '{}',
    '{"ueids":"A"}',
    '{"ueids":[["A"]]}',
    '{"ueids":[7]}',
    '{"ueids":["A","A"]}',
    '{"ueids":["a"]}',
    '{"ueids":["A","B","C","D","E"]}',
    '{"ueids":["A"]',
    `{"ueids":["A"]}${' '.repeat(5000)}x`,
    '\0\u{10ffff}',
  ]) {
    writeFileSync(eidPath(socket), text);
    assertPassedOver(/fabric\.eids is passed over: /);
  }
});

const elsewhere = () => {
  writeFileSync(join(directory, 'elsewhere'), '{"ueids":["A"]}');
  return join(directory, 'elsewhere');
};
const needsRoot = process.getuid?.() !== 0 && 'needs root to give a file away';

for (const [what, make, pattern, skip] of [
  ['a link', (path: string) => symlinkSync(elsewhere(), path), /ELOOP/, false],
  ['a directory', (path: string) => mkdirSync(path), /no file/, false],
  ['a pipe', (path: string) => execFileSync('mkfifo', [path]), /no file/, false],
  ['a file that others may write', (path: string) => chmodSync(path, 0o666), /written by others/, false],
  ['a file of another user', (path: string) => chownSync(path, 12345, 12345), /belongs to user 12345/, needsRoot],
] as const) {
  test(`${what} is passed over, with a warning`, { skip }, () => {
    if (what.startsWith('a file')) saveEids(socket, ueidsOf(['A']));
    make(eidPath(socket));
    assertPassedOver(pattern);
  });
}
