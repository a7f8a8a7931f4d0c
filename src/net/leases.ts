/** A socket's bytes, chunk by chunk, without a copy of ours: `leases` of `isthmus`, where what it promises is said. */
import type { Socket } from 'node:net';
import { finished } from 'node:stream';
import { IsthmusError } from '../ism/errors.ts';
import type { Loan } from '../smc/layout.ts';
import { hasOnread } from './internals.ts';
import { type Lender, lenderOf } from './lender.ts';

/** Bytes that a socket has received, lent until `release`. */
export interface Lease {
  /**
   * The bytes, at least one. Throws ERR_ISTHMUS_LEASE once released. A Buffer that was taken before cannot be revoked: where `isShared`, it
   * then shows whatever the other end writes next, or another connection of it. Not to be written.
   */
  readonly bytes: Buffer;
  /**
   * Whether this is the shared memory itself: then **the other end can change it** as long as it likes, also after you have checked it.
   * Check what matters in a copy (`Buffer.from(lease.bytes)`), above all what is a length, an offset or a name. `bytes.buffer` is the
   * memory of all connections to that program: to transfer it to a thread takes it from them and ends them, and to post `bytes` copies all
   * of it. Post a copy. Where it is false the chunk is yours.
   */
  readonly isShared: boolean;
  /** Gives the bytes back. Twice does nothing. */
  release(): void;
  /** As `release`: `using lease = ...`. */
  [Symbol.dispose](): void;
}

export interface LeasesOptions {
  /** Whether the socket is destroyed when the loop is left before its end, and at its end (default: true). As for `socket.iterator`. */
  readonly destroyOnReturn?: boolean;
}

class ChunkLease implements Lease {
  readonly isShared: boolean;
  #bytes: Buffer | null;
  readonly #giveBack: () => void;

  constructor(bytes: Buffer, isShared: boolean, giveBack: () => void) {
    this.#bytes = bytes;
    this.isShared = isShared;
    this.#giveBack = giveBack;
  }

  get bytes(): Buffer {
    if (this.#bytes === null) throw leaseError('this lease was released: its bytes may be others by now');
    return this.#bytes;
  }

  release(): void {
    if (this.#bytes === null) return;
    this.#bytes = null;
    this.#giveBack();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

function leaseError(message: string): IsthmusError {
  return new IsthmusError('ERR_ISTHMUS_LEASE', 'local', message);
}

/** Where bytes of a ring are to be had. */
export interface Lending {
  /** From now on they wait to be pulled; null: they go to the stream. */
  lend(lender: Lender | null): void;
  /** The next of them, behind all that is in the stream; null when there are none now. */
  pull(): Loan | null;
}

/**
 * As the iterator of the stream, with bytes of the ring that never enter it. What is in the stream came before what is in the ring, and the
 * end of the stream, errors and back pressure come after.
 */
export async function* readLeases(
  socket: Socket,
  { destroyOnReturn = true }: LeasesOptions,
  lending: Lending,
): AsyncGenerator<Lease, void, undefined> {
  if (lenderOf(socket) !== null) throw leaseError('there is a loop of leases on this socket');
  checkBytes(socket);
  if (hasOnread(socket)) throw leaseError('the bytes of this socket go to its option onread');
  let end = null as Error | 'end' | null;
  let wake = () => {};
  const lender: Lender = { isWaiting: false, wake: () => wake() };
  const forget = finished(socket, { writable: false }, (error) => {
    end = error ?? 'end';
    wake();
  });
  lending.lend(lender);
  socket.on('readable', lender.wake);
  try {
    for (;;) {
      checkBytes(socket);
      const lease = socket.destroyed ? null : nextOf(socket, lending);
      if (lease !== null) {
        yield lease;
      } else if (end === 'end') {
        return;
      } else if (end !== null) {
        throw end;
      } else {
        lender.isWaiting = true;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        lender.isWaiting = false;
      }
    }
  } finally {
    lending.lend(null);
    socket.off('readable', lender.wake);
    forget();
    if (end instanceof Error) socket.destroy();
    else if (destroyOnReturn && end === 'end') await socket.iterator().next();
    else if (destroyOnReturn) destroy(socket);
  }
}

function checkBytes(socket: Socket): void {
  if (socket.readableEncoding !== null) throw leaseError('the socket decodes its bytes (setEncoding)');
}

function nextOf(socket: Socket, lending: Lending): Lease | null {
  const chunk = socket.read() as Buffer | null;
  if (chunk !== null) return new ChunkLease(chunk, false, () => {});
  const loan = lending.pull();
  return loan === null ? null : new ChunkLease(loan.bytes, true, loan.giveBack);
}

/** As the iterator of a stream does it when it is left. At the end that depends on the version of Node.js, and its own is asked. */
function destroy(socket: Socket): void {
  if (socket.destroyed) return;
  const isFinished = !socket.readable && !socket.writable;
  const aborted = new Error('The operation was aborted');
  socket.destroy(isFinished ? undefined : Object.assign(aborted, { name: 'AbortError', code: 'ABORT_ERR' }));
}
