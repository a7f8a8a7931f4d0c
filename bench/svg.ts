/** A line chart as SVG, over two logarithmic axes. Readable on light and on dark ground, and without its colours. */
import { formatNumber } from './statistics.ts';

export interface Line {
  readonly name: string;
  /** x and median must be above 0. */
  readonly points: readonly {
    readonly x: number;
    readonly median: number;
    readonly low: number;
    readonly high: number;
  }[];
  /** ours: in front; limit: dashed. */
  readonly kind: 'ours' | 'other' | 'limit';
}

export interface Chart {
  readonly title: string;
  readonly subtitle: string;
  readonly xTitle: string;
  readonly yTitle: string;
  textOf(x: number): string;
  readonly lines: readonly Line[];
}

const [WIDTH, HEIGHT] = [990, 480];
const PLOT = { left: 84, right: 620, top: 66, bottom: 420 };
const LABEL_HEIGHT = 16;

/** By light and dark ground; the first is ours. */
const COLOURS = [
  ['#c2410c', '#fb923c'],
  ['#1d4ed8', '#60a5fa'],
  ['#047857', '#34d399'],
  ['#7e22ce', '#c084fc'],
  ['#be185d', '#f472b6'],
  ['#0e7490', '#22d3ee'],
  ['#4d7c0f', '#a3e635'],
  ['#57534e', '#a8a29e'],
  ['#111827', '#f3f4f6'],
] as const;

const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #374151 }
  .title { font-size: 16px; font-weight: 600; fill: #111827 }
  .grid { stroke: #d1d5db; stroke-width: 1 }
  polyline { fill: none; stroke-width: 1.5 }
  .ours { stroke-width: 3 }
  text.ours { font-weight: 700 }
  .limit { stroke-dasharray: 6 4 }
  .spread { stroke-width: 1; opacity: 0.6 }
${COLOURS.map(([light], i) => `  .c${i} { stroke: ${light} } text.c${i}, circle.c${i} { fill: ${light}; stroke: none }\n`).join('')}
  @media (prefers-color-scheme: dark) {
    text { fill: #d1d5db }
    .title { fill: #f9fafb }
    .grid { stroke: #4b5563 }
${COLOURS.map(([, dark], i) => `    .c${i} { stroke: ${dark} } text.c${i}, circle.c${i} { fill: ${dark}; stroke: none }\n`).join('')}  }
`;

export function lineChart({ title, subtitle, xTitle, yTitle, textOf, lines }: Chart): string {
  const points = lines.flatMap((line) => line.points);
  const xs = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b);
  const x = scale(xs, [PLOT.left, PLOT.right]);
  const yTicks = decades(points.flatMap(({ low, high }) => [low, high]));
  const y = scale(yTicks, [PLOT.bottom, PLOT.top]);

  const parts = [
    text(PLOT.left, 26, title, 'class="title"'),
    text(PLOT.left, 46, subtitle),
    text((PLOT.left + PLOT.right) / 2, HEIGHT - 16, xTitle, 'text-anchor="middle"'),
    text(
      16,
      (PLOT.top + PLOT.bottom) / 2,
      yTitle,
      `text-anchor="middle" transform="rotate(-90 16 ${(PLOT.top + PLOT.bottom) / 2})"`,
    ),
    ...yTicks.flatMap((tick) => [
      stroke([PLOT.left, y(tick)], [PLOT.right, y(tick)], 'class="grid"'),
      text(PLOT.left - 8, y(tick) + 4, tickText(tick), 'text-anchor="end"'),
    ]),
    ...xs.map((at) => text(x(at), PLOT.bottom + 20, textOf(at), 'text-anchor="middle"')),
  ];
  let others = 0;
  const drawn = lines.map((line) => ({
    line,
    colour: line.kind === 'ours' ? 0 : 1 + (others++ % (COLOURS.length - 1)),
  }));
  // Ours is drawn last, above the others.
  for (const { line, colour } of drawn.toSorted(
    (a, b) => Number(a.line.kind === 'ours') - Number(b.line.kind === 'ours'),
  )) {
    const track = line.points.map((point) => `${round(x(point.x))},${round(y(point.median))}`).join(' ');
    parts.push(`<polyline class="c${colour} ${line.kind}" points="${track}"/>`);
    for (const point of line.points) {
      const at = x(point.x);
      parts.push(`<circle class="c${colour}" cx="${round(at)}" cy="${round(y(point.median))}" r="3"/>`);
      parts.push(stroke([at, y(point.low)], [at, y(point.high)], `class="c${colour} spread"`));
    }
  }
  const wanted = drawn.map(({ line }) => y(line.points.at(-1)?.median ?? 1));
  for (const [i, at] of apart(wanted, LABEL_HEIGHT, PLOT.bottom).entries()) {
    const { line, colour } = drawn[i] as (typeof drawn)[number];
    parts.push(text(PLOT.right + 12, at + 4, line.name, `class="c${colour} ${line.kind}"`));
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
${parts.join('\n')}
</svg>
`;
}

/** Powers of ten below and above all values. */
export function decades(values: readonly number[]): number[] {
  const above = values.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...above)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...above))));
  return Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
}

/** Moves labels so that none stands closer to the next than `distance`, or below `most`, and keeps their order. */
export function apart(wanted: readonly number[], distance: number, most: number): number[] {
  const order = wanted.map((at, i) => ({ at, i })).sort((a, b) => a.at - b.at);
  const placed = new Array<number>(wanted.length);
  let next = Number.NEGATIVE_INFINITY;
  for (const { at, i } of order) {
    placed[i] = Math.max(at, next);
    next = (placed[i] ?? 0) + distance;
  }
  next = most;
  for (const { i } of order.reverse()) {
    placed[i] = Math.min(placed[i] ?? 0, next);
    next = (placed[i] ?? 0) - distance;
  }
  return placed;
}

/** Logarithmic; what lies outside stands at the edge. */
function scale(ticks: readonly number[], [from, to]: readonly [number, number]): (value: number) => number {
  const [low, high] = [Math.log(ticks[0] ?? 1), Math.log(ticks.at(-1) ?? 1)];
  return (value) => {
    const share = high === low ? 0.5 : (Math.log(value) - low) / (high - low);
    return from + Math.min(1, Math.max(0, share)) * (to - from);
  };
}

function tickText(tick: number): string {
  return tick >= 1 ? tick.toLocaleString('en') : tick >= 0.01 ? formatNumber(tick) : String(tick);
}

function stroke([x1, y1]: readonly [number, number], [x2, y2]: readonly [number, number], attributes: string): string {
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" ${attributes}/>`;
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${escaped(content)}</text>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
