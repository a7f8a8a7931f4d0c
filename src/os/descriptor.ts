/** Descriptors: a small integer with an owner. Whoever opens one here gives it back with closeFd, exactly once. */
import { fstatSync } from 'node:fs';
import { errorCode } from './errors.ts';
import { type CFunction, check, declare, ffi } from './ffi.ts';
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

/** Closes on a helper thread: a stranger's socket may linger for seconds in close. Calls back when it is done. */
export function closeFdAside(fd: number, closed: () => void = () => {}): void {
  strikeFd(fd);
  toClose.push({ fd, closed });
  closeNext();
}

function closeNext(): void {
  while (closing < MAX_CLOSING) {
    const next = toClose.shift();
    if (next === undefined) return;
    closing++;
    closeAside ??= ffi().func('close', 'i32', ['i32']);
    ffi().async(closeAside, [next.fd], () => {
      closing--;
      closeNext();
      next.closed();
    });
  }
}
let closeAside: CFunction | undefined;
/** koffi throws at the 65th call that is under way. */
const MAX_CLOSING = 48;
let closing = 0;
const toClose: { readonly fd: number; readonly closed: () => void }[] = [];

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
