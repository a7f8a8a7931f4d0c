/** A fabric as a process: its lock, its socket, its end. */
import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { closeFd, listenPackets, takeLock } from '../os/index.ts';
import { loadEids, saveEids } from './eid-file.ts';
import type { FabricLimits } from './limits.ts';
import { SYSTEM_FABRIC } from './locate.ts';
import { FabricServer, type Listener } from './server.ts';

export interface FabricRunOptions {
  readonly socket: string;
  /** Who may connect there: permission bits. Default: its own user; at the system's place everybody. */
  readonly mode?: number;
  /** Further sockets, in directories of their own: everybody may connect, and is one user, for each of them (limits.ts). */
  readonly domains?: readonly string[];
  /** By path: sockets that are listened at already, by whoever started this process and keeps them. */
  readonly given?: ReadonlyMap<string, number>;
  /** A lock that was inherited; else it is taken here. */
  readonly lockFd?: number;
  /** Ends when no partition has used it for that long; null = never. */
  readonly idleMs: number | null;
  readonly limits?: Partial<FabricLimits>;
}

export const DEFAULT_IDLE_MS = 60_000;

/** Held for life by the one fabric of a directory. */
export function lockPath(socket: string): string {
  return join(dirname(socket), 'fabric.lock');
}

export const EVERYBODY = 0o666;
const OWN_USER = 0o600;

/**
 * Runs until it is idle or told to stop; then removes its sockets and calls `ended`. Null when another fabric has the lock of one
 * of its directories. The process must end by `process.exit` (see os/ffi.ts).
 */
export function runFabric(options: FabricRunOptions, ended: () => void): { stop(): void } | null {
  const {
    socket,
    idleMs,
    domains = [],
    given = new Map(),
    mode = socket === SYSTEM_FABRIC ? EVERYBODY : OWN_USER,
  } = options;
  const locks = takeLocks([socket, ...domains], options.lockFd);
  if (locks === null) return null;
  const listeners: Listener[] = [
    { fd: given.get(socket) ?? listen(socket, mode), domain: null },
    ...domains.map((domain) => ({ fd: given.get(domain) ?? listen(domain, EVERYBODY), domain })),
  ];

  const startedAt = Date.now();
  let idle: NodeJS.Timeout | undefined;
  const rest = (partitions: number) => {
    clearTimeout(idle);
    if (partitions === 0 && idleMs !== null) idle = setTimeout(stop, idleMs);
  };
  const server = new FabricServer(listeners, {
    ...(options.limits === undefined ? {} : { limits: options.limits }),
    eids: loadEids(socket, (text) => process.emitWarning(text, 'IsthmusWarning')),
    saveEids: (table) => saveEids(socket, table),
    about: () => ({
      pid: process.pid,
      socket,
      uptimeMs: Date.now() - startedAt,
      memoryBytes: residentBytes(),
      idleMs,
    }),
    onUse: rest,
  });
  const stop = () => {
    clearTimeout(idle);
    for (const path of [socket, ...domains]) if (!given.has(path)) rmSync(path, { force: true });
    server.close();
    for (const lock of locks) closeFd(lock);
    ended();
  };
  rest(0);
  return { stop };
}

/** Null when another fabric has one of them. @param first of the first socket's directory */
function takeLocks(sockets: readonly string[], first: number | undefined): number[] | null {
  const locks: number[] = first === undefined ? [] : [first];
  for (const path of sockets.slice(locks.length)) {
    const lock = takeLock(lockPath(path));
    if (lock === null) {
      for (const one of locks) closeFd(one);
      return null;
    }
    locks.push(lock);
  }
  return locks;
}

/** Not chmod afterwards: who may write in the directory could have put something else in its place. */
function listen(socket: string, mode: number): number {
  rmSync(socket, { force: true }); // of one that was killed: nobody else can have the lock
  const before = process.umask(0o777 & ~mode);
  try {
    return listenPackets(socket);
  } finally {
    process.umask(before);
  }
}

/** Null when no descriptor is left to ask with. */
function residentBytes(): number | null {
  try {
    return process.memoryUsage.rss();
  } catch {
    return null;
  }
}
