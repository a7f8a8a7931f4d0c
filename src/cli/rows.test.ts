import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ConnectionInfo } from '../net/info.ts';
import { rowText, TEXT_BYTES } from '../net/table.ts';
import { REASONS } from '../smc/reasons.ts';
import { parseRow } from './rows.ts';
import { formatConnections } from './ss.ts';
import { printable, printableJson } from './text.ts';

const GOOD = {
  id: '77.0.1',
  pid: 77,
  program: '/srv/program.js',
  role: 'client',
  state: 'ACTIVE',
  mode: 'SMC-D',
  reason: 0,
  device: 'host',
  access: 'mapped',
  local: { address: '127.0.0.1', port: 4000 },
  peer: { address: 'fe80::1%eth0', port: 80 },
  movedAtMs: 1_700_000_000_000,
  gid: '01234567-89ab-cdef-0123-456789abcdef',
  peerGid: '01234567-89ab-cdef-0123-456789abcdef',
  linkGroup: '0x00000001',
  chid: '0xff00',
  dmbBytes: 65536,
};
const COUNTERS = [1, 2, 3, 4, 5, 6, 7];
const parse = (changes: object, counters = COUNTERS) => parseRow(JSON.stringify({ ...GOOD, ...changes }), counters, 5);

test('a row says what its program wrote, and whose it is says the process it was found in', () => {
  const row = parse({ pid: 1, uid: 0 });
  assert.ok(row);
  const { reason, bytes, ...rest } = row;
  const { reason: _, ...written } = GOOD;
  assert.deepEqual(rest, { ...written, pid: 5, id: '5.0.1' });
  assert.equal(reason.name, 'MOVED');
  assert.deepEqual(bytes, { inTcp: 1, inShm: 2, outTcp: 3, outShm: 4 });
});

const ESC = '\u001b[2J';
for (const bad of [
  { id: null },
  { id: `1${ESC}` },
  { program: 7 },
  { program: 'x'.repeat(201) },
  { role: 'both' },
  { state: ESC },
  { state: 'toString' },
  { mode: 'SMC-R' },
  { reason: -1 },
  { reason: 2 ** 32 },
  { reason: '1' },
  { device: ESC },
  { access: 'all' },
  { access: null },
  { local: {} },
  { local: 'x' },
  { local: { address: ESC, port: 1 } },
  { local: { address: `fe80::1%${'a'.repeat(100)}`, port: 1 } },
  { peer: { address: '127.0.0.1', port: 65536 } },
  { peer: { address: '127.0.0.1', port: '80' } },
  { peer: undefined },
  { movedAtMs: 'now' },
  { gid: ESC },
  { peerGid: 1 },
  { linkGroup: '0x1' },
  { chid: ESC },
  { dmbBytes: -1 },
]) {
  test(`no row: ${JSON.stringify(bad)}`, () => assert.equal(parse(bad), null));
}

test('no row: what is no object, no JSON, or counts wrongly', () => {
  for (const text of ['', '{', 'null', '1', '"x"', '[]']) assert.equal(parseRow(text, COUNTERS, 5), null);
  for (const count of [Number.NaN, Number.POSITIVE_INFINITY, -1, 0.5])
    assert.equal(parse({}, [count, 0, 0, 0, 0, 0, 0]), null);
});

test('whatever stands there is a row that can be printed, or none', () => {
  const value = fc.oneof(fc.jsonValue(), fc.constantFrom(...Object.values(GOOD)));
  const keys = Object.keys(GOOD) as (keyof typeof GOOD)[];
  fc.assert(
    fc.property(fc.constantFrom(...keys), value, (key, one) => {
      const row = parse({ [key]: one });
      if (row === null) return;
      assert.match(formatConnections([row], true), /^[ -~\n]*$/);
      assert.deepEqual(JSON.parse(printableJson([row])), [row]);
    }),
  );
});

test('a row keeps a hint that is another one, though the text is the common one', () => {
  const { TIMEOUT, PEERNOSMC } = REASONS;
  const said = (reason: object) =>
    parseRow(rowText({ ...GOOD, reason } as unknown as ConnectionInfo), COUNTERS, 5)?.reason;
  assert.deepEqual(said({ ...TIMEOUT, hint: 'wait' }), { ...TIMEOUT, hint: 'wait' });
  assert.deepEqual(said(TIMEOUT), TIMEOUT);
  const hint = PEERNOSMC.hint.replace('HOST:PORT', '[fe80::1%eth0]:80');
  assert.ok(!rowText({ ...GOOD, reason: { ...PEERNOSMC, hint } } as unknown as ConnectionInfo).includes('cause'));
});

test('a row has room for any program', () => {
  const { reason: _, ...rest } = GOOD;
  const address = { address: '0123:4567:89ab:cdef:0123:4567:89ab:cdef', port: 65535 };
  const longest = { ...rest, id: '4294967295.4294967295.9007199254740991', local: address, peer: address };
  for (const character of ['x', '\u4e2d', '\u0001', '"']) {
    const text = rowText({ ...longest, reason: REASONS.PAIRLOST, program: character.repeat(4000) } as ConnectionInfo);
    assert.ok(Buffer.byteLength(text) <= TEXT_BYTES, `${Buffer.byteLength(text)}`);
    assert.match(parseRow(text, COUNTERS, 5)?.program ?? '', new RegExp(`^[${character}]{60,}$`));
  }
});

test('text of others moves no cursor', () => {
  assert.equal(
    printable('a\u001b[2J\u0007\u009b\u202e\u2028\nä\u{e0001}'),
    'a\\u001b[2J\\u0007\\u009b\\u202e\\u2028\\u000aä\\udb40\\udc01',
  );
  assert.equal(printable('x'.repeat(5), 3), 'xxx...');
  const value = { text: '\u009b\u202e"\\ä\u{e0001}' };
  assert.doesNotMatch(printableJson(value), /[\u009b\u202e]/);
  assert.deepEqual(JSON.parse(printableJson(value)), value);
});
