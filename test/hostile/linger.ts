/** SO_LINGER, which Node.js does not offer: the last close of such a socket waits for its bytes. */
import { check, declare } from '../../src/os/ffi.ts';
import { sendBytes, tcpPair } from '../../src/os/index.ts';

const setsockopt = declare('setsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'u32']);
const SOL_SOCKET = 1;
const SO_LINGER = 13;

export function linger(fd: number, seconds: number): void {
  const value = Buffer.alloc(8);
  value.writeInt32LE(1, 0);
  value.writeInt32LE(seconds, 4);
  check('setsockopt', setsockopt(fd, SOL_SOCKET, SO_LINGER, value, value.length));
}

/** Both ends of a connection: whoever closes the first one last waits for its bytes, and nobody reads them. */
export function lingeringPair(): [number, number] {
  const [one, other] = tcpPair();
  try {
    for (;;) sendBytes(one, Buffer.alloc(65536));
  } catch {
    // It is full.
  }
  linger(one, 60);
  return [one, other];
}
