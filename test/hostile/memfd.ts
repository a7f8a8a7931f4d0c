/** Memory as an attacker would like to pass it off. */
import { check, declare } from '../../src/os/ffi.ts';

const memfd_create = declare('memfd_create', 'i32', ['str', 'u32']);
const ftruncate = declare('ftruncate', 'i32', ['i32', 'i64']);
const fcntl = declare('fcntl', 'i32', ['i32', 'i32', 'i64']);
const F_SETFL = 4;
const O_APPEND = 0x400;

/** From now on every write through this descriptor, and every copy of it, goes to the end of the file. */
export function setAppend(fd: number): void {
  check('fcntl', fcntl(fd, F_SETFL, O_APPEND));
}

/** Without seals. */
export function memfd(lengthBytes: number): number {
  const fd = check('memfd_create', memfd_create('unsealed', 3));
  check('ftruncate', ftruncate(fd, lengthBytes));
  return fd;
}
