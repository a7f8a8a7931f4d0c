/** What the director of a round and the programs say to each other: JSON texts on lines of stdin and stdout. */
import { writeSync } from 'node:fs';
import type { Kind, Side } from './plan.ts';

/** What a program is, its only argument. */
export interface Role {
  readonly seed: number;
  readonly kind: Kind;
  readonly side: Side;
  /** Ids of its connections begin here. */
  readonly firstId: number;
  /** A client that runs inside the server's program. */
  readonly isPlain: boolean;
  /** Files of ledgers begin so. */
  readonly ledgers: string;
}

export type Command =
  /** Where the server listens; again when another one has taken its place. */
  | { readonly does: 'dial'; readonly port: number }
  /** No more new connections. */
  | { readonly does: 'finish' }
  /** Let go of everything, so that the program ends. */
  | { readonly does: 'leave' }
  /** A thread, which is followed by another one. */
  | { readonly does: 'terminate' }
  /** Say what there is. */
  | { readonly does: 'dump' };

/** How one end of a connection came to its end. */
export interface Outcome {
  readonly id: number;
  readonly side: Side;
  readonly written: number;
  readonly received: number;
  /** Where the first wrong byte was. */
  readonly wrongAt: number | null;
  /** 'end', 'error CODE' and 'close' as they came. */
  readonly events: readonly string[];
  /** Bytes went through shared memory. */
  readonly moved: boolean;
  readonly startedAt: number;
  readonly overAt: number;
  /** It did not end: what is known of it. */
  readonly stuck: unknown;
  /** Its program or thread was killed; the ledger tells what it had done. */
  readonly died: boolean;
}

export type Report =
  | { readonly says: 'port'; readonly port: number }
  | { readonly says: 'over'; readonly outcome: Outcome }
  /** What went wrong where no connection can be named. */
  | { readonly says: 'stray'; readonly text: string }
  /** A thread was terminated, whose ledger this is. */
  | { readonly says: 'terminated'; readonly ledger: string }
  /** It goes on. */
  | { readonly says: 'alive'; readonly bytes: number; readonly rssBytes: number }
  /** Nothing is open any more. */
  | { readonly says: 'finished' }
  | { readonly says: 'dump'; readonly ends: unknown };

export function tell(report: Report): void {
  const line = Buffer.from(`${JSON.stringify(report)}\n`);
  for (let at = 0; at < line.length; ) {
    try {
      at += writeSync(1, line, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error; // the director is slow
    }
  }
}
