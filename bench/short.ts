/**
 * What does Isthmus cost a connection that it leaves alone? Connect, 100 bytes there and back, close, one after the other, under the
 * policy lazy. Blocks with and without Isthmus take turns, beside a second pair of programs without it, which tells how
 * much two equal pairs differ.
 */
import { type Placement, steadiest } from './placement.ts';
import { Ends } from './program.ts';
import type { Address } from './programs/control.ts';
import type { Context, Finding, Inquiry } from './question.ts';
import { median, quantile, shuffled } from './statistics.ts';
import { environmentOf, MAPPED, TCP } from './transports.ts';

/** New programs each time: two of the same code differ by as much as 8 %. */
const CASTS = 16;
const BLOCKS = 8;
const WARM_UP_BLOCKS = 12;
const CONNECTIONS_PER_BLOCK = 200;
const MESSAGE_BYTES = 100;

type Name = 'without' | 'with' | 'again without';
const NAMES: readonly Name[] = ['without', 'with', 'again without'];

export const short: Inquiry = {
  name: 'short',
  title: `short connections (connect, ${MESSAGE_BYTES} bytes there and back, close) under the policy lazy`,
  async answer(context) {
    const placement = steadiest(context.placements);
    const times: Record<Name, number[]> = { without: [], with: [], 'again without': [] };
    for (let i = 0; i < CASTS; i++) await perform(context, placement, times);
    const each = (name: Name): Finding => ({
      name: `${name} Isthmus`,
      value: median(times[name]),
      unit: 'µs',
      detail: `${placement.title}; ${times[name].length} blocks of ${CONNECTIONS_PER_BLOCK}`,
    });
    return [
      each('without'),
      each('with'),
      slowdown('slower with Isthmus', times.without, times.with),
      slowdown('slower without it, once more', times.without, times['again without']),
    ];
  },
};

async function perform({ folder }: Context, { cpus }: Placement, times: Record<Name, number[]>): Promise<void> {
  const cast: { readonly name: Name; readonly ends: Ends; readonly to: Address }[] = [];
  try {
    for (const name of shuffled(NAMES)) {
      const env =
        name === 'with' ? environmentOf(MAPPED, folder, { ISTHMUS_POLICY: 'lazy' }) : environmentOf(TCP, folder);
      const ends = Ends.start({ cpus, env });
      const to = await ends.server.listen({ kind: 'echo', messageBytes: MESSAGE_BYTES, path: null });
      cast.push({ name, ends, to });
    }
    const block = { messageBytes: MESSAGE_BYTES, count: CONNECTIONS_PER_BLOCK };
    for (const { ends, to } of cast) {
      for (let i = 0; i < WARM_UP_BLOCKS; i++) await ends.client.shortConnections({ to, ...block });
    }
    for (let i = 0; i < BLOCKS; i++) {
      for (const { name, ends, to } of shuffled(cast)) {
        times[name].push(await ends.client.shortConnections({ to, ...block }));
      }
    }
  } finally {
    await Promise.all(cast.map(({ ends }) => ends.stop()));
  }
}

/** Block by block, each against the one of its own turn. */
function slowdown(name: string, base: readonly number[], values: readonly number[]): Finding {
  const percents = values.map((value, i) => (value / (base[i] ?? Number.NaN) - 1) * 100).sort((a, b) => a - b);
  const [low, high] = [quantile(percents, 0.25), quantile(percents, 0.75)];
  return {
    name,
    value: median(percents),
    unit: '%',
    detail: `median of ${percents.length} pairs; half of them between ${low.toFixed(1)} and ${high.toFixed(1)} %`,
  };
}
