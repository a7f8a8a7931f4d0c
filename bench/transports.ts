/** What is compared. */
import { join } from 'node:path';
import { REGISTER_OPTION } from '../src/cli/run.ts';
import type { Expectation } from './programs/control.ts';
import type { PeerKind } from './programs/lines.ts';

/** The sockets, and what else programs talk by. */
export type TransportName = 'TCP' | 'Unix' | 'mapped' | 'store' | 'loopback' | PeerKind;

export interface Transport {
  readonly name: TransportName;
  readonly title: string;
  readonly isUnix: boolean;
  /** Null = a socket of node:net. */
  readonly peer: PeerKind | null;
  /** Null = Isthmus is not loaded. */
  readonly expects: Expectation;
}

export const TCP: Transport = { name: 'TCP', title: 'TCP', isUnix: false, peer: null, expects: null };
export const UNIX: Transport = { name: 'Unix', title: 'Unix socket', isUnix: true, peer: null, expects: null };
export const MAPPED: Transport = {
  name: 'mapped',
  title: 'Isthmus, mapped',
  isUnix: false,
  peer: null,
  expects: { device: 'host', access: 'mapped' },
};
export const STORE: Transport = {
  name: 'store',
  title: 'Isthmus, store',
  isUnix: false,
  peer: null,
  expects: { device: 'host', access: 'store' },
};
export const LOOPBACK: Transport = {
  name: 'loopback',
  title: 'Isthmus, loopback',
  isUnix: false,
  peer: null,
  expects: { device: 'loopback', access: 'mapped' },
};

function peer(name: PeerKind, title: string): Transport {
  return { name, title, isUnix: false, peer: name, expects: null };
}

export const IPC_JSON = peer('ipc-json', 'child_process IPC, json');
export const IPC_ADVANCED = peer('ipc-advanced', 'child_process IPC, advanced');
export const PIPES = peer('pipes', 'pipes (stdio of a child)');
export const ZEROMQ = peer('zeromq', 'zeromq, ipc://');
export const PORT_COPY = peer('port-copy', 'MessagePort, copied');
export const PORT_TRANSFER = peer('port-transfer', 'MessagePort, transferred');
/** No competitors, but what the machine could do at best. */
export const RING = peer('ring', 'limit: Isthmus, a ring without sockets, both ends spin');
export const MEMCPY = peer('memcpy', 'limit: memcpy from one core to another');
export const LIMITS: readonly Transport[] = [RING, MEMCPY];

/** Both ends are threads of one process. */
export function isOfThreads(kind: PeerKind): boolean {
  return ['port-copy', 'port-transfer', 'memcpy'].includes(kind);
}

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
  const fabric = { ISTHMUS_RUNTIME_DIR: runtimeDirectory(folder), ISTHMUS_FABRIC_IDLE_MS: '10000' };
  if (transport.name === 'ring') return { ...env, ...fabric };
  if (transport.expects === null) return env;
  return {
    ...env,
    NODE_OPTIONS: REGISTER_OPTION,
    ISTHMUS_ACCESS: transport.expects.access,
    ...fabric,
    ...more,
  };
}
