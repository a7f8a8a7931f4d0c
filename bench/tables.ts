/** How the figures of a comparison are laid out: as text, or as Markdown. */
import { formatTable } from '../src/cli/command.ts';
import type { ComparisonRow, TransportColumn } from './report.ts';
import { formatNumber } from './statistics.ts';

/** Figures of several transports. */
export interface Grid {
  readonly title: string;
  readonly names: readonly string[];
  readonly columns: readonly { readonly title: string; readonly cells: readonly TransportColumn[] }[];
  /** Medians alone. */
  readonly isBrief: boolean;
}

/** More transports than that are lines of a table, and not columns. */
const MOST_COLUMNS = 4;

/** Of rows in one place: those with the same transports stand in one table, as long as it would not be too wide. */
export function gridsOf(rows: readonly ComparisonRow[]): Grid[] {
  const byTransports = grouped(rows, ({ transports }) => transports.map(({ name }) => name).join());
  return byTransports.flatMap((group) => {
    const transports = group[0]?.transports ?? [];
    if (transports.length <= MOST_COLUMNS) return [byFigure('', group, false)];
    // Many steps over one axis: what a plot shows. Else a table for each.
    return grouped(group, ({ question }) => question).flatMap((one) => {
      const points = one.filter(({ point }) => point !== null);
      return points.length > 0 ? [byFigure('', points, true)] : grouped(one, ({ step }) => step).map(byTransport);
    });
  });
}

function byFigure(title: string, rows: readonly ComparisonRow[], isBrief: boolean): Grid {
  const transports = rows[0]?.transports ?? [];
  return {
    title,
    names: rows.map(({ step, figure, unit }) => `${step}: ${figure}, ${unit}`),
    columns: transports.map((transport, i) => ({
      title: transport.title,
      cells: rows.map(({ transports }) => transports[i] as TransportColumn),
    })),
    isBrief,
  };
}

function byTransport(rows: readonly ComparisonRow[]): Grid {
  const transports = rows[0]?.transports ?? [];
  return {
    title: rows[0]?.step ?? '',
    names: transports.map(({ title }) => title),
    columns: rows.map(({ figure, unit, transports }) => ({ title: `${figure}, ${unit}`, cells: transports })),
    isBrief: false,
  };
}

function grouped<T>(values: readonly T[], keyOf: (value: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const key = keyOf(value);
    groups.set(key, [...(groups.get(key) ?? []), value]);
  }
  return [...groups.values()];
}

export function formatGrid({ title, names, columns, isBrief }: Grid): string {
  const lines = names.map((name) => [`  ${name}`]);
  for (const { cells } of columns) {
    // A table of its own within one column, so that its title may be as long as all three parts.
    const parts = formatTable(cells.map((cell) => partsOf(cell, isBrief))).split('\n');
    for (const [row, line] of lines.entries()) line.push(parts[row] ?? '');
  }
  return formatTable([[title && `  ${title}`, ...columns.map((column) => column.title)], ...lines]);
}

export function markdownGrid({ title, names, columns, isBrief }: Grid): string {
  const rows = names.map((name, row) => [
    name,
    ...columns.map(({ cells }) => partsOf(cells[row] as TransportColumn, isBrief).join(' ')),
  ]);
  return markdownTable([title, ...columns.map((column) => column.title)], rows);
}

export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('');
}

function partsOf({ value, ratio }: TransportColumn, isBrief: boolean): string[] {
  const median = value === null ? '-' : formatNumber(value.median);
  if (ratio === null || isBrief) return [median];
  return [median, `${formatNumber(ratio.median)}x`, `(${formatNumber(ratio.low)}-${formatNumber(ratio.high)})`];
}
