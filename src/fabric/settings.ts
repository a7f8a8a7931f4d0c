/** Numbers that the environment sets, for the fabric and for the programs that use it. Loaded with the preload: imports nothing. */

/** Timers of Node.js have to be shorter; a longer one ends at once. */
export const TIMER_LIMIT_MS = 2 ** 31;

/** A whole number. Empty is not set; a value that makes no sense is passed over, with a warning. */
export function readCount(
  env: NodeJS.ProcessEnv,
  name: string,
  otherwise: number,
  isGood: (value: number) => boolean,
  warn: (text: string) => void,
): number {
  const text = env[name];
  if (text === undefined || text === '') return otherwise;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isSafeInteger(value) && isGood(value)) return value;
  warn(`${name}=${text} is not usable; ${otherwise} is used`);
  return otherwise;
}
