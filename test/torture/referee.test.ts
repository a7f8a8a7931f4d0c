import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeRound, type Life, lifeOf, planRound } from './plan.ts';
import { type Case, judge } from './referee.ts';
import type { Outcome } from './words.ts';

const peaceful: Life = { client: { acts: [], last: 'end' }, server: { acts: [], last: 'end' } };

function outcome(side: 'client' | 'server', more: Partial<Outcome> = {}): Outcome {
  const still = {
    wrongAt: null,
    events: ['end', 'close'],
    moved: true,
    startedAt: 0,
    overAt: 1,
    stuck: null,
    died: false,
  };
  return { id: 1, side, written: 100, received: 100, ...still, ...more };
}

function faults(client: Partial<Outcome>, server: Partial<Outcome>, more: Partial<Case> = {}): string {
  const both = { client: outcome('client', client), server: outcome('server', server) };
  const rest = { kind: 'streams', life: peaceful, disturbed: false, unanswered: false, saysLate: false } as const;
  return judge({ ...rest, ...both, ...more }).join();
}

const DEAD: Partial<Outcome> = { died: true, events: [] };
const RESET: Partial<Outcome> = { events: ['error ECONNRESET', 'close'] };
const SAYS_LATE: Partial<Case> = { disturbed: true, saysLate: true };

test('a connection that ends in order has no fault', () => assert.equal(faults({}, {}), ''));

for (const [what, fault, client, server, more] of [
  ['a wrong byte', /wrong byte at 7/, { wrongAt: 7 }, {}, {}],
  ['bytes that did not come', /only 99 of 100/, { received: 99 }, {}, {}],
  ['more than was sent', /101 bytes received of 100/, { received: 101 }, {}, {}],
  ['an end that does not come', /does not end/, { stuck: {} }, {}, {}],
  ['a reset without a cause', /nothing was done/, RESET, {}, {}],
  ['an error that is none of TCP', /TCP does not know: EALREADY/, { events: ['error EALREADY', 'close'] }, DEAD, {}],
  ['an end after the close', /out of order/, { events: ['close', 'end'] }, {}, {}],
  ['a reset though a program that was killed had read all', /had been read/, RESET, DEAD, { disturbed: true }],
  ['a reset though a program that lives had read all', /had been read/, RESET, {}, SAYS_LATE],
  ['nobody at the other end', /no server/, {}, {}, { server: null }],
] as const) {
  test(`${what} is a fault`, () => assert.match(faults(client, server, more), fault));
}

for (const [what, client, server, more] of [
  ['a reset by a program that was killed with bytes unread', RESET, { ...DEAD, received: 99 }, { disturbed: true }],
  ['a reset by a program that was killed and had not said yet what it had read', RESET, DEAD, SAYS_LATE],
  ['a beginning of what a program wrote that was killed', { received: 3 }, DEAD, { disturbed: true }],
  [
    'a request that a program was killed over',
    { ...RESET, written: 0, received: 0 },
    { ...DEAD, written: 0, received: 0 },
    { kind: 'upgrade', disturbed: true },
  ],
  [
    'a refusal while there is no server',
    { events: ['error ECONNREFUSED', 'close'] },
    {},
    { server: null, disturbed: true },
  ],
] as const) {
  test(`${what} is as on TCP`, () => assert.equal(faults(client, server, more), ''));
}

test('a seed gives the same round and the same lives again, and another seed others', () => {
  assert.equal(describeRound(planRound(7)), describeRound(planRound(7)));
  assert.notEqual(describeRound(planRound(7)), describeRound(planRound(8)));
  assert.deepEqual(lifeOf(7, 'slow', 12), lifeOf(7, 'slow', 12));
  assert.notDeepEqual(lifeOf(7, 'slow', 12), lifeOf(7, 'slow', 13));
});
