/**
 * Cursors of the kernel's layout: a place in a ring, and how often the ring was gone round before (net/smc/smc_cdc.h: smc_curs_add,
 * smc_curs_diff). Arithmetic only.
 */
import { PeerFault } from '../errors.ts';

export interface Cursor {
  /** Modulo 2^16. */
  readonly wrap: number;
  /** Bytes from the beginning of the ring, less than its length. */
  readonly count: number;
}

export const START: Cursor = { wrap: 0, count: 0 };

/** @param bytes at most one ring */
export function add(ringBytes: number, { wrap, count }: Cursor, bytes: number): Cursor {
  const sum = count + bytes;
  return sum < ringBytes ? { wrap, count: sum } : { wrap: (wrap + 1) & 0xffff, count: sum - ringBytes };
}

/** Bytes from one cursor to a later one that is at most one ring ahead: full is the same place in the next round. */
export function distance(ringBytes: number, from: Cursor, to: Cursor): number {
  return to.count - from.count + (to.wrap === from.wrap ? 0 : ringBytes);
}

/**
 * How far a peer has moved its cursor. Linux takes whatever stands there; here a cursor that leaves the ring, goes back, or moves by more
 * than `most` is a PeerFault.
 */
export function advance(ringBytes: number, from: Cursor, to: Cursor, most: number): number {
  const rounds = (to.wrap - from.wrap) & 0xffff;
  const bytes = distance(ringBytes, from, to);
  if (to.count >= ringBytes || rounds > 1 || bytes < 0 || bytes > most) {
    throw new PeerFault(
      `a cursor of a ring of ${ringBytes} went from ${show(from)} to ${show(to)}, at most ${most} bytes`,
    );
  }
  return bytes;
}

/** As traces have it: wrap and count. */
export function show({ wrap, count }: Cursor): string {
  return `${wrap}:${count}`;
}
