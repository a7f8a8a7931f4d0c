/** Starting the user's own fabric from a program, race-free: whoever gets the lock starts it, and hands the lock on. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { closeFd, takeLock } from '../os/index.ts';
import { type FabricPlace, makeDirectory } from './locate.ts';
import { DEFAULT_IDLE_MS, lockPath } from './run.ts';
import { readCount, TIMER_LIMIT_MS } from './settings.ts';

const FABRIC_FILE = fileURLToPath(new URL('../../isthmus-fabric.js', import.meta.url));
/** Of the program's environment the fabric gets nothing else; NODE_OPTIONS above all: it must not load itself. */
const KEPT_VARIABLES = ['PATH', 'TZ'];

/** Starts one unless one is running or being started; whether it did. Throws when the directory is not ours or the system refuses. */
export function startFabric(place: FabricPlace, env: NodeJS.ProcessEnv): boolean {
  makeDirectory(place);
  const lockFd = takeLock(lockPath(place.socket));
  if (lockFd === null) return false;
  try {
    const idleMs = readIdleMs(env, (text) => process.emitWarning(text, 'IsthmusWarning'));
    const kept = Object.fromEntries(
      KEPT_VARIABLES.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])),
    );
    const child = spawn(process.execPath, [FABRIC_FILE, JSON.stringify({ socket: place.socket, lockFd: 3, idleMs })], {
      cwd: '/',
      detached: true, // its own session
      // Stdio of the program would keep `$(program)` waiting until the fabric ends.
      stdio: ['ignore', 'ignore', 'ignore', lockFd],
      env: { ...kept, UV_THREADPOOL_SIZE: '64' }, // sockets of strangers are closed there
    });
    child.on('error', () => {}); // the connection that does not come tells
    child.unref();
    return true;
  } finally {
    closeFd(lockFd);
  }
}

export function readIdleMs(env: NodeJS.ProcessEnv, warn: (text: string) => void): number {
  return readCount(env, 'ISTHMUS_FABRIC_IDLE_MS', DEFAULT_IDLE_MS, { from: 1, to: TIMER_LIMIT_MS - 1 }, warn);
}
