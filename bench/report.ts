/** What the benchmark has to say, for people; the same as JSON is the object itself. */
import { formatTable } from '../src/cli/command.ts';
import { describeMachine, type Machine } from './machine.ts';
import type { PlacementName } from './placement.ts';
import type { Finding } from './question.ts';
import { type Better, ratiosByRound, type Spread, spreadOf } from './statistics.ts';
import { TCP, type TransportName } from './transports.ts';

export interface Report {
  readonly machine: Machine;
  readonly startedAt: string;
  readonly seconds: number;
  readonly rounds: number;
  readonly comparisons: readonly ComparisonRow[];
  readonly answers: readonly Answer[];
  /** What could not be measured, and why. */
  readonly gaps: readonly string[];
}

/** One figure of all transports in one place. */
export interface ComparisonRow {
  readonly question: string;
  readonly placement: { readonly name: PlacementName; readonly title: string };
  readonly step: string;
  readonly figure: string;
  readonly unit: string;
  readonly better: Better;
  readonly transports: readonly TransportColumn[];
}

export interface TransportColumn {
  readonly name: TransportName;
  readonly title: string;
  /** By round; null where it could not be measured. */
  readonly values: readonly (number | null)[];
  readonly value: Spread | null;
  /** How many times better than TCP in the same round; null for TCP itself. */
  readonly ratio: Spread | null;
}

export interface Answer {
  readonly question: string;
  readonly title: string;
  readonly findings: readonly Finding[];
}

/** Puts values and ratios together. */
export function column(
  { name, title }: { readonly name: TransportName; readonly title: string },
  better: Better,
  base: readonly (number | null)[],
  values: readonly (number | null)[],
): TransportColumn {
  const isBase = name === TCP.name;
  return {
    name,
    title,
    values,
    value: spreadOf(values.filter((value) => value !== null)),
    ratio: isBase ? null : spreadOf(ratiosByRound(better, base, values)),
  };
}

export function formatReport(report: Report): string {
  const { machine, rounds, seconds, comparisons, answers, gaps } = report;
  const parts = [describeMachine(machine)];
  if (comparisons.length > 0) {
    parts.push(
      `Medians of ${rounds} rounds. 2.0x: twice as good as TCP in the same round; in brackets the least and the most of all rounds.`,
    );
  }
  const placements = new Map(comparisons.map(({ placement }) => [placement.name, placement]));
  for (const placement of placements.values()) {
    parts.push(
      `${placement.title}\n${formatComparisons(comparisons.filter((row) => row.placement.name === placement.name))}`,
    );
  }
  for (const { title, findings } of answers) parts.push(`${title}\n${formatFindings(findings)}`);
  if (gaps.length > 0) parts.push(`not measured:\n${gaps.map((gap) => `  ${gap}\n`).join('')}`);
  parts.push(`${Math.round(seconds)} s`);
  return `${parts.map((part) => part.trimEnd()).join('\n\n')}\n`;
}

function formatComparisons(rows: readonly ComparisonRow[]): string {
  const columns = rows[0]?.transports ?? [];
  const lines = rows.map(({ step, figure, unit }) => [`  ${step}: ${figure}`, unit]);
  for (const [i] of columns.entries()) {
    // A table of its own within one column, so that its title may be as long as all three parts.
    const parts = formatTable(rows.map(({ transports }) => cells(transports[i] as TransportColumn))).split('\n');
    for (const [row, line] of lines.entries()) line.push(parts[row] ?? '');
  }
  return formatTable([['', '', ...columns.map(({ title }) => title)], ...lines]);
}

function cells({ value, ratio }: TransportColumn): string[] {
  const median = value === null ? '-' : formatNumber(value.median);
  if (ratio === null) return [median];
  return [median, `${formatNumber(ratio.median)}x`, `(${formatNumber(ratio.low)}-${formatNumber(ratio.high)})`];
}

function formatFindings(findings: readonly Finding[]): string {
  return formatTable(findings.map(({ name, value, unit, detail }) => [`  ${name}`, formatNumber(value), unit, detail]));
}

/** Three digits that count. */
export function formatNumber(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || value === 0 ? 0 : size >= 10 ? 1 : 2);
}
