/** What is compared. */
import { join } from 'node:path';
import { REGISTER_OPTION } from '../src/cli/run.ts';
import type { Expectation } from './programs/control.ts';

export type TransportName = 'TCP' | 'Unix' | 'mapped' | 'store' | 'loopback';

export interface Transport {
  readonly name: TransportName;
  readonly title: string;
  readonly isUnix: boolean;
  /** Null = Isthmus is not loaded. */
  readonly expects: Expectation;
}

export const TCP: Transport = { name: 'TCP', title: 'TCP', isUnix: false, expects: null };
export const UNIX: Transport = { name: 'Unix', title: 'Unix socket', isUnix: true, expects: null };
export const MAPPED: Transport = {
  name: 'mapped',
  title: 'Isthmus, mapped',
  isUnix: false,
  expects: { device: 'host', access: 'mapped' },
};
export const STORE: Transport = {
  name: 'store',
  title: 'Isthmus, store',
  isUnix: false,
  expects: { device: 'host', access: 'store' },
};
export const LOOPBACK: Transport = {
  name: 'loopback',
  title: 'Isthmus, loopback',
  isUnix: false,
  expects: { device: 'loopback', access: 'mapped' },
};

/** Where the fabric of this benchmark lives. */
export function runtimeDirectory(folder: string): string {
  return join(folder, 'run');
}

/**
 * The environment of a program: as the user has it, but for what would make the comparison untrue. Variables of Isthmus that the
 * user has set (ISTHMUS_BUSY_POLL_US, say) hold for the programs that load it.
 */
export function environmentOf(transport: Transport, folder: string, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => name !== 'NODE_OPTIONS' && (transport.expects !== null || !name.startsWith('ISTHMUS_')),
    ),
  );
  if (transport.expects === null) return env;
  return {
    ...env,
    NODE_OPTIONS: REGISTER_OPTION,
    ISTHMUS_ACCESS: transport.expects.access,
    ISTHMUS_RUNTIME_DIR: runtimeDirectory(folder),
    ISTHMUS_FABRIC_IDLE_MS: '10000',
    ...more,
  };
}
