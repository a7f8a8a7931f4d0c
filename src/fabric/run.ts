/** A fabric as a process: its lock, its socket, its end. */
import { chmodSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { closeFd, listenPackets, takeLock } from '../os/index.ts';
import { loadEids, saveEids } from './eid-file.ts';
import type { FabricLimits } from './limits.ts';
import { SYSTEM_FABRIC } from './locate.ts';
import { FabricServer } from './server.ts';

export interface FabricRunOptions {
  readonly socket: string;
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

/**
 * Runs until it is idle or told to stop; then removes the socket and calls `ended`. Null when another fabric has the lock.
 * The process must end by `process.exit` (see os/ffi.ts).
 */
export function runFabric(options: FabricRunOptions, ended: () => void): { stop(): void } | null {
  const { socket, idleMs } = options;
  const lockFd = options.lockFd ?? takeLock(lockPath(socket));
  if (lockFd === null) return null;
  rmSync(socket, { force: true }); // of one that was killed: nobody else can have the lock
  const listener = listenPackets(socket);
  chmodSync(socket, socket === SYSTEM_FABRIC ? 0o666 : 0o600);

  const startedAt = Date.now();
  let idle: NodeJS.Timeout | undefined;
  const rest = (partitions: number) => {
    clearTimeout(idle);
    if (partitions === 0 && idleMs !== null) idle = setTimeout(stop, idleMs);
  };
  const server = new FabricServer(listener, {
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
    rmSync(socket, { force: true });
    server.close();
    closeFd(lockFd);
    ended();
  };
  rest(0);
  return { stop };
}

/** Null when no descriptor is left to ask with. */
function residentBytes(): number | null {
  try {
    return process.memoryUsage.rss();
  } catch {
    return null;
  }
}
