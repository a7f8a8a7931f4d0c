import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Eid, parseUeid } from '../ism/index.ts';
import { changeEids, defaultEids, type EidTable, eidsMessage, parseUeids, tableOf } from './eids.ts';
import { decodeMessage, EID_CHANGES, encodeMessage, type MessageByName } from './protocol.ts';

const [ADD, DEL, FLUSH, ENABLE, DISABLE] = Object.keys(EID_CHANGES).map(Number) as [
  number,
  number,
  number,
  number,
  number,
];
const SEID = parseUeid('IBM-SYSZ-ISMSEID000000002B3C3906');
const { errno } = constants;

/** A table as it is shown: its UEIDs, and + for an SEID that is enabled, - for one that is not. */
function shown({ ueids, seid, seidEnabled }: EidTable): string {
  return [...ueids, ...(seid === null ? [] : [seidEnabled ? '+' : '-'])].join(' ');
}

/** Goes on from a table, each step with the error and the table that it should come to. */
function story(seid: Eid | null, steps: readonly (readonly [number, string, number, string])[]): void {
  let table = defaultEids(seid);
  for (const [change, ueid, error, expected] of steps) {
    const outcome = changeEids(table, change, ueid);
    assert.deepEqual([outcome.error, shown(outcome.table)], [error, expected], `${EID_CHANGES[change as 1]} ${ueid}`);
    assert.equal(outcome.text !== '', error !== 0, 'an error is said in words');
    if (error !== 0 && error !== errno.EAGAIN) assert.equal(outcome.table, table, 'it is as it was');
    table = outcome.table;
  }
}

test('UEIDs: four at most, none twice, none that is bad or unknown; without an SEID the last one may go', () => {
  story(null, [
    [ADD, 'ISTHMUS', errno.EEXIST, 'ISTHMUS'],
    [ADD, 'A', 0, 'ISTHMUS A'],
    [ADD, 'lower', errno.EINVAL, 'ISTHMUS A'],
    [ADD, 'B..C', errno.EINVAL, 'ISTHMUS A'],
    [ADD, '', errno.EINVAL, 'ISTHMUS A'],
    [ADD, 'B', 0, 'ISTHMUS A B'],
    [ADD, 'C', 0, 'ISTHMUS A B C'],
    [ADD, 'D', errno.ERANGE, 'ISTHMUS A B C'],
    [ADD, 'A', errno.ERANGE, 'ISTHMUS A B C'],
    [DEL, 'A', 0, 'ISTHMUS B C'],
    [DEL, 'A', errno.ENOENT, 'ISTHMUS B C'],
    [DEL, 'isthmus', errno.EINVAL, 'ISTHMUS B C'],
    [DEL, 'ISTHMUS', 0, 'B C'],
    [FLUSH, '', 0, ''],
    [FLUSH, '', 0, ''],
    [ADD, 'ISTHMUS', 0, 'ISTHMUS'],
    [DEL, 'ISTHMUS', 0, ''],
  ]);
});

test('a machine without an SEID can neither enable nor disable it', () => {
  story(null, [
    [ENABLE, '', errno.EOPNOTSUPP, 'ISTHMUS'],
    [DISABLE, '', errno.EOPNOTSUPP, 'ISTHMUS'],
    [FLUSH, '', 0, ''],
    [DISABLE, '', errno.EOPNOTSUPP, ''],
  ]);
});

test('the SEID can be disabled while there is a UEID, and is enabled when the last one goes', () => {
  story(SEID, [
    [ENABLE, '', 0, 'ISTHMUS +'],
    [DISABLE, '', 0, 'ISTHMUS -'],
    [ADD, 'A', 0, 'ISTHMUS A -'],
    [DEL, 'ISTHMUS', 0, 'A -'],
    [DEL, 'A', errno.EAGAIN, '+'],
    [DISABLE, '', errno.ENOENT, '+'],
    [ADD, 'A', 0, 'A +'],
    [DISABLE, '', 0, 'A -'],
    [FLUSH, '', 0, '+'],
    [ADD, 'A', 0, 'A +'],
    [DEL, 'A', errno.EAGAIN, '+'],
  ]);
});

test('whatever is asked of a table, it remains one, and comes through a message as it is', () => {
  const ueid = fc.oneof(
    fc.string({ unit: fc.constantFrom('A', 'B', '.'), maxLength: 2 }),
    fc.string({ unit: 'binary', maxLength: 40 }),
  );
  const changes = fc.array(fc.tuple(fc.integer({ min: 0, max: 6 }), ueid), { maxLength: 40 });
  fc.assert(
    fc.property(changes, fc.constantFrom(SEID, null), (all, seid) => {
      let table = defaultEids(seid);
      for (const [change, text] of all) table = changeEids(table, change, text).table;
      assert.deepEqual(parseUeids(table.ueids), table.ueids);
      assert.ok(table.seidEnabled ? seid !== null : seid === null || table.ueids.length > 0);
      const packet = encodeMessage(eidsMessage(table));
      assert.deepEqual(tableOf(decodeMessage(packet, [], 'fabric') as MessageByName<'EIDS'>), table);
    }),
  );
});

test('what is no table in a message is refused', () => {
  const good = eidsMessage(defaultEids(SEID));
  for (const change of [
    { ueids: 'A A' },
    { ueids: 'A  B' },
    { ueids: ' ' },
    { ueids: 'A B C D E' },
    { ueids: 'a' },
    { ueids: 'A\n' },
    { ueids: 'X'.repeat(32_000) },
    { seid: 'X'.repeat(33) },
    { seid: '\u001b[2J' },
  ])
    assert.throws(() => tableOf({ ...good, ...change }), TypeError, JSON.stringify(change).slice(0, 50));
});
