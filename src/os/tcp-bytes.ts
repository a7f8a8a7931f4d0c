/** Bytes of a TCP socket, past Node.js' own handle: looked at, taken, sent; none of these waits. */
import { EAGAIN, EINVAL, SystemError } from './errors.ts';
import { check, declare, ffi } from './ffi.ts';

const recv = declare('recv', 'i64', ['i32', 'ptr', 'usize', 'i32']);
const send = declare('send', 'i64', ['i32', 'ptr', 'usize', 'i32']);
const setsockopt = declare('setsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'u32']);

const MSG_OOB = 0x1;
const MSG_PEEK = 0x2;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SO_RCVLOWAT = 18;

/** Up to `length` bytes that have come; they stay where they are. Null at the end of the stream, with nothing left. */
export function peekBytes(fd: number, length: number): Buffer | null {
  return receive(fd, length, MSG_PEEK);
}

/** As `peekBytes`, and takes them. */
export function takeBytes(fd: number, length: number): Buffer | null {
  return receive(fd, length, 0);
}

function receive(fd: number, length: number, flags: number): Buffer | null {
  const bytes = Buffer.alloc(length);
  const received = Number(recv(fd, bytes, length, flags | MSG_DONTWAIT));
  if (received > 0) return bytes.subarray(0, received);
  if (received === 0) return null;
  const errno = ffi().errno();
  if (errno === EAGAIN) return Buffer.alloc(0);
  throw new SystemError('recv', errno);
}

/** All or nothing: for a few bytes on a fresh connection, which takes them. Throws when it does not. */
export function sendBytes(fd: number, bytes: Buffer): void {
  const sent = check('send', send(fd, bytes, bytes.length, MSG_NOSIGNAL | MSG_DONTWAIT));
  if (sent !== bytes.length) throw new SystemError('send', EAGAIN);
}

/** How many bytes have to be there before the socket counts as readable; its end counts in any case. */
export function setReceiveLowWater(fd: number, bytes: number): void {
  const value = Buffer.alloc(4);
  value.writeInt32LE(bytes, 0);
  check('setsockopt', setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, value, value.length));
}

// --- The urgent byte: it stands outside the stream, and a program without SO_OOBINLINE that does not ask for it never sees it ---

const urgent = Buffer.alloc(1);

/** False when the kernel takes nothing now. */
export function sendUrgent(fd: number, byte: number): boolean {
  urgent[0] = byte;
  if (Number(send(fd, urgent, 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL)) === 1) return true;
  const errno = ffi().errno();
  if (errno === EAGAIN) return false;
  throw new SystemError('send', errno);
}

/** The urgent byte that stands before the reader, and stays there; 'coming': it was announced; 'none': also when it was read past. */
export function peekUrgent(fd: number): number | 'coming' | 'none' {
  const received = Number(recv(fd, urgent, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT));
  if (received >= 0) return received === 1 ? (urgent[0] as number) : 'none';
  const errno = ffi().errno();
  if (errno === EAGAIN) return 'coming';
  if (errno === EINVAL) return 'none';
  throw new SystemError('recv', errno);
}
