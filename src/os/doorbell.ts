/**
 * Being woken: one end of a pipe (or of a stream socket) on which the other side writes a byte.
 *
 * The reading is left to Node.js's own pipe handle: it survives the end of a process or thread in whatever state, closes its
 * descriptor even when a worker thread is terminated, and costs less per wake-up than a poll through the FFI (7 µs against
 * 10 µs, pipe to itself). Its end-of-file tells of the writer's death.
 */
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { closeFd } from './descriptor.ts';
import { OsUnavailableError } from './errors.ts';
import { strikeFd } from './ledger.ts';
import { createPipe, ringPipe } from './pipe.ts';

export interface Doorbell {
  /** Whether this doorbell alone keeps the program running; it doesn't at first. */
  keepAlive(on: boolean): void;
  close(): void;
}

export interface DoorbellListener {
  /** Rung at least once since the last call. */
  rung(): void;
  /** Nobody can ring any more. Not called after close(). */
  hungUp(): void;
}

/** Takes over the descriptor. */
export function openDoorbell(fd: number, listener: DoorbellListener): Doorbell {
  let closed = false;
  const options: SocketConstructorOpts & { onread: OnReadOpts } = {
    fd,
    readable: true,
    writable: false,
    onread: {
      buffer: Buffer.allocUnsafeSlow(256),
      callback: () => {
        if (!closed) listener.rung();
        return true;
      },
    },
  };
  strikeFd(fd); // the socket closes it, also when a thread is terminated
  const socket = new Socket(options);
  const hangUp = () => {
    if (closed) return;
    closed = true;
    socket.destroy();
    listener.hungUp();
  };
  socket.on('end', hangUp).on('error', hangUp).on('close', hangUp).unref();
  return {
    keepAlive: (on) => void (on ? socket.ref() : socket.unref()),
    close() {
      closed = true;
      socket.destroy();
    },
  };
}

let tested: Promise<void> | undefined;
/** Looks, not time: the program may be stopped, or keep the event loop busy, and then nothing is wrong. */
const MAX_LOOKS = 500;
const LOOK_MS = 2;

/** Once per thread, before the first doorbell is relied on: rings one and waits for it. Rejects with OsUnavailableError. */
export function testDoorbell(): Promise<void> {
  tested ??= new Promise((resolve, reject) => {
    const { readFd, writeFd } = createPipe();
    let looks = 0;
    const finish = (failure?: string) => {
      clearInterval(timer);
      doorbell.close();
      closeFd(writeFd);
      if (failure === undefined) resolve();
      else reject(new OsUnavailableError('ERR_ISTHMUS_POLL', `waiting on a pipe does not work here: ${failure}`));
    };
    const doorbell = openDoorbell(readFd, {
      rung: () => finish(),
      hungUp: () => finish('it was closed'),
    });
    const timer = setInterval(() => {
      if (++looks === MAX_LOOKS) finish(`no wake-up within ${MAX_LOOKS * LOOK_MS} ms`);
    }, LOOK_MS);
    ringPipe(writeFd);
  });
  return tested;
}
