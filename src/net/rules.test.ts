import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PolicyError, parseRule, parseRules, type Subject } from './rules.ts';

const SUBJECT: Subject = {
  direction: 'connect',
  address: '127.0.0.1',
  port: 5432,
  who: { uid: 1000, user: 'ada', program: '/srv/shop/server.js' },
};

function fits(text: string, subject: Partial<Subject> = {}): boolean {
  return parseRule(text, 'here').fits({ ...SUBJECT, ...subject });
}

test('a rule fits when all that it names does', () => {
  for (const [text, expected] of [
    ['deny', true],
    ['deny connect', true],
    ['deny accept', false],
    ['deny *:5432', true],
    ['deny *:1,127.0.0.0/8:5000-6000', true],
    ['deny *:5433', false],
    ['deny user ada', true],
    ['deny user 1000', true],
    ['deny user 100', false],
    ['deny user grace', false],
    ['deny program server.js', true],
    ['deny program *.js', true],
    ['deny program s?rver.*', true],
    ['deny program s*shop', false],
    ['deny program srv*js', false],
    ['deny program server', false],
    ['deny program /srv/*', true],
    ['deny program srv/*', true],
    ['deny program hop/server.js', false],
    ['deny program shop/server.js', true],
    ['deny program /shop/server.js', false],
    ['deny program serverxjs', false],
    ['deny connect *:5432 user ada program server.js', true],
    ['deny program server.js user ada *:5432 connect', true],
    ['deny connect *:5432 user ada program other.js', false],
  ] as const) {
    assert.equal(fits(text), expected, text);
  }
});

test('an end without an address fits no address', () => {
  assert.equal(fits('deny *:*', { address: undefined, port: undefined }), false);
  assert.equal(fits('deny', { address: undefined, port: undefined }), true);
});

test('what is no rule says what is wrong and how it is written', () => {
  for (const [text, words] of [
    ['forbid *:1', /begins with allow or deny, not forbid/],
    ['deny 5432', /\*:5432/],
    ['deny :5432', /\*:5432/],
    ['deny all', /all is none of connect, accept, user, program, and no ADDRESS:PORT such as \*:5432/],
    ['deny localhost:5432', /names are not looked up/],
    ['deny user', /user stands at the end, without a value/],
    ['deny connect accept', /a direction stands there twice/],
    ['deny user ada user grace', /user stands there twice/],
  ] as const) {
    assert.throws(() => parseRule(text, 'here'), words, text);
    assert.throws(() => parseRules(text), PolicyError, text);
  }
});

test('rules of a variable have semicolons between, and say that they stand there', () => {
  const rules = parseRules(' allow *:1 ;; deny; ');
  assert.deepEqual(
    rules.map(({ allows, where }) => [allows, where]),
    [
      [true, 'ISTHMUS_RULES'],
      [false, 'ISTHMUS_RULES'],
    ],
  );
  assert.match(rules[1]?.reason?.hint ?? '', /ISTHMUS_RULES/);
  assert.deepEqual(parseRules(''), []);
});
