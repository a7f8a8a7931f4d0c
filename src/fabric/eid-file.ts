/**
 * `fabric.eids`, beside the socket of a fabric: its enterprise ids, for the next fabric there. JSON:
 * `{ "ueids": ["ISTHMUS"], "seidEnabled": true }`. Written by whoever holds the lock of the directory.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { type Eid, seidOfCpuinfo } from '../ism/index.ts';
import { errorCode } from '../os/index.ts';
import { defaultEids, type EidTable, parseUeids } from './eids.ts';
import { isOursOrRoots, OTHERS_WRITE } from './locate.ts';

export function eidPath(socket: string): string {
  return join(dirname(socket), 'fabric.eids');
}

/** What a fabric at this socket begins with. What cannot be used is passed over with a warning. */
export function loadEids(socket: string, warn: (text: string) => void): EidTable {
  const seid = machineSeid();
  const path = eidPath(socket);
  try {
    const text = readTrusted(path);
    if (text === null) return defaultEids(seid);
    const saved = JSON.parse(text) as { ueids?: unknown; seidEnabled?: unknown } | null;
    const ueids = parseUeids(saved?.ueids);
    return { ueids, seid, seidEnabled: seid !== null && (ueids.length === 0 || saved?.seidEnabled === true) };
  } catch (error) {
    warn(`${path} is passed over: ${(error as Error).message}`);
    return defaultEids(seid);
  }
}

/** Whole or not at all. Throws when it cannot be written. */
export function saveEids(socket: string, { ueids, seidEnabled }: EidTable): void {
  const path = eidPath(socket);
  const unfinished = `${path}.new`;
  rmSync(unfinished, { force: true }); // of a fabric that was killed in between
  writeFileSync(unfinished, `${JSON.stringify({ ueids, seidEnabled })}\n`, { flag: 'wx', mode: 0o644 });
  renameSync(unfinished, path);
}

const MAX_FILE_BYTES = 1024;

/** Null when there is none. Throws when somebody else can have put it there. */
function readTrusted(path: string): string | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return null;
    throw error;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error('it is no file');
    if (!isOursOrRoots(stat.uid)) throw new Error(`it belongs to user ${stat.uid}`);
    if ((stat.mode & OTHERS_WRITE) !== 0) throw new Error('it can be written by others');
    const bytes = Buffer.alloc(MAX_FILE_BYTES + 1);
    const lengthBytes = readSync(fd, bytes);
    if (lengthBytes > MAX_FILE_BYTES) throw new Error('it is too long');
    return bytes.toString('utf8', 0, lengthBytes);
  } finally {
    closeSync(fd);
  }
}

function machineSeid(): Eid | null {
  if (process.arch !== 's390x') return null;
  try {
    return seidOfCpuinfo(readFileSync('/proc/cpuinfo', 'utf8'));
  } catch {
    return null; // there is no /proc
  }
}
