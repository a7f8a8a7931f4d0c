import { noted } from './descriptor.ts';
import { EAGAIN, EINTR } from './errors.ts';
import { check, declare, ffi } from './ffi.ts';

const pipe2 = declare('pipe2', 'i32', ['ptr', 'i32']);
const fcntl = declare('fcntl', 'i32', ['i32', 'i32', 'i64']);
const write = declare('write', 'i64', ['i32', 'ptr', 'usize']);

const O_NONBLOCK = 0x800;
const O_CLOEXEC = 0x80000;
const F_SETPIPE_SZ = 1031;
const SMALLEST_PIPE_BYTES = 4096;

/** A pipe as small as pipes get (users have a quota of pipe pages). Both ends are non-blocking and close on exec. */
export function createPipe(): { readFd: number; writeFd: number } {
  const pair = Buffer.alloc(8);
  check('pipe2', pipe2(pair, O_NONBLOCK | O_CLOEXEC));
  const writeFd = noted(pair.readInt32LE(4));
  fcntl(writeFd, F_SETPIPE_SZ, SMALLEST_PIPE_BYTES);
  return { readFd: noted(pair.readInt32LE(0)), writeFd };
}

const ONE_BYTE = Buffer.alloc(1);

/**
 * Wakes the reader of a pipe. A full pipe is as good as a write: the reader is told already.
 * False when there is no reader any more.
 */
export function ringPipe(writeFd: number): boolean {
  if (Number(write(writeFd, ONE_BYTE, 1)) >= 0) return true;
  const errno = ffi().errno();
  return errno === EAGAIN || errno === EINTR;
}
