import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { CurrentPolicy } from './current-policy.ts';
import { DEFAULT_POLICY, FILE_SETTINGS } from './policy.ts';
import { parsePolicyFile, pathOfFile, readPolicyFile } from './policy-file.ts';
import { PolicyError } from './rules.ts';

const read = (text: string) => parsePolicyFile(text, '/f');

test('settings, rules and comments', () => {
  const { base, rules, places } = read(
    '# all\n\nISTHMUS_POLICY = eager # now\r\n  deny *:1 # no\nISTHMUS_LAZY_MS=\nallow',
  );
  assert.deepEqual(base, { ...DEFAULT_POLICY, mode: 'eager' });
  assert.deepEqual(
    rules.map(({ allows, where }) => [allows, where]),
    [
      [false, '/f:4'],
      [true, '/f:6'],
    ],
  );
  assert.equal(places.get('ISTHMUS_POLICY'), '/f:3');
});

test('a mistake is told with its line, and what may have been meant', () => {
  for (const [text, words] of [
    ['\nISTHMUS_POLCY=off', '/f:2: there is no setting ISTHMUS_POLCY (did you mean ISTHMUS_POLICY?)'],
    ['policy=off', '/f:1: there is no setting policy (did you mean ISTHMUS_POLICY?)'],
    ['COLOR=red', '/f:1: there is no setting COLOR'],
    ['ISTHMUS_POLICY=on', '/f:1: ISTHMUS_POLICY=on is none of eager, lazy, off'],
    ['ISTHMUS_DMB_BYTES=17', '/f:1: ISTHMUS_DMB_BYTES=17 is no power of two from 16384 to 1048576'],
    ['ISTHMUS_LOCAL=10.0.0.0/99', '/f:1: ISTHMUS_LOCAL=10.0.0.0/99: not a prefix length: 99'],
    ['ISTHMUS_FABRIC=/x', '/f:1: ISTHMUS_FABRIC can be set in the environment only'],
    ['ISTHMUS_POLICY=off\nISTHMUS_POLICY=lazy', '/f:2: ISTHMUS_POLICY is set in /f:1 already'],
    ['denied *:1', '/f:1: neither NAME=value nor a rule, which begins with allow or deny: denied *:1'],
    ['allow 1\ndeny 2\ndeny 3', '/f:1: a port is written with an address before it: *:1 (2 more)'],
  ] as const) {
    assert.throws(() => read(text), { name: 'Error', message: words }, text);
  }
});

test('any text is a policy or a mistake with a line', () => {
  const word = fc.oneof(
    fc.constantFrom(...FILE_SETTINGS, 'allow', 'deny', 'user', 'program', 'connect', '*:1', '=', '#', '\n', 'off', '7'),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(word), (words) => {
      try {
        read(words.join(' '));
      } catch (error) {
        assert.ok(error instanceof PolicyError);
        assert.match(error.where, /^\/f:\d+$/);
      }
    }),
  );
});

test('which file: a whole path, none, or the one of the host', () => {
  assert.equal(pathOfFile({}), '/etc/isthmus.conf');
  assert.equal(pathOfFile({ ISTHMUS_CONFIG: '' }), '/etc/isthmus.conf');
  assert.equal(pathOfFile({ ISTHMUS_CONFIG: 'none' }), null);
  assert.equal(pathOfFile({ ISTHMUS_CONFIG: '/a' }), '/a');
  assert.throws(() => pathOfFile({ ISTHMUS_CONFIG: 'a.conf' }), PolicyError);
});

test('a file may be reached by a link; a folder, or one that is too long, is none', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'isthmus-policy-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [file, link] = [join(folder, 'file'), join(folder, 'link')];
  writeFileSync(file, 'deny\n', { mode: 0o600 });
  symlinkSync(file, link);
  assert.equal(readPolicyFile(link).rules.length, 1);
  writeFileSync(file, '#'.repeat(65_537));
  assert.throws(() => readPolicyFile(file), /too long/);
  assert.throws(() => readPolicyFile(folder), PolicyError);
});

test('what the policy says of a connection, and where that stands', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'isthmus-policy-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'file');
  writeFileSync(file, 'ISTHMUS_POLICY=off\ndeny *:1\nallow *:2\n', { mode: 0o600 });
  const ask = (port: number, env: NodeJS.ProcessEnv) => {
    const who = { uid: 1, user: null, program: '/p.js' };
    const { reason, where } = new CurrentPolicy(env).decide({ direction: 'accept', address: '127.0.0.1', port, who });
    return [reason?.name ?? null, where];
  };
  const env = { ISTHMUS_CONFIG: file };
  assert.deepEqual(ask(1, env), ['DENIED', `${file}:2`]);
  assert.deepEqual(ask(3, env), ['OFF', `${file}:1`]);
  assert.deepEqual(ask(2, { ...env, ISTHMUS_POLICY: 'lazy' }), [null, `${file}:3`]);
  assert.deepEqual(ask(3, { ...env, ISTHMUS_POLICY: 'lazy' }), [null, 'ISTHMUS_POLICY']);
  assert.deepEqual(ask(1, { ...env, ISTHMUS_POLICY: 'lazy', ISTHMUS_RULES: 'allow' }), [null, 'ISTHMUS_RULES']);
  assert.deepEqual(ask(1, { ISTHMUS_CONFIG: 'none' }), [null, 'default']);
  assert.deepEqual(ask(1, { ISTHMUS_CONFIG: 'x' }), ['BADPOLICY', 'ISTHMUS_CONFIG']);
  assert.deepEqual(ask(1, { ISTHMUS_CONFIG: 'none', ISTHMUS_RULES: 'deny 1' }), ['BADPOLICY', 'ISTHMUS_RULES']);
});
