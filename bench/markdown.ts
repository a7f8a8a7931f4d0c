/** The report as a document: bench/RESULTS.md. */
import { describeMachine } from './machine.ts';
import type { Report } from './report.ts';
import { shortfallsOf } from './shortfalls.ts';
import { formatNumber } from './statistics.ts';
import { gridsOf, markdownGrid, markdownTable } from './tables.ts';

/** A plot, and where the document finds it. */
export interface Picture {
  readonly title: string;
  readonly path: string;
}

export function formatMarkdown(report: Report, pictures: readonly Picture[]): string {
  const { machine, startedAt, seconds, rounds, comparisons, answers, gaps } = report;
  const parts = [
    '# Results of the benchmark',
    'This page is written by `npm run bench -- --markdown FILE --svg FOLDER`.',
    `${markdownTable(
      ['', ''],
      [
        ...describeMachine(machine)
          .split('\n')
          .map((line, i) => [i === 0 ? 'machine' : '', line]),
        [
          'versions',
          Object.entries(machine.versions)
            .map((pair) => pair.join(' '))
            .join(', '),
        ],
        ['when', `${startedAt}, ${Math.ceil(seconds / 60)} min, ${rounds} ${rounds === 1 ? 'round' : 'rounds'}`],
      ],
    )}`,
    ...pictures.map(({ title, path }) => `![${title}](${path})`),
  ];
  if (comparisons.length > 0) parts.push('## What is not better', ...notBetter(report));
  const placements = new Map(comparisons.map(({ placement }) => [placement.name, placement]));
  if (placements.size > 0) {
    parts.push(
      '## Side by side',
      `Medians of the rounds. 2.0x: twice as good as TCP in the same round; in brackets the least and the most of all rounds. All
transports take a measurement one after the other, in a new order each round. CPU time is that of both ends;
a GB in writes of 1 KiB is about a million messages.`,
    );
  }
  for (const { name, title } of placements.values()) {
    parts.push(`### ${title}`);
    parts.push(...gridsOf(comparisons.filter(({ placement }) => placement.name === name)).map(markdownGrid));
  }
  if (answers.length > 0) parts.push('## What it costs');
  for (const { title, findings } of answers) {
    const rows = findings.map(({ name, value, unit, detail }) => [
      name,
      `${formatNumber(value)} ${unit}`.trim(),
      detail,
    ]);
    parts.push(`### ${title}`, markdownTable(['', '', ''], rows));
  }
  if (gaps.length > 0) parts.push('## Not measured', list(gaps));
  return `${parts.map((part) => part.trimEnd()).join('\n\n')}\n`;
}

function notBetter({ comparisons }: Report): string[] {
  const { tcp, others } = shortfallsOf(comparisons);
  return [
    tcp.length === 0 ? 'In no figure was Isthmus behind TCP.' : `Isthmus was behind TCP in:\n\n${list(tcp)}`,
    others.length === 0
      ? 'In no figure was anything else ahead of Isthmus.'
      : `Something else was ahead of Isthmus in:\n\n${list(others)}`,
  ];
}

function list(lines: readonly string[]): string {
  return lines.map((line) => `- ${line}`).join('\n');
}
