/** The plots of a report. */
import type { PlotName } from './question.ts';
import type { Report } from './report.ts';
import { sizeText } from './statistics.ts';
import { type Line, lineChart } from './svg.ts';
import { LIMITS, MAPPED, type TransportName } from './transports.ts';

export interface Plot {
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

const PLOTS: Record<PlotName, { readonly file: string; readonly title: string; readonly at: string }> = {
  'round trip': { file: 'round-trip.svg', title: 'Round trip over length of message', at: 'length of message' },
  stream: { file: 'stream.svg', title: 'Throughput over length of write', at: 'length of write' },
  connections: {
    file: 'connections.svg',
    title: 'Round trip over open connections, of which ten talk',
    at: 'open connections',
  },
};

/** Those that have a line. */
export function plotsOf({ comparisons, machine }: Report): Plot[] {
  return Object.entries(PLOTS).flatMap(([name, { file, title, at }]) => {
    const rows = comparisons.filter(({ point }) => point?.plot === name);
    const [first] = rows;
    if (first === undefined) return [];
    // Of several places the first, so that there is one line for each transport.
    const lines = first.transports.map(
      (transport): Line => ({
        name: transport.title,
        points: rows
          .filter(({ placement }) => placement.name === first.placement.name)
          .flatMap(({ point, transports }) => {
            const value = transports.find((one) => one.name === transport.name)?.value ?? null;
            return value === null || point === null ? [] : [{ x: point.at, ...value }];
          }),
        kind: kindOf(transport.name),
      }),
    );
    const svg = lineChart({
      title,
      subtitle: `${first.placement.title}; ${machine.cpus} x ${machine.cpu}, Node.js ${machine.node}`,
      xTitle: at,
      yTitle: `${first.figure}, ${first.unit}`,
      textOf: name === 'connections' ? (x) => x.toLocaleString('en') : sizeText,
      lines: lines.filter(({ points }) => points.length > 0),
    });
    return [{ file, title, svg }];
  });
}

function kindOf(name: TransportName): Line['kind'] {
  if (name === MAPPED.name) return 'ours';
  return LIMITS.some((limit) => limit.name === name) ? 'limit' : 'other';
}
