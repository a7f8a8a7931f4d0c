/** How many bytes go one way in a second, and what CPU time do they cost at both ends? One connection, one writer. */
import type { Ends } from './program.ts';
import type { Sample, Window } from './programs/control.ts';
import type { ReadingWay } from './programs/reading.ts';
import type { Comparison, Step, Subject } from './question.ts';
import { sizeText } from './statistics.ts';

const GB = 1e9;

export function stream(writeBytes: number, more: Partial<Step> = {}): Step {
  return {
    name: `stream, writes of ${sizeText(writeBytes)}`,
    figures: [
      { name: 'rate', unit: 'GB/s', better: 'higher' },
      { name: 'CPU', unit: 's/GB', better: 'lower' },
    ],
    window: { warmMs: 500, windowMs: 1000 },
    isQuick: true,
    measure: (subject, window) => measure(subject, writeBytes, window),
    ...more,
  };
}

async function measure(
  { ends, transport, placement, path }: Subject,
  writeBytes: number,
  window: Window,
): Promise<readonly number[]> {
  const { peer, expects } = transport;
  if (peer !== null) {
    const cpu = placement.cpus?.server ?? null;
    const sample = await ends.peer.stream({ peer, cpu, path: path(), messageBytes: writeBytes, ...window });
    return [sample.bytes / sample.seconds / GB, (sample.cpuSeconds / sample.bytes) * GB];
  }
  return await ends.withServer({ kind: 'sink', messageBytes: 0, path: path() }, async (to) => {
    const { server, client } = ends;
    await client.startStream({ to, writeBytes, expects });
    const [received, sent] = await Promise.all([server.sampleReceived(window), client.sampleSent(window)]);
    const [total, arrived] = [await client.stopStream(), await server.received()];
    return figuresOf(ends, received, sent, total, arrived);
  });
}

/** @param total all bytes that were written. @param arrived all that were read */
function figuresOf({ isOneProcess }: Ends, received: Sample, sent: Sample, total: number, arrived: number): number[] {
  if (total !== arrived) throw new Error(`${total} bytes were written, ${arrived} have arrived`);
  const readerCost = received.cpuSeconds / received.bytes;
  const cost = isOneProcess ? readerCost : readerCost + sent.cpuSeconds / sent.bytes;
  return [received.bytes / received.seconds / GB, cost * GB];
}

/** The other way round: the client reads, since sockets of servers have no `onread`. */
function read(by: ReadingWay, writeBytes: number): Step {
  const how =
    by === 'leases' ? 'leased and not looked at (TCP and Unix sockets: one buffer reused)' : 'one buffer reused';
  return stream(writeBytes, {
    name: `stream, writes of ${sizeText(writeBytes)}, ${how}`,
    isQuick: false,
    measure: ({ ends, transport: { expects }, path }, window) =>
      ends.withServer({ kind: 'source', messageBytes: writeBytes, path: path() }, async (to) => {
        const { server, client } = ends;
        await client.startReading({ to, by: expects === null ? 'onread' : by, expects });
        const [sent, received] = await Promise.all([server.sampleWritten(window), client.sampleRead(window)]);
        const [arrived, total] = [await client.stopReading(), await server.written()];
        return figuresOf(ends, received, sent, total, arrived);
      }),
  });
}

export const streams: Comparison = {
  name: 'stream',
  steps: [
    stream(4 << 10, { isQuick: false }),
    stream(64 << 10),
    stream(1 << 20, { isQuick: false }),
    read('onread', 64 << 10),
    read('leases', 64 << 10),
  ],
  isShort: true,
};
