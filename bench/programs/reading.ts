/** Reads into one buffer that is used again, or where the peer has put it. */
import type { Socket } from 'node:net';
import type { Address, Sample, Window } from './control.ts';
import { closed, open } from './dial.ts';
import { type Path, sampleOn } from './path.ts';

/** `onread` is an option of `connect` of node:net, `leases` a function of Isthmus. */
export type ReadingWay = 'onread' | 'leases';

export class Reading {
  readonly socket: Socket;
  readonly #path: Path;
  readonly #received: () => number;
  /** Why the loop of leases has ended before the connection. */
  #failure: Error | null = null;

  private constructor(socket: Socket, path: Path, received: () => number) {
    this.socket = socket;
    this.#path = path;
    this.#received = received;
  }

  static async start(to: Address, by: ReadingWay, path: Path): Promise<Reading> {
    let received = 0;
    if (by === 'onread') {
      const callback = (length: number) => {
        received += length;
        return true;
      };
      const socket = await open(to, { onread: { buffer: Buffer.alloc(64 << 10), callback } });
      return new Reading(socket, path, () => received);
    }
    const { leases } = await import('isthmus');
    const socket = await open(to);
    const reading = new Reading(socket, path, () => received);
    const read = async () => {
      for await (const lease of leases(socket)) {
        received += lease.bytes.length;
        lease.release();
      }
    };
    read().catch((error: Error) => {
      reading.#failure = error;
      socket.destroy();
    });
    return reading;
  }

  async sample(window: Window): Promise<Sample> {
    return await sampleOn(this.#path, this.socket, 'in', this.#received, window);
  }

  async stop(): Promise<number> {
    this.socket.end();
    await closed(this.socket);
    if (this.#failure !== null) throw this.#failure;
    return this.#received();
  }
}
