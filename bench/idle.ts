/** What does a moved connection cost while nothing is said? Two programs with one open connection, beside two on TCP. */
import { fabricProcess } from './fabric.ts';
import { type Effort, effortOf } from './process-facts.ts';
import { Ends } from './program.ts';
import { sleep } from './programs/control.ts';
import type { Finding, Inquiry } from './question.ts';
import { environmentOf, MAPPED, TCP, type Transport } from './transports.ts';

/** V8 tidies up some seconds after the last work, over TCP as well. */
const SETTLE_MS = 30_000;
const IDLE_MS = 10_000;
const MESSAGE_BYTES = 64;

export const idle: Inquiry = {
  name: 'idle',
  title: `one idle connection, over ${IDLE_MS / 1000} s`,
  async answer({ folder }) {
    const tcp = await openOne(TCP, folder);
    const moved = await openOne(MAPPED, folder);
    try {
      const fabric = await fabricProcess(folder);
      const processes: (readonly [name: string, pid: number])[] = [
        ...named('TCP', tcp),
        ...named('Isthmus', moved),
        ...(fabric?.isOwn ? [['fabric', fabric.pid] as const] : []),
      ];
      await sleep(SETTLE_MS);
      const before = processes.map(([, pid]) => effortOf(pid));
      await sleep(IDLE_MS);
      return processes.map(([name, pid], i) => finding(name, before[i] as Effort, effortOf(pid)));
    } finally {
      await Promise.all([tcp.stop(), moved.stop()]);
    }
  },
};

async function openOne(transport: Transport, folder: string): Promise<Ends> {
  const ends = Ends.start({ cpus: null, env: environmentOf(transport, folder) });
  try {
    const to = await ends.server.listen({ kind: 'echo', messageBytes: MESSAGE_BYTES, path: null });
    await ends.client.openMany({ to, count: 1, messageBytes: MESSAGE_BYTES, expects: transport.expects });
    return ends;
  } catch (error) {
    await ends.stop();
    throw error;
  }
}

function named(title: string, { programs: [server, client] }: Ends): (readonly [string, number])[] {
  return [
    [`${title}, server`, server?.pid ?? -1],
    [`${title}, client`, client?.pid ?? -1],
  ];
}

function finding(name: string, before: Effort, after: Effort): Finding {
  const voluntary = after.voluntarySwitches - before.voluntarySwitches;
  const involuntary = after.involuntarySwitches - before.involuntarySwitches;
  return {
    name,
    value: after.cpuMs - before.cpuMs,
    unit: 'ms CPU',
    detail: `${voluntary} voluntary context switches, ${involuntary} others`,
  };
}
