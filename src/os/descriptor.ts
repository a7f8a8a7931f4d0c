/** Descriptors: a small integer with an owner. Whoever opens one here gives it back with closeFd, exactly once. */
import { fstatSync } from 'node:fs';
import { errorCode } from './errors.ts';
import { check, declare } from './ffi.ts';
import { noteFd, strikeFd } from './ledger.ts';

const close = declare('close', 'i32', ['i32']);
const fcntl = declare('fcntl', 'i32', ['i32', 'i32', 'i64']);

const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const O_NONBLOCK = 0x800;
const F_DUPFD_CLOEXEC = 1030;
const O_ACCMODE = 3;

/** Closes; an error is not of interest, the descriptor is gone in any case (close(2)). */
export function closeFd(fd: number): void {
  strikeFd(fd);
  close(fd);
}

/** Every descriptor that is opened goes through here; see ledger.ts. */
export function noted(fd: number): number {
  noteFd(fd);
  return fd;
}

/** One that this process was started with: from now on as if it had been opened here. */
export function adoptFd(fd: number): number {
  check('fcntl', fcntl(fd, F_SETFD, FD_CLOEXEC));
  check('fcntl', fcntl(fd, F_SETFL, check('fcntl', fcntl(fd, F_GETFL, 0)) | O_NONBLOCK));
  return noted(fd);
}

export function duplicateFd(fd: number): number {
  return noted(check('fcntl', fcntl(fd, F_DUPFD_CLOEXEC, 0)));
}

/** 'r', 'w' or 'rw'. */
export function accessMode(fd: number): 'r' | 'w' | 'rw' {
  const mode = check('fcntl', fcntl(fd, F_GETFL, 0)) & O_ACCMODE;
  return mode === 0 ? 'r' : mode === 1 ? 'w' : 'rw';
}

/** Lets a descriptor live through execve. */
export function keepAcrossExec(fd: number): void {
  check('fcntl', fcntl(fd, F_SETFD, 0));
}

export type FdKind = 'file' | 'fifo' | 'socket' | 'other' | 'closed';

export function kindOf(fd: number): FdKind {
  try {
    const stat = fstatSync(fd);
    return stat.isFile() ? 'file' : stat.isFIFO() ? 'fifo' : stat.isSocket() ? 'socket' : 'other';
  } catch (error) {
    if (errorCode(error) === 'EBADF') return 'closed';
    throw error;
  }
}
