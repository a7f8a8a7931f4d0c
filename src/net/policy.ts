/** When connections move: what the environment and the file say, with the defaults. */
import type { BlockList } from 'node:net';
import { type Range, readCount, TIMER_LIMIT_MS } from '../fabric/settings.ts';
import { LAYOUTS, type LayoutName } from '../smc/layout.ts';
import { type Endpoints, parseAddressList, parseEndpoints } from './endpoints.ts';

export const POLICY_MODES = ['eager', 'lazy', 'off'] as const;
export type PolicyMode = (typeof POLICY_MODES)[number];
export const ACCESS_MODES = ['mapped', 'store'] as const;
export type AccessMode = (typeof ACCESS_MODES)[number];

export interface Policy {
  /**
   * eager: once a byte has passed in either direction. lazy: once enough bytes or enough time have passed, so that short
   * connections never pay. off: never.
   */
  readonly mode: PolicyMode;
  /** lazy: bytes in both directions together. */
  readonly lazyBytes: number;
  /** lazy: age of a connection on which a byte has passed. */
  readonly lazyMs: number;
  /** Connections that are being proven or shake hands, at once in one partition. */
  readonly maxHandshakes: number;
  /** Addresses that may be of this host, beside its own. Null: private ones if a fabric was named, else none. */
  readonly local: BlockList | null;
  /** What peers are given of our memory. */
  readonly access: AccessMode;
  /** Length of a DMB: 16 KiB to 1 MiB, a power of two. */
  readonly dmbBytes: number;
  /** How long a buffer may become while the other end waits for room in it; not more than `dmbBytes`: it stays as it is. */
  readonly maxDmbBytes: number;
  /** Longest time to look for nothing before sleeping; 0 = never spin. */
  readonly busyPollUs: number;
  /** How long a pair or the membership in the fabric outlives its last use. */
  readonly lingerMs: number;
  /** Connections whose handshake is in-band: a client's by its peer's address, a server's by its own. Null: none. */
  readonly inBand: Endpoints | null;
  /** In-band: how the head of a DMB is laid out. `isthmus` is used when both ends know it. */
  readonly layout: LayoutName;
}

export const DEFAULT_POLICY: Policy = {
  mode: 'lazy',
  lazyBytes: 64 * 1024,
  lazyMs: 40,
  maxHandshakes: 256,
  local: null,
  access: 'mapped',
  dmbBytes: 64 * 1024,
  maxDmbBytes: 4 * 1024 * 1024,
  busyPollUs: 200,
  lingerMs: 10_000,
  inBand: null,
  layout: 'isthmus',
};

/**
 * Values that make no sense are passed over, with a warning.
 * @param base what holds where nothing is set
 */
export function readPolicy(
  env: NodeJS.ProcessEnv,
  warn: (text: string, name: string) => void = () => {},
  base: Policy = DEFAULT_POLICY,
): Policy {
  const oneOf = <T extends string>(name: string, values: readonly T[], otherwise: T): T => {
    const value = env[name];
    if (value === undefined || value === '') return otherwise;
    if ((values as readonly string[]).includes(value)) return value as T;
    warn(`${name}=${value} is none of ${values.join(', ')}; ${otherwise} is used`, name);
    return otherwise;
  };
  const count = (name: string, otherwise: number, range: Range): number =>
    readCount(env, name, otherwise, range, (text) => warn(text, name));
  const list = <T>(name: string, parse: (text: string) => T, otherwise: T): T => {
    const value = env[name] ?? '';
    try {
      return value === '' ? otherwise : parse(value);
    } catch (error) {
      warn(`${name}=${value}: ${(error as Error).message}; nothing of the value is used`, name);
      return otherwise;
    }
  };
  return {
    mode: oneOf('ISTHMUS_POLICY', POLICY_MODES, base.mode),
    lazyBytes: count('ISTHMUS_LAZY_BYTES', base.lazyBytes, { from: 0 }),
    lazyMs: count('ISTHMUS_LAZY_MS', base.lazyMs, { from: 0 }),
    maxHandshakes: count('ISTHMUS_MAX_HANDSHAKES', base.maxHandshakes, { from: 1 }),
    local: list('ISTHMUS_LOCAL', parseAddressList, base.local),
    access: oneOf('ISTHMUS_ACCESS', ACCESS_MODES, base.access),
    dmbBytes: count('ISTHMUS_DMB_BYTES', base.dmbBytes, { from: 16384, to: 1 << 20, isPowerOfTwo: true }),
    maxDmbBytes: count('ISTHMUS_MAX_DMB_BYTES', base.maxDmbBytes, { from: 16384, to: 4 << 20, isPowerOfTwo: true }),
    busyPollUs: count('ISTHMUS_BUSY_POLL_US', base.busyPollUs, { from: 0 }),
    lingerMs: count('ISTHMUS_LINGER_MS', base.lingerMs, { from: 0, to: TIMER_LIMIT_MS - 1 }),
    inBand: list('ISTHMUS_IN_BAND', parseEndpoints, base.inBand),
    layout: oneOf('ISTHMUS_LAYOUT', LAYOUTS, base.layout),
  };
}

/** What `readPolicy` reads: the environment and the file may have it. */
export const FILE_SETTINGS = [
  'ISTHMUS_POLICY',
  'ISTHMUS_LAZY_BYTES',
  'ISTHMUS_LAZY_MS',
  'ISTHMUS_MAX_HANDSHAKES',
  'ISTHMUS_LOCAL',
  'ISTHMUS_ACCESS',
  'ISTHMUS_DMB_BYTES',
  'ISTHMUS_MAX_DMB_BYTES',
  'ISTHMUS_BUSY_POLL_US',
  'ISTHMUS_LINGER_MS',
  'ISTHMUS_IN_BAND',
  'ISTHMUS_LAYOUT',
] as const;

/** Only the environment has them. */
export const ENVIRONMENT_SETTINGS = [
  'ISTHMUS_CONFIG',
  'ISTHMUS_RULES',
  'ISTHMUS_FABRIC',
  'ISTHMUS_FABRIC_IDLE_MS',
  'ISTHMUS_RUNTIME_DIR',
] as const;

/** ` (did you mean ...?)` for a name that is none, or nothing if there is none like it. */
export function suggest(name: string, names: readonly string[]): string {
  const given = name.toUpperCase();
  const distance = (one: string) => Math.min(distanceOf(given, one), distanceOf(`ISTHMUS_${given}`, one));
  const [nearest] = [...names].sort((a, b) => distance(a) - distance(b));
  return nearest === undefined || distance(nearest) > FARTHEST ? '' : ` (did you mean ${nearest}?)`;
}

/** Letters that are wrong, missing or too many in a name which is still meant. */
const FARTHEST = 3;

/** By Levenshtein. */
function distanceOf(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, i) => i);
  for (let i = 0; i < one.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < other.length; j++) {
      const replaced = (row[j] as number) + (one[i] === other[j] ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] as number) + 1, (next[j] as number) + 1));
    }
    row = next;
  }
  return row[other.length] as number;
}
