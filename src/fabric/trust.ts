/** Whose files are believed. Loaded with the preload: imports nothing of ours that calls the system. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { OVERFLOW_UID } from './limits.ts';

/** Permission bits: of the group and of all others. */
export const OTHERS_WRITE = 0o022;

export function isOursOrRoots(uid: number): boolean {
  return uid === 0 || (uid === process.getuid?.() && uid !== OVERFLOW_UID);
}

/**
 * A file that nobody else can have written. Null when there is none; throws when it cannot be used.
 * @param mayBeLink what it leads to is looked at in the same way
 */
export function readTrusted(path: string, maxBytes: number, mayBeLink = false): string | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | (mayBeLink ? 0 : constants.O_NOFOLLOW));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error('it is no file');
    if (!isOursOrRoots(stat.uid)) throw new Error(`it belongs to user ${stat.uid}`);
    if ((stat.mode & OTHERS_WRITE) !== 0) throw new Error('it can be written by others');
    const bytes = Buffer.alloc(maxBytes + 1);
    const lengthBytes = readSync(fd, bytes);
    if (lengthBytes > maxBytes) throw new Error('it is too long');
    return bytes.toString('utf8', 0, lengthBytes);
  } finally {
    closeSync(fd);
  }
}
