/**
 * What a round is: which programs there are, what is done to them and when, and what each connection does. All of it is a function of
 * the seed, so that a seed repeats a round as well as processes can be made to repeat anything.
 */

/** What the two programs of a pair speak. */
export const KINDS = {
  echo: { isRaw: true, isEcho: true, atOnce: 4 },
  streams: { isRaw: true, atOnce: 3 },
  short: { isRaw: true, atOnce: 8 },
  slow: { isRaw: true, atOnce: 4 },
  half: { isRaw: true, atOnce: 4 },
  pipes: { isRaw: true, isEcho: true, atOnce: 3 },
  /** The parent accepts and passes the socket on to a child. */
  sticky: { isRaw: true, atOnce: 4 },
  /** Both ends in worker threads; the main thread of the server's program is a client, too. */
  threads: { isRaw: true, atOnce: 3 },
  upgrade: { isRaw: true, atOnce: 3 },
  keepAlive: { isShared: true, followsEnd: true, atOnce: 3 },
  oneShot: { followsEnd: true, atOnce: 3 },
  startTls: { atOnce: 2 },
  tls: { atOnce: 2 },
  /** A server of Node.js may not hear that a client has given up a stream: over TCP, too. */
  h2c: { isShared: true, followsEnd: true, onlyEnds: true, atOnce: 4 },
} as const satisfies Record<string, Traits>;
export type Kind = keyof typeof KINDS;

export interface Traits {
  /** The socket itself is what is talked on: it can be moved by hand, reset, and its events have an order. */
  readonly isRaw?: boolean;
  /** The server gives back what it gets, and writes nothing of its own. */
  readonly isEcho?: boolean;
  /** Lives follow each other on one connection. */
  readonly isShared?: boolean;
  /** The server ends after the client has: a response that is ended before cuts the request off, also over TCP. */
  readonly followsEnd?: boolean;
  /** No end destroys what it talks on. */
  readonly onlyEnds?: boolean;
  /** Lives that a client leads at once. */
  readonly atOnce: number;
}

export function traitsOf(kind: Kind): Traits {
  return KINDS[kind];
}

const IN_BAND = { ISTHMUS_IN_BAND: '127.0.0.1:*' };
/** How a program is set. */
export const SETTINGS = {
  eager: { ISTHMUS_POLICY: 'eager' },
  lazy: { ISTHMUS_POLICY: 'lazy', ISTHMUS_LAZY_BYTES: '20000', ISTHMUS_LAZY_MS: '5' },
  store: { ISTHMUS_POLICY: 'eager', ISTHMUS_ACCESS: 'store' },
  small: { ISTHMUS_POLICY: 'eager', ISTHMUS_DMB_BYTES: '16384' },
  large: { ISTHMUS_POLICY: 'lazy', ISTHMUS_DMB_BYTES: '1048576' },
} as const satisfies Record<string, NodeJS.ProcessEnv>;
export type Setting = keyof typeof SETTINGS;
/** How the two of a pair agree: both have to be told. */
export const HANDSHAKES = {
  fabric: {},
  inBand: IN_BAND,
  kernel: { ...IN_BAND, ISTHMUS_LAYOUT: 'kernel' },
} as const satisfies Record<string, NodeJS.ProcessEnv>;
export type Handshake = keyof typeof HANDSHAKES;

export type Side = 'client' | 'server';
export const otherSide = (side: Side): Side => (side === 'client' ? 'server' : 'client');

export interface Pair {
  readonly kind: Kind;
  readonly handshake: Handshake;
  readonly client: Setting;
  readonly server: Setting;
}

/** What is done to a program from outside, or to the fabric. */
export type Blow = { readonly atMs: number } & (
  | { readonly does: 'kill'; readonly pair: number; readonly side: Side }
  | { readonly does: 'stop'; readonly pair: number; readonly side: Side; readonly forMs: number }
  /** A thread of a program with threads. */
  | { readonly does: 'terminate'; readonly pair: number; readonly side: Side }
  | { readonly does: 'kill fabric' }
  | { readonly does: 'stop fabric'; readonly forMs: number }
);

export interface Round {
  readonly seed: number;
  readonly durationMs: number;
  readonly pairs: readonly Pair[];
  /** In order of time. */
  readonly blows: readonly Blow[];
}

const PAIRS = 12;
const DURATION_MS = 45_000;
/** Blows begin when programs have started, and end early enough for what was struck to be seen afterwards. */
const FIRST_BLOW_MS = 6000;
const LAST_BLOW_MS = 38_000;
const MAX_STOP_MS = 3000;

/** @param only the kind of all pairs; null: many */
export function planRound(seed: number, only: Kind | null = null): Round {
  const random = new Random(seed);
  const all = random.shuffled(Object.keys(KINDS) as Kind[]).slice(0, PAIRS);
  const kinds = only === null ? all : all.map(() => only);
  const settings = Object.keys(SETTINGS) as Setting[];
  const pairs = kinds.map((kind): Pair => {
    const drawn = random.oneOf(['fabric', 'fabric', 'inBand', 'kernel'] as const);
    // HTTP/2 reads nothing while it writes: in the kernel's layout, with buffers that stay short, both ends may do so for ever.
    const handshake = kind === 'h2c' && drawn === 'kernel' ? 'inBand' : drawn;
    return { kind, handshake, client: random.oneOf(settings), server: random.oneOf(settings) };
  });
  const atMs = () => random.between(FIRST_BLOW_MS, LAST_BLOW_MS);
  const blows: Blow[] = [{ does: 'kill fabric', atMs: atMs() }];
  if (random.isOneIn(2)) blows.push({ does: 'kill fabric', atMs: atMs() });
  if (random.isOneIn(2)) blows.push({ does: 'stop fabric', atMs: atMs(), forMs: random.between(50, MAX_STOP_MS) });
  for (const [pair, { kind }] of pairs.entries()) {
    // A third of them lives long.
    const kills = random.oneOf([0, 1, 2]);
    const side = () => random.oneOf(['client', 'server'] as const);
    for (let i = 0; i < kills; i++) blows.push({ does: 'kill', pair, side: side(), atMs: atMs() });
    for (let i = random.between(0, 3); i > 0; i--)
      blows.push({ does: 'stop', pair, side: side(), atMs: atMs(), forMs: random.between(20, MAX_STOP_MS) });
    if (kind === 'threads')
      for (let i = 0; i < 3; i++) blows.push({ does: 'terminate', pair, side: side(), atMs: atMs() });
  }
  return { seed, durationMs: DURATION_MS, pairs, blows: blows.sort((a, b) => a.atMs - b.atMs) };
}

// --- Lives of connections ---

export type Act =
  | readonly ['write', bytes: number]
  | readonly ['wait', ms: number]
  /** Wait for room, not for ever: the peer may be waiting, too. */
  | readonly ['drain']
  /** Read nothing for so long, and go on with the rest meanwhile. */
  | readonly ['hold', ms: number]
  /** Wait until the other end has ended. */
  | readonly ['peerEnd']
  | readonly ['restore']
  | readonly ['accelerate'];

export interface Part {
  readonly acts: readonly Act[];
  readonly last: 'end' | 'destroy' | 'reset';
}

export type Life = Readonly<Record<Side, Part>>;

/** The life of the connection with this id, or of the request. */
export function lifeOf(seed: number, kind: Kind, id: number): Life {
  const random = new Random(seed ^ Math.imul(id + 1, 0x9e3779b1));
  const { isEcho = false, followsEnd = false } = traitsOf(kind);
  const acts = (): Act[] => actsOf(random, kind);
  const client = acts();
  const server = isEcho
    ? acts().filter(([act]) => act === 'wait' || act === 'restore' || act === 'accelerate')
    : acts();
  // Who writes after the other end's end.
  if (kind === 'half') {
    const late = random.oneOf([client, server]);
    late.splice(random.between(0, late.length), 0, ['peerEnd']);
    late.push(...acts());
  }
  if (followsEnd) server.push(['peerEnd']);
  return { client: { acts: client, last: lastOf(random, kind) }, server: { acts: server, last: lastOf(random, kind) } };
}

function lastOf(random: Random, kind: Kind): Part['last'] {
  const { isRaw = false, onlyEnds = false } = traitsOf(kind);
  if (onlyEnds || !random.isOneIn(8)) return 'end';
  return isRaw && random.isOneIn(2) ? 'reset' : 'destroy';
}

function actsOf(random: Random, kind: Kind): Act[] {
  const { isRaw = false } = traitsOf(kind);
  const isShort = kind === 'short';
  const largest = isShort ? 2000 : random.oneOf([200, 20_000, 200_000]);
  const acts: Act[] = [];
  for (let i = random.between(isShort ? 0 : 2, isShort ? 3 : 24); i > 0; i--) {
    const turn = random.between(0, 19);
    if (turn < 10) acts.push(['write', random.between(1, largest)]);
    else if (turn < 14) acts.push(['wait', random.between(0, isShort ? 5 : 60)]);
    else if (turn < 16) acts.push(['drain']);
    else if (turn < 18 && !isShort) acts.push(['hold', random.between(1, kind === 'slow' ? 1500 : 50)]);
    else if (isRaw) acts.push(random.isOneIn(2) ? ['restore'] : ['accelerate']);
  }
  return acts;
}

/** xorshift with a multiplied output; small, and the same everywhere. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 0x85ebca6b) ^ 0x6a09e667) | 1;
    for (let i = 0; i < 4; i++) this.#next();
  }

  /** Both ends are possible. */
  between(least: number, most: number): number {
    return least + (this.#next() % (most - least + 1));
  }

  isOneIn(count: number): boolean {
    return this.between(1, count) === 1;
  }

  oneOf<T>(choices: readonly T[]): T {
    return choices[this.between(0, choices.length - 1)] as T;
  }

  shuffled<T>(all: readonly T[]): T[] {
    const left = [...all];
    return all.map(() => left.splice(this.between(0, left.length - 1), 1)[0] as T);
  }

  #next(): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return Math.imul(this.#state, 0x9e3779b1) >>> 0;
  }
}

/** A round in words. */
export function describeRound({ seed, durationMs, pairs, blows }: Round): string {
  const nameOf = (blow: Blow) =>
    'pair' in blow ? `${blow.does} ${blow.pair} ${blow.side} (${pairs[blow.pair]?.kind})` : blow.does;
  return [
    `seed ${seed}, ${durationMs / 1000} s`,
    ...pairs.map(
      ({ kind, handshake, client, server }, i) =>
        `  pair ${i}: ${kind}, by ${handshake}; client ${client}, server ${server}`,
    ),
    ...blows.map(
      (blow) =>
        `  ${(blow.atMs / 1000).toFixed(1).padStart(5)} s: ${nameOf(blow)}${'forMs' in blow ? ` for ${blow.forMs} ms` : ''}`,
    ),
  ].join('\n');
}
