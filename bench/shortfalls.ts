/** What is not better, from the figures. */
import type { ComparisonRow, TransportColumn } from './report.ts';
import { formatNumber, timesBetter } from './statistics.ts';
import { LIMITS, LOOPBACK, MAPPED, STORE, TCP, type Transport } from './transports.ts';

export interface Shortfalls {
  /** Where Isthmus is behind TCP, in words. */
  readonly tcp: readonly string[];
  /** Where Isthmus with its default access is behind something that is neither TCP nor a limit of the machine. */
  readonly others: readonly string[];
}

const isOneOf = (transports: readonly Transport[]) => (column: TransportColumn) =>
  transports.some(({ name }) => name === column.name);
const isOurs = isOneOf([MAPPED, STORE, LOOPBACK]);
const isDefault = isOneOf([MAPPED, LOOPBACK]);
const isNoOther = isOneOf([TCP, ...LIMITS]);

export function shortfallsOf(rows: readonly ComparisonRow[]): Shortfalls {
  return { tcp: rows.flatMap(behindTcp), others: rows.flatMap(behindOthers) };
}

function behindTcp({ placement, step, figure, unit, transports }: ComparisonRow): string[] {
  const base = transports.find(({ name }) => name === TCP.name)?.value ?? null;
  return transports.filter(isOurs).flatMap(({ title, value, ratio }) => {
    if (base === null || value === null || ratio === null || ratio.median >= 1) return [];
    const [ours, theirs, times] = [value.median, base.median, ratio.median].map(formatNumber);
    const rounds = ratio.high >= 1 ? ', but not in every round' : '';
    return [
      `${step}, ${figure}: ${title} ${ours} ${unit}, TCP ${theirs}: ${times} times as good${rounds} (${placement.title})`,
    ];
  });
}

function behindOthers({ placement, step, figure, unit, better, transports }: ComparisonRow): string[] {
  const ours = transports.find(isDefault);
  if (ours === undefined || ours.value === null) return [];
  const base = ours.value.median;
  const ahead = transports
    .filter((one) => !isOurs(one) && !isNoOther(one))
    .flatMap(({ title, value }) => (value === null ? [] : [{ title, value: value.median }]))
    .map((one) => ({ ...one, times: timesBetter(better, base, one.value) }))
    .filter(({ times }) => times > 1)
    .sort((a, b) => b.times - a.times)
    .map(({ title, value, times }) => `${title} ${formatNumber(value)} (${formatNumber(times)} times as good)`);
  if (ahead.length === 0) return [];
  return [`${step}, ${figure}: ${ours.title} ${formatNumber(base)} ${unit}, ${ahead.join(', ')} (${placement.title})`];
}
