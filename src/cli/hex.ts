/** Bytes from what people have at hand: digits in any grouping, or a dump with offsets of xxd, hexdump -C, od, tcpdump -x. */

/** What is no hex. */
export class HexError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'HexError';
  }
}

/** 0x, \x, and what stands between bytes. */
const BETWEEN = /0x|\\x|[\s:,;{}()[\]"'_-]/gi;
const OFFSET = /^\s*(?:0x)?([0-9a-f]{1,8})(:?)\s([\s\S]*)$/i;
/** Where a dump begins: zero, as an offset is written. A CLC message does not begin so. */
const FIRST_OFFSET = /^\s*(?:0x)?(?:0{4,8}:?|0+:)\s/;
const COMMENT = /^[ \t]*#.*$/gm;
/** Tools that do not say in which base their offsets are: od has 7 digits and means octal. */
const OD_DIGITS = 7;

export function isHex(text: string): boolean {
  return /^[0-9a-f]+$/i.test(text.replace(BETWEEN, ''));
}

/** Each run of bytes: a dump that begins again at 0 is another one. Throws HexError. */
export function bytesOfHex(text: string): Buffer[] {
  const plain = text.replace(COMMENT, '');
  const dumps = isDump(plain) ? dumpsOf(plain) : [bytesOfDigits(plain)];
  const found = dumps.filter((bytes) => bytes.length > 0);
  if (found.length === 0) throw new HexError('there is no hex');
  return found;
}

/** The first line with hex tells; in front of it tools have lines of their own. */
function isDump(text: string): boolean {
  const first = text.split('\n').find((line) => FIRST_OFFSET.test(line) || isHex(line));
  return first !== undefined && FIRST_OFFSET.test(first);
}

function bytesOfDigits(text: string): Buffer {
  const digits = text.replace(BETWEEN, '');
  const wrong = digits.search(/[^0-9a-f]/i);
  if (wrong >= 0) throw new HexError(`not hex: ${JSON.stringify(digits.slice(wrong, wrong + 20))}`);
  if (digits.length % 2 !== 0) throw new HexError(`${digits.length} digits: half a byte is missing`);
  return Buffer.from(digits, 'hex');
}

interface Line {
  readonly offset: number;
  readonly rest: string;
}

/** Lines without an offset are those of the tool, such as the times of tcpdump. */
function dumpsOf(text: string): Buffer[] {
  const dumps: Line[][] = [];
  let isRepeated = false;
  let repeatedLeft = MAX_REPEATED_BYTES;
  for (const line of text.split(/\r?\n/)) {
    const [, digits, , rest = ''] = OFFSET.exec(`${line} `) ?? [];
    if (digits === undefined) {
      isRepeated ||= line.trim() === '*';
      continue;
    }
    const offset = Number.parseInt(digits, digits.length === OD_DIGITS ? 8 : 16);
    const current = dumps.at(-1);
    if (offset === 0 || current === undefined) dumps.push([{ offset, rest: rest.trimStart() }]);
    else {
      if (isRepeated) repeatedLeft -= repeat(current, offset, repeatedLeft);
      current.push({ offset, rest: rest.trimStart() });
    }
    isRepeated = false;
  }
  return dumps.map(bytesOfDump);
}

/** Lines that are as the one before are left out, with a `*` in their place. Returns how many bytes were put in. */
function repeat(lines: Line[], until: number, most: number): number {
  const last = lines.at(-1);
  const width = last === undefined ? 0 : bytesOfLine(last.rest, MAX_WIDTH).length;
  if (last === undefined || width === 0) return 0;
  const bytes = until - last.offset;
  if (bytes > most) throw new HexError(`more than ${MAX_REPEATED_BYTES} bytes are left out with *`);
  for (let offset = last.offset + width; offset < until; offset += width) lines.push({ offset, rest: last.rest });
  return bytes;
}

const MAX_WIDTH = 256;
/** In one text. */
const MAX_REPEATED_BYTES = 65_536;

function bytesOfDump(lines: readonly Line[]): Buffer {
  const widths = lines.slice(1).map(({ offset }, i) => offset - (lines[i]?.offset ?? 0));
  const parts = lines.map(({ offset, rest }, i) => {
    const width = widths[i] ?? widths[0] ?? MAX_WIDTH;
    const bytes = bytesOfLine(rest, width);
    const isShort = i < widths.length && bytes.length !== width;
    if (isShort || width <= 0)
      throw new HexError(`the line at offset ${offset.toString(16)} does not reach the next one`);
    return bytes;
  });
  return Buffer.concat(parts);
}

/** Bytes up to what cannot be one: the column of characters behind them, which stands apart. */
function bytesOfLine(rest: string, width: number): Buffer {
  const [columns = ''] = rest.split(/\s{3,}|\|/, 1);
  const digits: string[] = [];
  for (const [i, word] of columns.trim().split(/\s+/).entries()) {
    const isByte = /^(?:[0-9a-f]{2})+$/i.test(word);
    if (!isByte || (i > 0 && (digits.join('').length + word.length) / 2 > width)) break;
    digits.push(word);
  }
  return Buffer.from(digits.join(''), 'hex').subarray(0, Math.max(0, width));
}
