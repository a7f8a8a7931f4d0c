/** What the benchmark has to say, for people; the same as JSON is the object itself. */
import { formatTable } from '../src/cli/command.ts';
import { describeMachine, type Machine } from './machine.ts';
import type { PlacementName } from './placement.ts';
import type { Finding, Point } from './question.ts';
import { type Better, formatNumber, ratiosByRound, type Spread, spreadOf } from './statistics.ts';
import { formatGrid, gridsOf } from './tables.ts';
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
  /** Where it stands in a plot, if it does. */
  readonly point: Point | null;
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
      `Medians of ${rounds} ${rounds === 1 ? 'round' : 'rounds'}. 2.0x: twice as good as TCP in the same round; in brackets the least and the most of all rounds.`,
    );
  }
  const placements = new Map(comparisons.map(({ placement }) => [placement.name, placement]));
  for (const { name, title } of placements.values()) {
    const rows = comparisons.filter(({ placement }) => placement.name === name);
    parts.push(`${title}\n${gridsOf(rows).map(formatGrid).join('\n')}`);
  }
  for (const { title, findings } of answers) parts.push(`${title}\n${formatFindings(findings)}`);
  if (gaps.length > 0) parts.push(`not measured:\n${gaps.map((gap) => `  ${gap}\n`).join('')}`);
  parts.push(`${Math.round(seconds)} s`);
  return `${parts.map((part) => part.trimEnd()).join('\n\n')}\n`;
}

function formatFindings(findings: readonly Finding[]): string {
  return formatTable(findings.map(({ name, value, unit, detail }) => [`  ${name}`, formatNumber(value), unit, detail]));
}
