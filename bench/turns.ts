/**
 * What costs little is hard to measure: two programs of the same code differ by as much as 8 %. So the same pair of programs runs
 * under several conditions at the same time, anew many times, and they take turns with blocks of some 10 ms to 1 s.
 */
import { type Placement, steadiest } from './placement.ts';
import { Ends } from './program.ts';
import type { Address } from './programs/control.ts';
import type { Context, Finding } from './question.ts';
import { median, quantile, shuffled } from './statistics.ts';
import { environmentOf, MAPPED, TCP } from './transports.ts';

/** Which ends have Isthmus. */
export interface Condition {
  readonly name: string;
  readonly has: 'none' | 'both' | 'server' | 'client';
}

export interface Turns {
  /** The first is what others are compared with. */
  readonly conditions: readonly [Condition, ...Condition[]];
  /** How often all programs start anew. */
  readonly casts: number;
  readonly warmUpBlocks: number;
  readonly blocks: number;
  readonly messageBytes: number;
  /** For the ends that have Isthmus. */
  readonly env?: NodeJS.ProcessEnv;
  /** What `measure` measures. */
  readonly unit: string;
  /** One block. Less is better. */
  measure(ends: Ends, to: Address): Promise<number>;
}

/** The median of each condition, and how much more it is than that of the first, turn by turn. */
export async function takeTurns(context: Context, turns: Turns): Promise<Finding[]> {
  const placement = steadiest(context.placements);
  const values = new Map(turns.conditions.map((condition) => [condition, [] as number[]]));
  for (let i = 0; i < turns.casts; i++) await perform(context, placement, turns, values);
  const of = (condition: Condition) => values.get(condition) ?? [];
  const [first, ...others] = turns.conditions;
  return [
    ...turns.conditions.map((condition) => ({
      name: condition.name,
      value: median(of(condition)),
      unit: turns.unit,
      detail: `${placement.title}; ${of(condition).length} blocks`,
    })),
    ...others.map((condition) => more(condition.name, of(first), of(condition))),
  ];
}

async function perform(
  { folder }: Context,
  { cpus }: Placement,
  { conditions, warmUpBlocks, blocks, messageBytes, env, measure }: Turns,
  values: ReadonlyMap<Condition, number[]>,
): Promise<void> {
  const cast: { readonly condition: Condition; readonly ends: Ends; readonly to: Address }[] = [];
  const environment = (has: boolean) =>
    environmentOf(has ? MAPPED : TCP, folder, has ? { ISTHMUS_POLICY: 'lazy', ...env } : {});
  try {
    for (const condition of shuffled(conditions)) {
      const has = (end: 'server' | 'client') => condition.has === 'both' || condition.has === end;
      const ends = Ends.start({ cpus, env: environment(has('server')), clientEnv: environment(has('client')) });
      const to = await ends.server.listen({ kind: 'echo', messageBytes, path: null });
      cast.push({ condition, ends, to });
    }
    for (const { ends, to } of cast) {
      for (let i = 0; i < warmUpBlocks; i++) await measure(ends, to);
    }
    for (let i = 0; i < blocks; i++) {
      for (const { condition, ends, to } of shuffled(cast)) values.get(condition)?.push(await measure(ends, to));
    }
  } finally {
    await Promise.all(cast.map(({ ends }) => ends.stop()));
  }
}

/** In percent, each value against the one of its own turn. */
function more(name: string, base: readonly number[], values: readonly number[]): Finding {
  const percents = values.map((value, i) => (value / (base[i] ?? Number.NaN) - 1) * 100).sort((a, b) => a - b);
  const [low, high] = [quantile(percents, 0.25), quantile(percents, 0.75)];
  return {
    name: `more: ${name}`,
    value: median(percents),
    unit: '%',
    detail: `median of ${percents.length} pairs; half of them between ${low.toFixed(1)} and ${high.toFixed(1)} %`,
  };
}
