/**
 * Connections that are not old enough to be worth moving. Under the policy lazy a short connection costs no more than its place in
 * this set; a timer looks at all of them together, and runs only while there are any.
 */
import type { Socket } from 'node:net';
import { internalsOf } from './internals.ts';
import type { Role } from './mover.ts';

export interface Newborn {
  readonly socket: Socket;
  readonly role: Role;
  readonly bornAt: number;
  readonly inContext?: (run: () => void) => void;
}

const SWEEP_MS = 10;

export class Nursery {
  readonly #young = new Set<Newborn>();
  readonly #lazyBytes: number;
  readonly #lazyMs: number;
  readonly #grown: (one: Newborn) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(lazyBytes: number, lazyMs: number, grown: (one: Newborn) => void) {
    this.#lazyBytes = lazyBytes;
    this.#lazyMs = lazyMs;
    this.#grown = grown;
  }

  add(one: Newborn): void {
    this.#young.add(one);
    this.#timer ??= setTimeout(() => this.#sweep(), SWEEP_MS).unref();
  }

  #sweep(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (const one of this.#young) {
      const { socket } = one;
      if (socket.destroyed) this.#young.delete(one);
      else if (!socket.connecting && this.#isGrown(one, now)) {
        this.#young.delete(one);
        this.#grown(one);
      }
    }
    if (this.#young.size > 0) this.#timer ??= setTimeout(() => this.#sweep(), SWEEP_MS).unref();
  }

  #isGrown({ socket, bornAt }: Newborn, now: number): boolean {
    if (now - bornAt >= this.#lazyMs) return true;
    const handle = internalsOf(socket)._handle;
    return handle !== null && handle.bytesRead + handle.bytesWritten >= this.#lazyBytes;
  }
}
