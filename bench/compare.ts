/** What differs between two builds, from reports that each has made by turns. */
import { formatTable } from '../src/cli/command.ts';
import type { Report } from './report.ts';
import { type Better, formatNumber, median, ratiosByRound, type Spread, spreadOf } from './statistics.ts';
import { TCP, UNIX } from './transports.ts';

export interface Change {
  readonly what: string;
  readonly unit: string;
  readonly old: Spread;
  readonly new: Spread;
  /** How many times better the new one is, in runs that followed each other. */
  readonly ratio: number;
  /** Beyond the spread: every value of one build is better than every value of the other. */
  readonly verdict: 'slower' | 'faster' | 'within the spread' | 'too few runs';
}

/** Of each build, for a verdict. */
export const FEWEST_RUNS = 4;

interface Series {
  readonly what: string;
  readonly unit: string;
  readonly better: Better;
  /** One of each report. */
  readonly values: (number | null)[];
}

/** Of a figure that both builds have. The reports with the same place in both lists were made one after the other. */
export function changesOf(old: readonly Report[], now: readonly Report[]): Change[] {
  const [before, after] = [seriesOf(old), seriesOf(now)];
  return [...after].flatMap(([key, { what, unit, better, values }]) => {
    const oldValues = before.get(key)?.values ?? [];
    const [was, is] = [oldValues, values].map((some) => spreadOf(some.filter((value) => value !== null)));
    const ratios = ratiosByRound(better, oldValues, values);
    if (was == null || is == null || ratios.length === 0) return [];
    const [worse, fine] =
      better === 'lower' ? [is.low > was.high, is.high < was.low] : [is.high < was.low, is.low > was.high];
    // Of two equal builds with two values each that is so every third time; with four each, every 35th.
    const verdict =
      ratios.length < FEWEST_RUNS ? 'too few runs' : worse ? 'slower' : fine ? 'faster' : 'within the spread';
    return [{ what, unit, old: was, new: is, ratio: median(ratios), verdict }];
  });
}

function seriesOf(reports: readonly Report[]): Map<string, Series> {
  const all = new Map<string, Series>();
  const add = (at: number, what: string, unit: string, better: Better, value: number | null) => {
    const series = all.get(what) ?? { what, unit, better, values: reports.map(() => null) };
    series.values[at] = value;
    all.set(what, series);
  };
  for (const [at, { comparisons, answers }] of reports.entries()) {
    for (const { placement, step, figure, unit, better, transports } of comparisons) {
      for (const { title, value } of transports)
        add(at, `${title}, ${step}: ${figure} (${placement.title})`, unit, better, value?.median ?? null);
    }
    // Whatever an inquiry finds is a cost.
    for (const { title, findings } of answers) {
      for (const { name, unit, value } of findings) add(at, `${title}: ${name}`, unit, 'lower', value);
    }
  }
  return all;
}

export function formatChanges(changes: readonly Change[]): string {
  if (changes.length === 0) return 'There is no figure that both have.\n';
  const rows = changes.map((change) => [
    change.what,
    change.unit,
    spread(change.old),
    spread(change.new),
    `${formatNumber(change.ratio)}x`,
    change.verdict === 'within the spread' ? '' : change.verdict,
  ]);
  const parts = [
    formatTable([['', '', 'old', 'new', 'times better', ''], ...rows]),
    sentence('slower', changes),
    sentence('faster', changes),
  ];
  const isNoPartOfBoth = ({ what }: Change) => [TCP, UNIX].some(({ title }) => what.startsWith(`${title}, `));
  if (changes.some((change) => isNoPartOfBoth(change) && ['slower', 'faster'].includes(change.verdict)))
    parts.push('TCP and Unix sockets are the same in both: where they differ, the machine has changed. Once more?\n');
  return parts.join('\n');
}

function sentence(verdict: 'slower' | 'faster', changes: readonly Change[]): string {
  const some = changes.filter((change) => change.verdict === verdict);
  if (some.length === 0) return `Nothing got ${verdict} beyond the spread.\n`;
  const lines = some.map(({ what, unit, old, new: now, ratio }) => {
    const times = formatNumber(verdict === 'slower' ? 1 / ratio : ratio);
    return `  ${what}: ${formatNumber(now.median)} ${unit} instead of ${formatNumber(old.median)}, ${times} times ${verdict}\n`;
  });
  return `Got ${verdict}, each new value than each old one:\n${lines.join('')}`;
}

function spread({ median, low, high }: Spread): string {
  return `${formatNumber(median)} (${formatNumber(low)}-${formatNumber(high)})`;
}
