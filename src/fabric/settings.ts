/** Numbers that the environment sets, for the fabric and for the programs that use it. Loaded with the preload: imports nothing. */

/** Timers of Node.js have to be shorter; a longer one ends at once. */
export const TIMER_LIMIT_MS = 2 ** 31;

export interface Range {
  readonly from: number;
  readonly to?: number;
  readonly isPowerOfTwo?: boolean;
}

/** A whole number. Empty is not set; a value that makes no sense is passed over, with a warning. */
export function readCount(
  env: NodeJS.ProcessEnv,
  name: string,
  otherwise: number,
  range: Range,
  warn: (text: string) => void,
): number {
  const text = env[name];
  if (text === undefined || text === '') return otherwise;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  const { from, to = Number.MAX_SAFE_INTEGER, isPowerOfTwo = false } = range;
  const isGood = value >= from && value <= to && (!isPowerOfTwo || Number.isInteger(Math.log2(value)));
  if (Number.isSafeInteger(value) && isGood) return value;
  const kind = isPowerOfTwo ? 'power of two' : 'whole number';
  warn(`${name}=${text} is no ${kind} from ${from}${range.to === undefined ? '' : ` to ${to}`}; ${otherwise} is used`);
  return otherwise;
}
