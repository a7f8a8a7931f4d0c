/** SO_LINGER, which Node.js does not offer: the last close of such a socket waits for its bytes. */
import { check, declare } from '../../src/os/ffi.ts';

const setsockopt = declare('setsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'u32']);
const SOL_SOCKET = 1;
const SO_LINGER = 13;

export function linger(fd: number, seconds: number): void {
  const value = Buffer.alloc(8);
  value.writeInt32LE(1, 0);
  value.writeInt32LE(seconds, 4);
  check('setsockopt', setsockopt(fd, SOL_SOCKET, SO_LINGER, value, value.length));
}
