/**
 * Being told that a socket is readable, without a byte being read.
 *
 * Node.js reads what it waits for. Given a buffer of no length, libuv tells that there is something to be read and leaves it there
 * (UV_ENOBUFS); a second descriptor of the socket keeps that away from the program's own handle, and is ours also when that is closed.
 */
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { duplicateFd } from './descriptor.ts';
import { strikeFd } from './ledger.ts';

export interface Readiness {
  /** The second descriptor; not to be used after `close`. */
  readonly fd: number;
  /** Calls back once, when the socket is readable: as often as it is asked. */
  wait(): void;
  /** Gives the second descriptor back: until then a close of the first one ends nothing. */
  close(): void;
}

interface Handle {
  onread: () => void;
  readStart(): number;
  readStop(): number;
}

/** @param fd stays the caller's */
export function watchReadable(fd: number, readable: () => void): Readiness {
  const duplicate = duplicateFd(fd);
  const onread: OnReadOpts = { buffer: Buffer.alloc(0), callback: () => true };
  const options: SocketConstructorOpts & { onread: OnReadOpts; manualStart: boolean } = {
    fd: duplicate,
    readable: true,
    writable: false,
    onread,
    manualStart: true,
  };
  strikeFd(duplicate); // the socket closes it
  const socket = new Socket(options);
  const handle = (socket as unknown as { _handle: Handle })._handle;
  handle.onread = () => {
    handle.readStop();
    readable();
  };
  socket.unref();
  return {
    fd: duplicate,
    wait: () => void handle.readStart(),
    close: () => void socket.destroy(),
  };
}
