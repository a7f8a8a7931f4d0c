/** How many bytes go one way in a second, and what CPU time do they cost at both ends? One connection, one writer. */
import type { Comparison, Step } from './question.ts';

const GB = 1e9;

function stream(size: string, writeBytes: number, isQuick: boolean): Step {
  return {
    name: `stream, writes of ${size}`,
    figures: [
      { name: 'rate', unit: 'GB/s', better: 'higher' },
      { name: 'CPU', unit: 's/GB', better: 'lower' },
    ],
    window: { warmMs: 200, windowMs: 1000 },
    isQuick,
    measure: ({ ends, expects, path }, window) =>
      ends.withServer({ kind: 'sink', messageBytes: 0, path: path() }, async (to) => {
        const { server, client } = ends;
        await client.startStream({ to, writeBytes, expects });
        const [received, sent] = await Promise.all([server.sampleReceived(window), client.sampleSent(window)]);
        const [total, arrived] = [await client.stopStream(), await server.received()];
        if (total !== arrived) throw new Error(`${total} bytes were written, ${arrived} have arrived`);
        const readerCost = received.cpuSeconds / received.bytes;
        const cost = ends.isOneProcess ? readerCost : readerCost + sent.cpuSeconds / sent.bytes;
        return [received.bytes / received.seconds / GB, cost * GB];
      }),
  };
}

export const streams: Comparison = {
  name: 'stream',
  steps: [stream('4 KiB', 4 << 10, false), stream('64 KiB', 64 << 10, true), stream('1 MiB', 1 << 20, false)],
};
