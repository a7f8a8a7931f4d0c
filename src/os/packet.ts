/**
 * AF_UNIX sockets that keep message boundaries (SOCK_SEQPACKET) and carry descriptors (SCM_RIGHTS).
 *
 * All calls are non-blocking whatever the state of O_NONBLOCK (MSG_DONTWAIT): the flag belongs to the open file description,
 * which a peer may share. Layouts: struct msghdr, iovec and cmsghdr of glibc on 64-bit Linux; musl's differ in paddings that
 * are zero here on little-endian machines.
 */
import { closeFd, noted } from './descriptor.ts';
import { EAGAIN, EINTR, SystemError } from './errors.ts';
import { check, declare, ffi } from './ffi.ts';
import { SCRATCH_BYTES, scratch } from './scratch.ts';

const socket = declare('socket', 'i32', ['i32', 'i32', 'i32']);
const socketpair = declare('socketpair', 'i32', ['i32', 'i32', 'i32', 'ptr']);
const bind = declare('bind', 'i32', ['i32', 'ptr', 'u32']);
const listen = declare('listen', 'i32', ['i32', 'i32']);
const accept4 = declare('accept4', 'i32', ['i32', 'ptr', 'ptr', 'i32']);
const connect = declare('connect', 'i32', ['i32', 'ptr', 'u32']);
const sendmsg = declare('sendmsg', 'i64', ['i32', 'ptr', 'i32']);
const recvmsg = declare('recvmsg', 'i64', ['i32', 'ptr', 'i32']);
const send = declare('send', 'i64', ['i32', 'ptr', 'usize', 'i32']);
const shutdown = declare('shutdown', 'i32', ['i32', 'i32']);

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_SEQPACKET = 5;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SHUT_RD = 0;
const MSG_CTRUNC = 0x8;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

/** The most descriptors the kernel puts into one message (SCM_MAX_FD). */
export const MAX_DESCRIPTORS = 253;
/** The longest packet that is sent or received here. */
export const MAX_PACKET_BYTES = 64 * 1024;

// Where things stand in the scratch page.
const HEADER = 0; // struct msghdr, 56 bytes
const IOVEC = 64; // struct iovec, 16 bytes
const CONTROL = 128; // struct cmsghdr, 16 bytes, then the descriptors
const CONTROL_BYTES = 16 + 4 * MAX_DESCRIPTORS + 4;
const PAYLOAD = SCRATCH_BYTES - MAX_PACKET_BYTES;

export interface Packet {
  readonly bytes: Buffer;
  /** Owned by the receiver of this object. */
  readonly fds: readonly number[];
  /** The packet, or its descriptors, did not fit: what is here is not all of it. */
  readonly truncated: boolean;
  /** Of its descriptors some did not come, since this process may have no more. */
  readonly lacksDescriptors: boolean;
}

export function packetSocketPair(): [number, number] {
  return pairOf(SOCK_SEQPACKET);
}

export function streamSocketPair(): [number, number] {
  return pairOf(SOCK_STREAM);
}

function pairOf(type: number): [number, number] {
  const pair = Buffer.alloc(8);
  check('socketpair', socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
  return [noted(pair.readInt32LE(0)), noted(pair.readInt32LE(4))];
}

/** Listens at a path. The caller cares for permissions and for what stood there before. */
export function listenPackets(path: string, backlog = 128): number {
  return withPacketSocket((fd) => {
    const address = unixAddress(path);
    check('bind', bind(fd, address, address.length));
    check('listen', listen(fd, backlog));
  });
}

/** Connects at once or throws (ECONNREFUSED, ENOENT, EACCES; EAGAIN when the listener's queue is full). */
export function connectPackets(path: string): number {
  return withPacketSocket((fd) => {
    const address = unixAddress(path);
    check('connect', connect(fd, address, address.length));
  });
}

function withPacketSocket(use: (fd: number) => void): number {
  const fd = noted(check('socket', socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  try {
    use(fd);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** One datagram to whoever listens at a path, or at an abstract name, which begins with '@'. Throws when it cannot be sent. */
export function sendDatagram(path: string, bytes: Uint8Array): void {
  const fd = noted(check('socket', socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  try {
    const address = path.startsWith('@') ? unixAddress(`\0${path.slice(1)}`).subarray(0, -1) : unixAddress(path);
    check('connect', connect(fd, address, address.length));
    check('send', send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL));
  } finally {
    closeFd(fd);
  }
}

/** The next connection, or null when there is none. */
export function acceptPackets(listener: number): number | null {
  const fd = Number(accept4(listener, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd >= 0) return noted(fd);
  const errno = ffi().errno();
  if (errno === EAGAIN || errno === EINTR) return null;
  throw new SystemError('accept4', errno);
}

const SUN_PATH_BYTES = 108;

function unixAddress(path: string): Buffer {
  const name = Buffer.from(path);
  if (name.length >= SUN_PATH_BYTES)
    throw new RangeError(`socket path longer than ${SUN_PATH_BYTES - 1} bytes: ${path}`);
  const address = Buffer.alloc(2 + name.length + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  return address;
}

/** Sends one packet with descriptors, which stay the caller's. False when the peer's queue is full; throws EPIPE, ECONNRESET ... */
export function sendPacket(fd: number, bytes: Uint8Array, fds: readonly number[] = []): boolean {
  if (bytes.length > MAX_PACKET_BYTES || fds.length > MAX_DESCRIPTORS) throw new RangeError('packet too large');
  const { address, bytes: page } = scratch();
  page.set(bytes, PAYLOAD);
  writeHeader(page, address, bytes.length, fds.length === 0 ? 0 : 16 + 4 * fds.length);
  if (fds.length > 0) {
    page.writeBigUInt64LE(BigInt(16 + 4 * fds.length), CONTROL);
    page.writeInt32LE(SOL_SOCKET, CONTROL + 8);
    page.writeInt32LE(SCM_RIGHTS, CONTROL + 12);
    for (const [i, one] of fds.entries()) page.writeInt32LE(one, CONTROL + 16 + 4 * i);
  }
  if (Number(sendmsg(fd, address + BigInt(HEADER), MSG_DONTWAIT | MSG_NOSIGNAL)) >= 0) return true;
  const errno = ffi().errno();
  if (errno === EAGAIN || errno === EINTR) return false;
  throw new SystemError('sendmsg', errno);
}

/** The peer can send nothing more; what has come can still be received, and then 'end'. */
export function stopReceiving(fd: number): void {
  shutdown(fd, SHUT_RD);
}

/** The next packet; null when there is none yet, 'end' when the peer has closed. */
export function receivePacket(fd: number): Packet | null | 'end' {
  const { address, bytes: page } = scratch();
  writeHeader(page, address, MAX_PACKET_BYTES, CONTROL_BYTES);
  const length = Number(recvmsg(fd, address + BigInt(HEADER), MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  if (length < 0) {
    const errno = ffi().errno();
    if (errno === EAGAIN || errno === EINTR) return null;
    throw new SystemError('recvmsg', errno);
  }
  const fds = readDescriptors(page);
  if (length === 0 && fds.length === 0) return 'end';
  const flags = page.readInt32LE(HEADER + 48);
  return {
    bytes: Buffer.from(page.subarray(PAYLOAD, PAYLOAD + length)),
    fds,
    truncated: (flags & (MSG_TRUNC | MSG_CTRUNC)) !== 0,
    lacksDescriptors: (flags & MSG_CTRUNC) !== 0, // there is room for as many as the kernel lets be sent
  };
}

function writeHeader(page: Buffer, address: bigint, payloadBytes: number, controlBytes: number): void {
  page.fill(0, HEADER, IOVEC + 16);
  page.writeBigUInt64LE(address + BigInt(IOVEC), HEADER + 16);
  page.writeBigUInt64LE(1n, HEADER + 24);
  if (controlBytes > 0) page.writeBigUInt64LE(address + BigInt(CONTROL), HEADER + 32);
  page.writeBigUInt64LE(BigInt(controlBytes), HEADER + 40);
  page.writeBigUInt64LE(address + BigInt(PAYLOAD), IOVEC);
  page.writeBigUInt64LE(BigInt(payloadBytes), IOVEC + 8);
}

function readDescriptors(page: Buffer): number[] {
  const fds: number[] = [];
  const controlEnd = CONTROL + Number(page.readBigUInt64LE(HEADER + 40));
  for (let at = CONTROL; at + 16 <= controlEnd; ) {
    const length = Number(page.readBigUInt64LE(at));
    if (length < 16 || at + length > controlEnd) break;
    if (page.readInt32LE(at + 8) === SOL_SOCKET && page.readInt32LE(at + 12) === SCM_RIGHTS) {
      for (let f = at + 16; f + 4 <= at + length; f += 4) fds.push(noted(page.readInt32LE(f)));
    }
    at += (length + 7) & ~7;
  }
  return fds;
}

/** Sends one byte on a stream socket; that it could not be sent because the queue is full is as good: the peer is told already. */
export function ringSocket(fd: number): void {
  send(fd, ONE_BYTE, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}
const ONE_BYTE = Buffer.alloc(1);
