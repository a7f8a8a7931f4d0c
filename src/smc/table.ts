import { PeerFault } from './errors.ts';

/**
 * State machines as data: a row for every pair of state and event, and one pure function that looks it up.
 * A pair that cannot happen is a row too, with the reason; who does it anyway broke the protocol.
 */
export type Row<State extends string, Action extends string> =
  | { readonly next: State; readonly actions: readonly Action[]; readonly why: string }
  | { readonly impossible: string };

export type Table<State extends string, Event extends string, Action extends string> = {
  readonly [S in State]: { readonly [E in Event]: Row<State, Action> };
};

export function go<State extends string, Action extends string>(
  next: State,
  actions: readonly Action[],
  why: string,
): Row<State, Action> {
  return { next, actions, why };
}

export function never(impossible: string): { readonly impossible: string } {
  return { impossible };
}

/** The next state and what is to be done. Throws PeerFault for what cannot happen. */
export function step<State extends string, Event extends string, Action extends string>(
  table: Table<State, Event, Action>,
  state: State,
  event: Event,
): { readonly next: State; readonly actions: readonly Action[] } {
  const row = table[state][event];
  if ('impossible' in row) throw new PeerFault(`${event} while ${state}: ${row.impossible}`);
  return row;
}
