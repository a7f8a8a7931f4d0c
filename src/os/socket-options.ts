/** What the kernel says about a socket: names, cookies, state, counters. Numbers are those of Linux on x86-64 and arm64. */
import { closeFd } from './descriptor.ts';
import { EAGAIN, errorCode, OsUnavailableError, SystemError } from './errors.ts';
import { check, declare } from './ffi.ts';
import { streamSocketPair } from './packet.ts';

const getsockopt = declare('getsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'ptr']);
const getsockname = declare('getsockname', 'i32', ['i32', 'ptr', 'ptr']);
const getpeername = declare('getpeername', 'i32', ['i32', 'ptr', 'ptr']);
const ioctl = declare('ioctl', 'i32', ['i32', 'usize', 'ptr']);
const shutdown = declare('shutdown', 'i32', ['i32', 'i32']);
const connect = declare('connect', 'i32', ['i32', 'ptr', 'u32']);

const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_OOBINLINE = 10;
const SO_LINGER = 13;
const SO_PEERCRED = 17;
const SO_ACCEPTCONN = 30;
const SO_PROTOCOL = 38;
const SO_DOMAIN = 39;
const SO_COOKIE = 57;
const SO_NETNS_COOKIE = 71; // Linux 5.14
const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const FIONREAD = 0x541b;
const SIOCOUTQ = 0x5411;
const SIOCATMARK = 0x8905;
const SHUT_RDWR = 2;
const AF_UNSPEC = 0;
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;

const value = Buffer.alloc(256);
const valueLength = Buffer.alloc(4);

/** The option's bytes, valid until the next call. */
function option(fd: number, level: number, name: number, lengthBytes: number): Buffer {
  valueLength.writeUInt32LE(lengthBytes, 0);
  check('getsockopt', getsockopt(fd, level, name, value, valueLength));
  return value.subarray(0, valueLength.readUInt32LE(0));
}

/** Who made the peer of an AF_UNIX socket. An id that is not mapped in our user namespace reads 65534. */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const bytes = option(fd, SOL_SOCKET, SO_PEERCRED, 12);
  return { pid: bytes.readInt32LE(0), uid: bytes.readUInt32LE(4), gid: bytes.readUInt32LE(8) };
}

/** Unique for as long as the system runs, the same for every descriptor of one socket. */
export function socketCookie(fd: number): bigint {
  return option(fd, SOL_SOCKET, SO_COOKIE, 8).readBigUInt64LE(0);
}

/** Identifies the network namespace a socket lives in. */
export function netnsCookie(fd: number): bigint {
  return option(fd, SOL_SOCKET, SO_NETNS_COOKIE, 8).readBigUInt64LE(0);
}

/** Before sockets are announced by their cookies. Throws OsUnavailableError when the kernel does not know them. */
export function testCookies(): void {
  const pair = streamSocketPair();
  try {
    for (const fd of pair) {
      netnsCookie(fd);
      socketCookie(fd);
    }
  } catch (error) {
    if (errorCode(error) !== 'ENOPROTOOPT') throw error;
    throw new OsUnavailableError('ERR_ISTHMUS_KERNEL', 'Linux 5.14 or later is needed, for SO_NETNS_COOKIE', error);
  } finally {
    for (const fd of pair) closeFd(fd);
  }
}

/** Asks no file system. */
export function isSocket(fd: number): boolean {
  valueLength.writeUInt32LE(4, 0);
  return Number(getsockopt(fd, SOL_SOCKET, SO_TYPE, value, valueLength)) === 0;
}

export function isTcp(fd: number): boolean {
  const domain = option(fd, SOL_SOCKET, SO_DOMAIN, 4).readInt32LE(0);
  if (domain !== AF_INET && domain !== AF_INET6) return false;
  return option(fd, SOL_SOCKET, SO_PROTOCOL, 4).readInt32LE(0) === IPPROTO_TCP;
}

export function isUnixStream(fd: number): boolean {
  return isUnixSocket(fd, SOCK_STREAM);
}

function isUnixSocket(fd: number, type: number): boolean {
  return (
    option(fd, SOL_SOCKET, SO_DOMAIN, 4).readInt32LE(0) === AF_UNIX &&
    option(fd, SOL_SOCKET, SO_TYPE, 4).readInt32LE(0) === type
  );
}

/** Where an AF_UNIX socket listens for packets; null: it is no such socket. */
export function packetListenerPath(fd: number): string | null {
  try {
    if (!isUnixSocket(fd, SOCK_SEQPACKET)) return null;
    if (option(fd, SOL_SOCKET, SO_ACCEPTCONN, 4).readInt32LE(0) === 0) return null;
    valueLength.writeUInt32LE(value.length, 0);
    check('getsockname', getsockname(fd, value, valueLength));
    return value.toString('utf8', 2, valueLength.readUInt32LE(0)).split('\0')[0] ?? null;
  } catch (error) {
    if (errorCode(error) === 'ENOTSOCK' || errorCode(error) === 'EBADF') return null;
    throw error;
  }
}

export function lingers(fd: number): boolean {
  return option(fd, SOL_SOCKET, SO_LINGER, 8).readInt32LE(0) !== 0;
}

/** Whether the program gets urgent bytes in its stream. */
export function takesUrgentInline(fd: number): boolean {
  return option(fd, SOL_SOCKET, SO_OOBINLINE, 4).readInt32LE(0) !== 0;
}

export const TCP_ESTABLISHED = 1;
/** After a reset, or a timeout; of a socket that never was connected. */
export const TCP_CLOSE = 7;
/** Those in which the peer's end has come: TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING (include/net/tcp_states.h). */
export const TCP_ENDED: ReadonlySet<number> = new Set([6, TCP_CLOSE, 8, 9, 11]);

export interface TcpInfo {
  /** As in linux/tcp_states.h; 1 is ESTABLISHED. */
  readonly state: number;
  /** Bytes the peer has acknowledged; a client's SYN counts as one. */
  readonly bytesAcked: number;
  /** Bytes received in order since the connection began. */
  readonly bytesReceived: number;
}

/** struct tcp_info of linux/tcp.h: state at 0, bytes_acked at 120, bytes_received at 128. */
export function tcpInfo(fd: number): TcpInfo {
  const bytes = option(fd, IPPROTO_TCP, TCP_INFO, 192);
  if (bytes.length < 136) throw new SystemError('getsockopt', 92 /* ENOPROTOOPT: older than Linux 4.1 */);
  return {
    state: bytes.readUInt8(0),
    bytesAcked: Number(bytes.readBigUInt64LE(120)),
    bytesReceived: Number(bytes.readBigUInt64LE(128)),
  };
}

const word = Buffer.alloc(4);

/** Bytes that wait in the kernel to be read. */
export function unreadBytes(fd: number): number {
  return ask(fd, FIONREAD);
}

/** Whether everything before the urgent byte was read. */
export function isAtMark(fd: number): boolean {
  return ask(fd, SIOCATMARK) !== 0;
}

function ask(fd: number, request: number): number {
  check('ioctl', ioctl(fd, request, word));
  return word.readInt32LE(0);
}

/** How often to ask until the numbers belong together, where nobody else waits. */
const COUNTER_TRIES = 1000;

/**
 * Bytes that have passed since the connection began, received by this kernel and given to it to be sent: those that wait in it, unread
 * or unacknowledged, included. A client's SYN counts as sent. Throws EAGAIN when they do not stand still for a moment.
 */
export function passedBytes(
  fd: number,
  mostTries = COUNTER_TRIES,
): { readonly received: number; readonly unread: number; readonly sent: number } {
  // A byte may arrive or be acknowledged between two questions.
  for (let before = tcpInfo(fd), tries = 0; tries < mostTries; tries++) {
    const unread = unreadBytes(fd);
    const unacknowledged = ask(fd, SIOCOUTQ);
    const after = tcpInfo(fd);
    if (after.bytesReceived === before.bytesReceived && after.bytesAcked === before.bytesAcked)
      return { received: after.bytesReceived, unread, sent: after.bytesAcked + unacknowledged };
    before = after;
  }
  throw new SystemError('ioctl', EAGAIN);
}

export interface SocketName {
  /** Textual, IPv4-mapped IPv6 addresses as IPv4. */
  readonly address: string;
  readonly port: number;
}

export function localName(fd: number): SocketName {
  return nameBy('getsockname', getsockname, fd);
}

/** Throws ENOTCONN when there is no peer (any more). */
export function peerName(fd: number): SocketName {
  return nameBy('getpeername', getpeername, fd);
}

function nameBy(syscall: string, call: typeof getsockname, fd: number): SocketName {
  valueLength.writeUInt32LE(28, 0);
  check(syscall, call(fd, value, valueLength));
  const family = value.readUInt16LE(0);
  const port = value.readUInt16BE(2);
  if (family === AF_INET) return { address: dotted(value, 4), port };
  if (family === AF_INET6) return { address: ipv6Text(value.subarray(8, 24)), port };
  throw new SystemError(syscall, 97 /* EAFNOSUPPORT */);
}

function dotted(bytes: Uint8Array, at: number): string {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`;
}

/** One spelling per address is enough here: names are compared, not shown. */
function ipv6Text(bytes: Buffer): string {
  const mapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes.readUInt16BE(10) === 0xffff;
  if (mapped) return dotted(bytes, 12);
  const groups: string[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(bytes.readUInt16BE(i).toString(16));
  return groups.join(':');
}

/** Ends both directions now, whoever else holds a descriptor of this socket. */
export function shutdownBoth(fd: number): void {
  shutdown(fd, SHUT_RDWR);
}

/** Resets the connection now, whoever else holds a descriptor of this socket. */
export function resetConnection(fd: number): void {
  const unspecified = Buffer.alloc(16);
  unspecified.writeUInt16LE(AF_UNSPEC, 0);
  connect(fd, unspecified, unspecified.length);
}
