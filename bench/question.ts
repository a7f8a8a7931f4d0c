/** What a file of questions offers to suite.ts. */
import type { Placements } from './placement.ts';
import type { Ends } from './program.ts';
import type { Expectation, Window } from './programs/control.ts';
import type { Better } from './statistics.ts';

export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly better: Better;
}

/** What a step is given: one transport in one place. */
export interface Subject {
  readonly ends: Ends;
  readonly expects: Expectation;
  /** A path for a Unix socket, if that is the transport. */
  path(): string | null;
}

/** One measurement. All transports take it one after the other, in a new order each round, before the next one comes. */
export interface Step {
  readonly name: string;
  readonly figures: readonly Figure[];
  readonly window: Window;
  /** Belongs to the quick form. */
  readonly isQuick: boolean;
  /** Resolves to the values of the figures. Rejects when it cannot be measured. */
  measure(subject: Subject, window: Window): Promise<readonly number[]>;
}

export interface Comparison {
  readonly name: string;
  readonly steps: readonly Step[];
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
