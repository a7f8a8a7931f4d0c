/** Pure arithmetic of the benchmark. */

/** Which way a figure is good. */
export type Better = 'lower' | 'higher';

/** By linear interpolation; the values must be sorted and not empty. */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  const below = sorted[low] ?? Number.NaN;
  const above = sorted[Math.min(low + 1, sorted.length - 1)] ?? Number.NaN;
  return below + (above - below) * (at - low);
}

export function median(values: readonly number[]): number {
  return quantile(Float64Array.from(values).sort(), 0.5);
}

export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** Null when there is no value. */
export function spreadOf(values: readonly number[]): Spread | null {
  if (values.length === 0) return null;
  return { median: median(values), low: Math.min(...values), high: Math.max(...values) };
}

/** How many times better a value is than the base; above 1 is better, whichever way the figure is good. */
export function timesBetter(better: Better, base: number, value: number): number {
  return better === 'lower' ? base / value : value / base;
}

/**
 * Per round, since the machine differs from round to round more than the transports do within one.
 * Rounds in which either is missing are left out.
 */
export function ratiosByRound(
  better: Better,
  base: readonly (number | null)[],
  values: readonly (number | null)[],
): number[] {
  return values.flatMap((value, round) => {
    const other = base[round] ?? null;
    return value === null || other === null ? [] : [timesBetter(better, other, value)];
  });
}

/** Fisher and Yates. @param random 0 up to, not including, 1 */
export function shuffled<T>(values: readonly T[], random: () => number = Math.random): T[] {
  const result = [...values];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j] as T, result[i] as T];
  }
  return result;
}

/** Of bytes, in words. */
export function sizeText(bytes: number): string {
  if (bytes >= 1 << 20) return `${bytes / (1 << 20)} MiB`;
  return bytes >= 1 << 10 ? `${bytes / (1 << 10)} KiB` : `${bytes} B`;
}

/** Three digits that count. */
export function formatNumber(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || value === 0 ? 0 : size >= 10 ? 1 : 2);
}
