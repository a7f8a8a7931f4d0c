/** What a file of questions offers to suite.ts. */
import type { Placement, Placements } from './placement.ts';
import type { Ends } from './program.ts';
import type { Window } from './programs/control.ts';
import type { Better } from './statistics.ts';
import type { Transport } from './transports.ts';

export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly better: Better;
}

/** What a step is given: one transport in one place. */
export interface Subject {
  readonly ends: Ends;
  readonly transport: Transport;
  readonly placement: Placement;
  /** A new path for a Unix socket, if the transport needs one. */
  path(): string | null;
}

/** Lines over how large, or how many. */
export type PlotName = 'round trip' | 'stream' | 'connections';

export interface Point {
  readonly plot: PlotName;
  readonly at: number;
}

/** One measurement. All transports take it one after the other, in a new order each round, before the next one comes. */
export interface Step {
  readonly name: string;
  readonly figures: readonly Figure[];
  readonly window: Window;
  /** Belongs to the short form of its question. */
  readonly isQuick: boolean;
  /** Where its first figure stands in a plot. */
  readonly point?: Point;
  /** A transport that cannot take it is not missed. */
  canTake?(transport: Transport): boolean;
  /** Resolves to the values of the figures; null for one that has no meaning here. Rejects when it cannot be measured. */
  measure(subject: Subject, window: Window): Promise<readonly (number | null)[]>;
}

export interface Comparison {
  readonly name: string;
  readonly steps: readonly Step[];
  /** Asked where nobody says what to ask. */
  readonly isShort?: boolean;
  /** Between two processes, TCP first; without it all sockets that there are. */
  readonly transports?: readonly Transport[];
  /** Asked in the steadiest place only, if no other is wanted. */
  readonly isInOnePlace?: boolean;
}

export interface Context {
  /** Private to this run. */
  readonly folder: string;
  readonly placements: Placements;
  readonly isQuick: boolean;
  progress(text: string): void;
}

export interface Finding {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** In words: spread, breakdown. */
  readonly detail: string;
}

/** A question that has its own course. */
export interface Inquiry {
  readonly name: string;
  readonly title: string;
  /** Rejects when it cannot be answered. */
  answer(context: Context): Promise<readonly Finding[]>;
}
