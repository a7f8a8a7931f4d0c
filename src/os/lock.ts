import { closeFd, noted } from './descriptor.ts';
import { EAGAIN, SystemError } from './errors.ts';
import { check, declare, ffi } from './ffi.ts';

const open = declare('open', 'i32', ['str', 'i32', 'i32']);
const flock = declare('flock', 'i32', ['i32', 'i32']);

const O_RDWR = 2;
const O_CREAT = 0o100;
const O_NOFOLLOW = 0o400000;
const O_CLOEXEC = 0o2000000;
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Takes the lock of a file, which is made if need be; null when another process has it. It is held for as long as the
 * descriptor is open, here or in a process that inherits it.
 */
export function takeLock(path: string): number | null {
  const fd = noted(check('open', open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)));
  if (Number(flock(fd, LOCK_EX | LOCK_NB)) === 0) return fd;
  const errno = ffi().errno();
  closeFd(fd);
  if (errno === EAGAIN) return null;
  throw new SystemError('flock', errno);
}
