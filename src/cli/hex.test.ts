import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { vector } from '../smc/clc/clc.test.helper.ts';
import { bytesOfHex, HexError, isHex } from './hex.ts';

const PROPOSAL = vector('40-v21-loopback-first-contact message 1');
const DIGITS = PROPOSAL.toString('hex');

const rows = (width: number) =>
  Array.from({ length: Math.ceil(PROPOSAL.length / width) }, (_, i) => PROPOSAL.subarray(i * width, (i + 1) * width));
const grouped = (bytes: Buffer, size: number) =>
  bytes.toString('hex').replace(new RegExp(`(.{${size * 2}})(?=.)`, 'g'), '$1 ');
const characters = (bytes: Buffer) => bytes.toString('latin1').replace(/[^ -~]/g, '.');
const offset = (i: number, digits: number, base = 16) => i.toString(base).padStart(digits, '0');

/** Lines that repeat the one before become a `*`. */
function squeezed(lines: readonly (readonly [head: string, rest: string])[], end: string): string {
  const text: string[] = [];
  for (const [i, [head, rest]] of lines.entries()) {
    if (lines[i - 1]?.[1] === rest && i < lines.length - 1) {
      if (text.at(-1) !== '*') text.push('*');
    } else text.push(head + rest);
  }
  return `${text.join('\n')}\n${end}\n`;
}

const FORMS: Readonly<Record<string, string>> = {
  plain: DIGITS,
  'upper case, with a prefix': `0x${DIGITS.toUpperCase()}`,
  'bytes with blanks': grouped(PROPOSAL, 1),
  'bytes with colons': grouped(PROPOSAL, 1).replaceAll(' ', ':'),
  'words in lines': rows(16)
    .map((row) => grouped(row, 4))
    .join('\n'),
  'an array of C': `{ ${grouped(PROPOSAL, 1).replace(/\w\w/g, '0x$&').replaceAll(' ', ', ')} }`,
  'a string of C': grouped(PROPOSAL, 1).replace(/(\w\w) ?/g, '\\x$1'),
  'with comments': `# a proposal\n${DIGITS}\n# that was it\n`,
  xxd: rows(16)
    .map((row, i) => `${offset(i * 16, 8)}: ${grouped(row, 2).padEnd(39)}  ${characters(row)}`)
    .join('\n'),
  'hexdump -C': squeezed(
    rows(16).map((row, i) => [
      offset(i * 16, 8),
      `  ${grouped(row.subarray(0, 8), 1)}  ${grouped(row.subarray(8), 1)}  |${characters(row)}|`,
    ]),
    offset(PROPOSAL.length, 8),
  ),
  'od -t x1': squeezed(
    rows(16).map((row, i) => [offset(i * 16, 7, 8), ` ${grouped(row, 1)}`]),
    offset(PROPOSAL.length, 7, 8),
  ),
  'od -A x -t x1': squeezed(
    rows(16).map((row, i) => [offset(i * 16, 6), ` ${grouped(row, 1)}`]),
    offset(PROPOSAL.length, 6),
  ),
  'tcpdump -x': rows(16)
    .map((row, i) => `\t0x${offset(i * 16, 4)}:  ${grouped(row, 2)}`)
    .join('\n'),
  'tcpdump -X': `12:00:00.1 IP 10.0.0.2.4 > 10.0.0.1.5: length 224\n${rows(16)
    .map((row, i) => `\t0x${offset(i * 16, 4)}:  ${grouped(row, 2).padEnd(39)}  ${characters(row)}`)
    .join('\n')}`,
};

describe('a message as people have it', () => {
  for (const [name, text] of Object.entries(FORMS)) {
    test(name, () =>
      assert.deepEqual(
        bytesOfHex(text).map((bytes) => bytes.toString('hex')),
        [DIGITS],
        text,
      ),
    );
  }
});

test('a dump that begins again is another one', () => {
  assert.deepEqual(bytesOfHex(`${FORMS.xxd}\n${FORMS.xxd}`), [PROPOSAL, PROPOSAL]);
});

test('letters behind the bytes are not taken for some', () => {
  const text =
    '00000000: e2d4 c3d9 6162 6364 6566 3031 3233 3435  ab cdef012345\n00000010: 6162                                     ab\n';
  assert.equal(bytesOfHex(text)[0]?.toString('hex'), 'e2d4c3d96162636465663031323334356162');
});

test('what is no hex says so', () => {
  for (const [text, pattern] of [
    ['', /there is no hex/],
    ['e2d4c3d', /half a byte/],
    ['hello', /not hex: "hello"/],
    ['00000000: e2d4\n00000010: c3d9\n', /does not reach the next/],
  ] as const) {
    assert.throws(
      () => bytesOfHex(text),
      (error) => error instanceof HexError && pattern.test(error.message),
    );
  }
  assert.ok(isHex('e2:d4 0xc3') && !isHex('capture.pcap') && !isHex(''));
});

test('any text gives bytes, or an error of its own', () => {
  const line = fc.oneof(
    fc.string({ maxLength: 30 }),
    fc.constantFrom('*', '00000000: e2d4 c3d9', '00000010  ff', 'fffffff0: 00', '0000', '# x', '0000020 e2'),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
      try {
        bytesOfHex(lines.join('\n'));
      } catch (error) {
        assert.ok(error instanceof HexError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('a text of nothing but lines, and repetitions without end, come to an end', () => {
  assert.throws(() => bytesOfHex('\n'.repeat(1 << 20)), HexError);
  assert.throws(() => bytesOfHex(`00000000 ${' '.repeat(1 << 18)}\r x`), HexError);
  assert.deepEqual(bytesOfHex('00000000  e2 d4\r\n00000002  c3 d9\r\n'), [Buffer.from('e2d4c3d9', 'hex')]);
  assert.throws(() => bytesOfHex('00000000  e2\n*\n00010000  e2\n'.repeat(2000)), /left out/);
});
