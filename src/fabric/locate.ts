/** Which fabric, and whether it can be trusted. */
import { lstatSync, mkdirSync, type Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import { errorCode, peerCredentials } from '../os/index.ts';
import { isOursOrRoots, OTHERS_WRITE } from './trust.ts';

export const SYSTEM_FABRIC = '/run/isthmus/fabric.sock';
const SOCKET_NAME = 'fabric.sock';

export interface FabricPlace {
  readonly socket: string;
  /** Named by the operator (ISTHMUS_FABRIC), the system's, or the user's own, which alone is started by programs. */
  readonly kind: 'named' | 'system' | 'own';
}

/**
 * Places to try, in this order.
 * @param uid whose program it is
 * @param root where its files are found: another process may have another root
 */
export function fabricPlaces(env: NodeJS.ProcessEnv, uid = process.getuid?.() ?? 0, root = ''): FabricPlace[] {
  if (env.ISTHMUS_FABRIC) return [{ socket: env.ISTHMUS_FABRIC, kind: 'named' }];
  return [
    { socket: SYSTEM_FABRIC, kind: 'system' },
    { socket: join(ownDirectory(env, uid, root), SOCKET_NAME), kind: 'own' },
  ];
}

/**
 * /run/user/UID/isthmus if that is there and ours, else /tmp/isthmus-UID. Nothing from XDG variables: a login shell and a service of
 * one user must meet. ISTHMUS_RUNTIME_DIR is for tests, which must not.
 */
function ownDirectory(env: NodeJS.ProcessEnv, uid: number, root: string): string {
  if (env.ISTHMUS_RUNTIME_DIR) return env.ISTHMUS_RUNTIME_DIR;
  const runtime = `/run/user/${uid}`;
  return statOf(`${root}${runtime}`)?.uid === uid ? join(runtime, 'isthmus') : `/tmp/isthmus-${uid}`;
}

function statOf(path: string): Stats | null {
  try {
    return lstatSync(path);
  } catch {
    return null;
  }
}

/** What stands there is not to be trusted. */
export class DistrustError extends Error {
  /** What helps. */
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.name = 'DistrustError';
    this.hint = hint;
  }
}

/** Makes the directory of an own fabric, 0700. Throws when something else stands there. */
export function makeDirectory(place: FabricPlace): void {
  const directory = dirname(place.socket);
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error;
  }
  const fault = faultOf(directory, lstatSync(directory), 'directory');
  if (fault !== null) throw fault;
}

/** Null when nobody but us and root can have put a socket there; else why not. */
export function distrustPath(place: FabricPlace): DistrustError | null {
  if (place.kind === 'named') return null;
  const directory = dirname(place.socket);
  for (const [path, type] of [
    [directory, 'directory'],
    [place.socket, 'socket'],
  ] as const) {
    const stat = statOf(path);
    if (stat === null) return new DistrustError(`${path} does not exist`, 'it has ended just now: try again');
    const fault = faultOf(path, stat, type);
    if (fault !== null) return fault;
  }
  return null;
}

function faultOf(path: string, stat: Stats, type: 'directory' | 'socket'): DistrustError | null {
  if (type === 'directory' ? !stat.isDirectory() : !stat.isSocket())
    return new DistrustError(`${path} is not a ${type}`, `remove it: \`rm ${path}\``);
  if (!isOursOrRoots(stat.uid))
    return new DistrustError(
      `${path} belongs to user ${stat.uid}`,
      `have user ${stat.uid} or root remove it (\`rm -r ${path}\`), or name another place with ISTHMUS_FABRIC`,
    );
  // A socket of the system may be connected to by everybody; connecting needs write permission.
  if (type === 'directory' && (stat.mode & OTHERS_WRITE) !== 0)
    return new DistrustError(`${path} can be written by others`, `take that right away: \`chmod go-w ${path}\``);
  return null;
}

/** Null when the process behind a connection is ours or root's, or the operator named it. */
export function distrustPeer(place: FabricPlace, fd: number): DistrustError | null {
  if (place.kind === 'named') return null;
  const { uid, pid } = peerCredentials(fd);
  if (isOursOrRoots(uid)) return null;
  return new DistrustError(
    `the fabric at ${place.socket} is process ${pid} of user ${uid}`,
    `have user ${uid} or root end it (\`kill ${pid}\`), or name another place with ISTHMUS_FABRIC`,
  );
}
