/** When connections move: what the environment says, with its defaults. */
import { readCount, TIMER_LIMIT_MS } from '../fabric/settings.ts';
import { LAYOUTS, type LayoutName } from '../smc/layout.ts';
import { type Endpoints, parseEndpoints } from './endpoints.ts';

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
  /** What peers are given of our memory. */
  readonly access: AccessMode;
  /** Length of a DMB: 16 KiB to 1 MiB, a power of two. */
  readonly dmbBytes: number;
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
  access: 'mapped',
  dmbBytes: 64 * 1024,
  busyPollUs: 200,
  lingerMs: 10_000,
  inBand: null,
  layout: 'isthmus',
};

/** Values that make no sense are passed over, with a warning. */
export function readPolicy(env: NodeJS.ProcessEnv, warn: (text: string) => void = () => {}): Policy {
  const oneOf = <T extends string>(name: string, values: readonly T[], otherwise: T): T => {
    const value = env[name];
    if (value === undefined || value === '') return otherwise;
    if ((values as readonly string[]).includes(value)) return value as T;
    warn(`${name}=${value} is none of ${values.join(', ')}; ${otherwise} is used`);
    return otherwise;
  };
  const count = (name: string, otherwise: number, isGood = (value: number) => value >= 0): number =>
    readCount(env, name, otherwise, isGood, warn);
  const endpoints = (name: string): Endpoints | null => {
    const value = env[name] ?? '';
    try {
      return value === '' ? null : parseEndpoints(value);
    } catch (error) {
      warn(`${name}=${value}: ${(error as Error).message}; nothing of the value is used`);
      return null;
    }
  };
  const isDmbLength = (value: number) => value >= 16384 && value <= 1 << 20 && Number.isInteger(Math.log2(value));
  const isTimer = (value: number) => value >= 0 && value < TIMER_LIMIT_MS;
  return {
    mode: oneOf('ISTHMUS_POLICY', POLICY_MODES, DEFAULT_POLICY.mode),
    lazyBytes: count('ISTHMUS_LAZY_BYTES', DEFAULT_POLICY.lazyBytes),
    lazyMs: count('ISTHMUS_LAZY_MS', DEFAULT_POLICY.lazyMs),
    access: oneOf('ISTHMUS_ACCESS', ACCESS_MODES, DEFAULT_POLICY.access),
    dmbBytes: count('ISTHMUS_DMB_BYTES', DEFAULT_POLICY.dmbBytes, isDmbLength),
    busyPollUs: count('ISTHMUS_BUSY_POLL_US', DEFAULT_POLICY.busyPollUs),
    lingerMs: count('ISTHMUS_LINGER_MS', DEFAULT_POLICY.lingerMs, isTimer),
    inBand: endpoints('ISTHMUS_IN_BAND'),
    layout: oneOf('ISTHMUS_LAYOUT', LAYOUTS, DEFAULT_POLICY.layout),
  };
}
