import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { UnderWay } from './under-way.ts';

interface One {
  readonly name: string;
}
const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name): One => ({ name })) as [One, One, One, One];

let most: number;
let proceeded: One[];
let underWay: UnderWay<One>;
/** What is done with one that was held. */
let act: (one: One) => void;

beforeEach(() => {
  most = 2;
  proceeded = [];
  act = (one) => underWay.announce(one);
  underWay = new UnderWay<One>(
    () => most,
    (one) => {
      proceeded.push(one);
      act(one);
    },
  );
});

test('what is held proceeds in its order, as others rest', () => {
  underWay.announce(a);
  assert.ok(!underWay.isFull);
  underWay.begin(b);
  assert.ok(underWay.isFull);
  for (const one of [c, d]) underWay.hold(one);
  assert.ok(underWay.isHeld(c) && !underWay.isHeld(a));
  underWay.rest(a);
  assert.deepEqual(proceeded, [c]);
  assert.ok(!underWay.isHeld(c));
  underWay.rest(a); // it rests already
  assert.deepEqual(proceeded, [c]);
  underWay.rest(b);
  assert.deepEqual(proceeded, [c, d]);
  for (const one of [c, d]) underWay.rest(one);
  assert.ok(underWay.isEmpty);
});

test('who was announced and not asked for its socket when the fabric answers waits for the other end, and counts no more', () => {
  for (const one of [a, b]) underWay.announce(one);
  underWay.hold(c);
  underWay.begin(a); // it was asked
  underWay.answered();
  assert.deepEqual(proceeded, [c]);
  assert.ok(underWay.isFull);
  underWay.begin(b); // its other end has come: whether there is room or not
  underWay.rest(a);
  assert.ok(underWay.isFull);
});

test('who has ended while it was held does not proceed', () => {
  most = 1;
  underWay.begin(a);
  for (const one of [b, c]) underWay.hold(one);
  underWay.rest(b);
  underWay.rest(a);
  assert.deepEqual(proceeded, [c]);
});

test('what proceeds and comes to nothing at once lets the next one proceed', () => {
  most = 1;
  underWay.begin(a);
  for (const one of [b, c, d]) underWay.hold(one);
  act = (one) => underWay.rest(one);
  underWay.rest(a);
  assert.deepEqual(proceeded, [b, c, d]);
  assert.ok(underWay.isEmpty);
});

test('a limit that is raised counts at the next rest', () => {
  most = 1;
  underWay.begin(a);
  for (const one of [b, c]) underWay.hold(one);
  most = 3;
  underWay.rest(d);
  assert.deepEqual(proceeded, [b, c]);
});
