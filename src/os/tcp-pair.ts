/** A TCP connection of this process with itself, made at one go: its listening socket is gone again before anybody could see it. */
import { closeFd, noted } from './descriptor.ts';
import { SystemError } from './errors.ts';
import { check, declare, ffi } from './ffi.ts';
import { strikeFd } from './ledger.ts';
import { localName, peerName } from './socket-options.ts';

const socket = declare('socket', 'i32', ['i32', 'i32', 'i32']);
const bind = declare('bind', 'i32', ['i32', 'ptr', 'u32']);
const listen = declare('listen', 'i32', ['i32', 'i32']);
const connect = declare('connect', 'i32', ['i32', 'ptr', 'u32']);
const accept4 = declare('accept4', 'i32', ['i32', 'ptr', 'ptr', 'i32']);
const poll = declare('poll', 'i32', ['ptr', 'usize', 'i32']);

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const POLLIN = 1;
const ECONNABORTED = 103;
const ETIMEDOUT = 110;
const EINPROGRESS = 115;
/** On one host a connection is there at once. */
const WAIT_MS = 1000;
/** Room for a stranger, who may connect to any port that is open. */
const BACKLOG = 8;

/** [client, server], both non-blocking; for a handle of Node.js to take over. Throws SystemError. */
export function tcpPair(): [number, number] {
  const fds: number[] = [];
  const open = (fd: number): number => {
    fds.push(noted(fd));
    return fd;
  };
  const tcp = (): number => open(check('socket', socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  try {
    const listener = tcp();
    const address = Buffer.alloc(16); // struct sockaddr_in
    address.writeUInt16LE(AF_INET, 0);
    address.set([127, 0, 0, 1], 4);
    check('bind', bind(listener, address, address.length));
    check('listen', listen(listener, BACKLOG));
    address.writeUInt16BE(localName(listener).port, 2);
    const client = tcp();
    if (Number(connect(client, address, address.length)) < 0 && ffi().errno() !== EINPROGRESS)
      throw new SystemError('connect', ffi().errno());
    for (let tries = 0; tries < BACKLOG; tries++) {
      awaitReadable(listener);
      const server = open(check('accept4', accept4(listener, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK)));
      if (peerName(server).port !== localName(client).port) continue;
      for (const fd of [client, server]) {
        strikeFd(fd);
        fds.splice(fds.indexOf(fd), 1);
      }
      return [client, server];
    }
    throw new SystemError('accept4', ECONNABORTED);
  } finally {
    for (const fd of fds) closeFd(fd);
  }
}

function awaitReadable(fd: number): void {
  const entry = Buffer.alloc(8); // struct pollfd
  entry.writeInt32LE(fd, 0);
  entry.writeInt16LE(POLLIN, 4);
  if (check('poll', poll(entry, 1, WAIT_MS)) === 0) throw new SystemError('connect', ETIMEDOUT);
}
