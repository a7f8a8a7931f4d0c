/** A memfd without seals, such as an attacker would like to pass off. */
import { check, declare } from '../../src/os/ffi.ts';

const memfd_create = declare('memfd_create', 'i32', ['str', 'u32']);
const ftruncate = declare('ftruncate', 'i32', ['i32', 'i64']);

export function memfd(lengthBytes: number): number {
  const fd = check('memfd_create', memfd_create('unsealed', 3));
  check('ftruncate', ftruncate(fd, lengthBytes));
  return fd;
}
