/** Which sockets are in a loop of leases (leases.ts): bytes of their rings are not handed to the stream, but wait there to be pulled. */
import type { Socket } from 'node:net';

export interface Lender {
  /** Whether the loop waits for bytes. */
  isWaiting: boolean;
  /** There are some. */
  readonly wake: () => void;
}

const lenders = new WeakMap<Socket, Lender>();

export function lenderOf(socket: Socket): Lender | null {
  return lenders.get(socket) ?? null;
}

export function setLender(socket: Socket, lender: Lender | null): void {
  if (lender === null) lenders.delete(socket);
  else lenders.set(socket, lender);
}
