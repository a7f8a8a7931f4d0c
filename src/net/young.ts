/**
 * Connections that are not old enough to be worth moving. Under the policy lazy a short connection costs no more than its place in
 * this list; a timer looks at all of them together, and runs only while there are any.
 */
import type { AsyncResource } from 'node:async_hooks';
import type { Socket } from 'node:net';
import { internalsOf } from './internals.ts';
import type { Role } from './mover.ts';

export interface Newborn {
  readonly socket: Socket;
  readonly role: Role;
  /** Where listeners of the program belong. */
  readonly context: AsyncResource;
}

/** A timer that fires in a program of short connections costs it 1 % at 20 ms, 3 % at 10 ms. */
const SWEEP_MS = 20;

/** Either makes a connection old enough. */
export interface Enough {
  readonly lazyBytes: number;
  readonly lazyMs: number;
}

export class Nursery {
  /** With the number of sweeps each has seen: reading a clock at birth would cost more than all the rest. */
  #young: { readonly one: Newborn; sweeps: number }[] = [];
  readonly #enough: () => Enough;
  readonly #grown: (one: Newborn) => void;
  #timer: NodeJS.Timeout | undefined;

  /** @param enough asked at each sweep */
  constructor(enough: () => Enough, grown: (one: Newborn) => void) {
    this.#enough = enough;
    this.#grown = grown;
  }

  add(one: Newborn): void {
    // What has ended since is let go of at once: a socket that outlives a garbage collection costs more than its whole life.
    while (this.#young[0]?.one.socket.destroyed) this.#young.shift();
    this.#young.push({ one, sweeps: 0 });
    this.#timer ??= setTimeout(() => this.#sweep(), SWEEP_MS).unref();
  }

  *sockets(): Iterable<Socket> {
    for (const { one } of this.#young) yield one.socket;
  }

  forget(socket: Socket): void {
    this.#young = this.#young.filter(({ one }) => one.socket !== socket);
  }

  #sweep(): void {
    this.#timer = undefined;
    const { lazyBytes, lazyMs } = this.#enough();
    const lazySweeps = Math.ceil(lazyMs / SWEEP_MS);
    const grown: Newborn[] = [];
    this.#young = this.#young.filter((young) => {
      young.sweeps++;
      const { socket } = young.one;
      if (socket.destroyed) return false;
      if (socket.connecting || (young.sweeps < lazySweeps && bytesOf(socket) < lazyBytes)) return true;
      grown.push(young.one);
      return false;
    });
    if (this.#young.length > 0) this.#timer = setTimeout(() => this.#sweep(), SWEEP_MS).unref();
    for (const one of grown) this.#grown(one);
  }
}

/** Both ways together. */
function bytesOf(socket: Socket): number {
  const handle = internalsOf(socket)._handle;
  return handle === null ? 0 : handle.bytesRead + handle.bytesWritten;
}
