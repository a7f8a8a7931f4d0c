/**
 * What memory do open connections take, and what is left of them after? The same two programs with and without Isthmus, all alive
 * at the same time, so that what processes share (the program text of Node.js) weighs the same in each.
 */
import { readFileSync } from 'node:fs';
import { fabricProcess } from './fabric.ts';
import { descriptorsOf, moreDescriptors, mostConnections, pssKiB } from './process-facts.ts';
import { Ends } from './program.ts';
import { sleep } from './programs/control.ts';
import type { Finding, Inquiry } from './question.ts';
import { environmentOf, MAPPED, TCP, type Transport } from './transports.ts';

const CONNECTIONS = 1000;
const MESSAGE_BYTES = 16;
const LINGER_MS = 200;
/** For pairs and the membership in the fabric to end, after the last connection has. */
const AFTERMATH_MS = 10 * LINGER_MS;

export const memory: Inquiry = {
  name: 'memory',
  title: `${CONNECTIONS} open connections`,
  async answer({ folder }) {
    const count = Math.min(CONNECTIONS, mostConnections());
    if (!(count > 0)) throw new Error('a process may hold too few descriptors');
    const [tcp, moved] = [new Side(TCP, folder), new Side(MAPPED, folder)];
    try {
      // Whatever a first connection brings with it comes before.
      for (const side of [tcp, moved]) {
        await side.open(1);
        await side.close();
      }
      await sleep(AFTERMATH_MS);
      const fabric = await fabricProcess(folder);
      const fabricPid = fabric?.isOwn ? fabric.pid : null;
      const pssOf = async () => {
        await Promise.all([tcp.collect(), moved.collect()]);
        return { tcp: tcp.pss(), moved: moved.pss(), fabric: fabricPid === null ? 0 : pssKiB(fabricPid) };
      };
      const empty = await pssOf();
      const descriptors = moved.descriptors();
      const shmemBefore = shmemKiB();
      await tcp.open(count);
      const shmemBetween = shmemKiB();
      await moved.open(count);
      const shmem = shmemKiB() - shmemBetween - (shmemBetween - shmemBefore);
      const full = await pssOf();
      await tcp.close();
      await moved.close();
      await sleep(AFTERMATH_MS);
      const closed = await pssOf();

      const perConnection = (kiB: number) => kiB / count;
      const whole = full.moved + full.fabric - full.tcp;
      const fixed = empty.moved + empty.fabric - empty.tcp;
      const fabricSays = fabricPid === null ? 'the fabric is not ours and not counted' : `fabric ${full.fabric} KiB`;
      const findings: Finding[] = [
        {
          name: 'more than TCP, per connection',
          value: perConnection(whole),
          unit: 'KiB',
          detail: `${count} open; PSS of both ends ${full.moved} KiB, ${fabricSays}, both ends on TCP ${full.tcp} KiB`,
        },
        {
          name: 'of which grows with each',
          value: perConnection(whole - fixed),
          unit: 'KiB',
          detail: `without a connection open ${fixed} KiB more than TCP; shared memory of the machine grew by ${shmem} KiB`,
        },
        {
          name: 'kept after all have closed',
          value: closed.moved + closed.fabric - closed.tcp - fixed,
          unit: 'KiB',
          detail: `of ${whole - fixed} KiB`,
        },
      ];
      const after = moved.descriptors();
      for (const [i, end] of ['server', 'client'].entries()) {
        const [was, is] = [descriptors[i] ?? [], after[i] ?? []];
        const more = moreDescriptors(was, is);
        findings.push({
          name: `descriptors left, ${end}`,
          value: is.length - was.length,
          unit: '',
          detail: more.length === 0 ? `${was.length} before, ${is.length} after` : more.join(', '),
        });
      }
      return findings;
    } finally {
      await Promise.all([tcp.stop(), moved.stop()]);
    }
  },
};

class Side {
  readonly #transport: Transport;
  readonly #ends: Ends;

  constructor(transport: Transport, folder: string) {
    this.#transport = transport;
    const env = environmentOf(transport, folder, { ISTHMUS_LINGER_MS: String(LINGER_MS) });
    this.#ends = Ends.start({ cpus: null, env, nodeOptions: ['--expose-gc'] });
  }

  async open(count: number): Promise<void> {
    const { server, client } = this.#ends;
    const to = await server.listen({ kind: 'echo', messageBytes: MESSAGE_BYTES, path: null });
    await client.openMany({ to, count, messageBytes: MESSAGE_BYTES, expects: this.#transport.expects });
  }

  async close(): Promise<void> {
    await this.#ends.client.closeMany();
    await this.#ends.server.close();
  }

  async collect(): Promise<void> {
    await this.#ends.server.collectServer();
    await this.#ends.client.collectClient();
  }

  pss(): number {
    return this.#ends.programs.reduce((sum, { pid }) => sum + pssKiB(pid), 0);
  }

  descriptors(): string[][] {
    return this.#ends.programs.map(({ pid }) => descriptorsOf(pid));
  }

  stop(): Promise<void> {
    return this.#ends.stop();
  }
}

/** Of the whole machine: pages of shared memory, also those that no process has touched. */
function shmemKiB(): number {
  return Number(/^Shmem:\s*(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
}
