/**
 * What a partition counts, in memory that other processes read (table.ts). Each connection is counted once: when it is first looked
 * at, when it first moves, and when it ends. While it is open its bytes stand in its row; at its end they are added to the totals.
 */
import { DEVICE_COUNTER } from '../devices/host/index.ts';
import { count } from '../ism/counters.ts';
import { REASONS, type Reason } from '../smc/reasons.ts';
import { COUNTER } from './info.ts';
import type { Role } from './mover.ts';

/** Places of the totals; new ones come last. */
export const TOTAL = {
  /** Of the connections that have ended, as COUNTER. */
  ended: 0,
  /** Connections that were looked at, that have moved, and handshakes that failed: of clients, then of servers. */
  connections: 8,
  moved: 10,
  errors: 12,
  /** As DEVICE_COUNTER. */
  device: 16,
  /** Buffers for what is received, by length: up to 8 KiB, 16 KiB ... 1 MiB, and longer ones. */
  buffers: 32,
} as const;
export const BUFFER_SIZES = 9;
export const TOTALS_LENGTH = 64;
/** More than there are reasons. */
export const FALLBACK_SLOTS = 128;
/** Stands for codes of peers that are no reasons of ours, so that a peer cannot fill the slots. */
export const OTHER_CODE = 0;

const CODES = new Set(Object.values(REASONS).map(({ code }) => code));
const ROLES: readonly Role[] = ['client', 'server'];

export class Statistics {
  readonly #totals: Float64Array;
  readonly #fallbacks: Float64Array;
  readonly #slots = new Map<number, number>();
  /** Where devices count. */
  readonly device: Float64Array;

  constructor(totals = new Float64Array(TOTALS_LENGTH), fallbacks = new Float64Array(2 * FALLBACK_SLOTS)) {
    this.#totals = totals;
    this.#fallbacks = fallbacks;
    this.device = totals.subarray(TOTAL.device, TOTAL.device + Object.keys(DEVICE_COUNTER).length);
  }

  /** @param of a connection: that it was looked at, that it has moved, or that its handshake has failed */
  count(what: 'connections' | 'moved' | 'errors', of: Role): void {
    count(this.#totals, TOTAL[what] + ROLES.indexOf(of));
  }

  /** A buffer was registered. */
  registered(lengthBytes: number): void {
    const size = Math.ceil(Math.log2(lengthBytes / 8192));
    count(this.#totals, TOTAL.buffers + Math.min(Math.max(size, 0), BUFFER_SIZES - 1));
  }

  /** @param fallback why it has never moved, if so */
  ended(counters: Float64Array, fallback: Reason | null): void {
    for (const place of Object.values(COUNTER)) {
      const at = TOTAL.ended + place;
      this.#totals[at] = (this.#totals[at] ?? 0) + (counters[place] ?? 0);
    }
    if (fallback !== null) this.#fellBack(CODES.has(fallback.code) ? fallback.code : OTHER_CODE);
  }

  #fellBack(code: number): void {
    const slot = this.#slots.get(code) ?? this.#slots.size;
    this.#slots.set(code, slot);
    this.#fallbacks[2 * slot] = code;
    count(this.#fallbacks, 2 * slot + 1);
  }
}
