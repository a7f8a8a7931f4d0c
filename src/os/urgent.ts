/**
 * The urgent byte of a TCP socket. It stands outside the stream: a program that does not ask for it never sees it, unless it has set
 * SO_OOBINLINE. None of this waits.
 */
import { EAGAIN, EINVAL, SystemError } from './errors.ts';
import { check, declare, ffi } from './ffi.ts';
import { tcpInfo, unacknowledgedBytes } from './socket-options.ts';

const recv = declare('recv', 'i64', ['i32', 'ptr', 'usize', 'i32']);
const send = declare('send', 'i64', ['i32', 'ptr', 'usize', 'i32']);
const ioctl = declare('ioctl', 'i32', ['i32', 'usize', 'ptr']);

const MSG_OOB = 0x1;
const MSG_PEEK = 0x2;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SIOCATMARK = 0x8905;
/** Of these belong together: a byte may be acknowledged between the two questions. */
const TRIES = 100;

const byteOut = Buffer.alloc(1);
const byteIn = Buffer.alloc(1);
const word = Buffer.alloc(4);

/** False when the kernel takes nothing now. */
export function sendUrgent(fd: number, byte: number): boolean {
  byteOut[0] = byte;
  if (Number(send(fd, byteOut, 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL)) === 1) return true;
  const errno = ffi().errno();
  if (errno === EAGAIN) return false;
  throw new SystemError('send', errno);
}

/** The urgent byte that stands in the way of the reader, and stays there; 'coming': it was announced; 'none': also when it was read past. */
export function peekUrgent(fd: number): number | 'coming' | 'none' {
  const received = Number(recv(fd, byteIn, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT));
  if (received >= 0) return received === 1 ? (byteIn[0] as number) : 'none';
  const errno = ffi().errno();
  if (errno === EAGAIN) return 'coming';
  if (errno === EINVAL) return 'none';
  throw new SystemError('recv', errno);
}

/** Whether everything before the urgent byte was read. */
export function isAtMark(fd: number): boolean {
  check('ioctl', ioctl(fd, SIOCATMARK, word));
  return word.readInt32LE(0) !== 0;
}

/** How many bytes the peer's kernel has acknowledged, in the counting of `givenBytes`. */
export function acknowledgedBytes(fd: number): number {
  return tcpInfo(fd).bytesAcked;
}

/** How many bytes this end has given to its kernel since the connection began; a client's SYN counts as one. */
export function givenBytes(fd: number): number {
  for (let tries = 0; tries < TRIES; tries++) {
    const before = acknowledgedBytes(fd);
    const waiting = unacknowledgedBytes(fd);
    if (acknowledgedBytes(fd) === before) return before + waiting;
  }
  throw new SystemError('ioctl', EAGAIN);
}
