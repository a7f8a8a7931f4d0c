/** Writing into the peer's ring in place: `reserve` of `isthmus`, where what it promises is said. */
import type { Socket } from 'node:net';
import { IsthmusError } from '../ism/errors.ts';
import type { Reserved } from '../smc/connection.ts';
import type { Carrier } from './carrier.ts';

/** Room for bytes that a socket is to write. */
export interface Reservation {
  /**
   * Where to put the bytes; what stands there before is anything. Throws ERR_ISTHMUS_RESERVE once committed: what is written to a Buffer
   * that was taken before then spoils what the other end reads, or a later connection to it.
   */
  readonly bytes: Buffer;
  /**
   * Whether this is the memory of the other end, which can read what is written before it is committed. `bytes.buffer` is that of all
   * connections to that program, and not to be posted or transferred to a thread.
   */
  readonly isShared: boolean;
  /**
   * Writes the first `lengthBytes` bytes (default: all; 0: gives the room up), at the moment of this call, as `socket.write` would: false
   * says to wait for 'drain', the callback comes once they are written, or with the error. A socket that has ended or was destroyed
   * meanwhile says so as for `write`. Throws ERR_ISTHMUS_RESERVE when committed before.
   */
  commit(lengthBytes?: number, callback?: (error?: Error | null) => void): boolean;
  /** Gives the room up, unless committed: `using room = ...`. */
  [Symbol.dispose](): void;
}

const open = new WeakSet<Socket>();

function reserveError(message: string): IsthmusError {
  return new IsthmusError('ERR_ISTHMUS_RESERVE', 'local', message);
}

/**
 * The socket is corked while its next bytes in the ring are somebody's: what is written meanwhile would go there. It is written when the
 * reservation is committed, first, as it came first; then a copy of what was committed.
 */
export function reserveRoom(socket: Socket, lengthBytes: number, carrier: Carrier | null): Reservation | null {
  if (!socket.writable) throw reserveError('the socket has ended');
  if (open.has(socket)) throw reserveError('the reservation before is to be committed first');
  if (socket.writableNeedDrain) return null;
  const reserved =
    socket.writableLength === 0 && socket.writableCorked === 0 ? carrier?.sending.reserve(lengthBytes) : null;
  open.add(socket);
  if (!carrier || !reserved) return new BufferReservation(socket, Buffer.alloc(lengthBytes));
  socket.cork();
  return new RingReservation(socket, reserved, carrier);
}

abstract class OpenReservation implements Reservation {
  abstract readonly isShared: boolean;
  protected readonly socket: Socket;
  readonly #bytes: Buffer;
  #isOpen = true;

  constructor(socket: Socket, bytes: Buffer) {
    this.socket = socket;
    this.#bytes = bytes;
  }

  get bytes(): Buffer {
    if (!this.#isOpen) throw reserveError("this reservation was committed: its bytes are the other end's");
    return this.#bytes;
  }

  commit(lengthBytes = this.bytes.length, callback?: (error?: Error | null) => void): boolean {
    const { bytes } = this;
    if (!Number.isInteger(lengthBytes) || lengthBytes < 0 || lengthBytes > bytes.length)
      throw reserveError(`0 to ${bytes.length} bytes can be committed, not ${lengthBytes}`);
    this.#isOpen = false;
    open.delete(this.socket);
    return this.write(bytes.subarray(0, lengthBytes), callback);
  }

  protected abstract write(bytes: Buffer, callback?: (error?: Error | null) => void): boolean;

  [Symbol.dispose](): void {
    if (this.#isOpen) this.commit(0);
  }
}

class BufferReservation extends OpenReservation {
  readonly isShared = false;

  protected write(bytes: Buffer, callback?: (error?: Error | null) => void): boolean {
    return writeTo(this.socket, bytes, callback);
  }
}

class RingReservation extends OpenReservation {
  readonly isShared = true;
  readonly #reserved: Reserved;
  readonly #carrier: Carrier;

  constructor(socket: Socket, reserved: Reserved, carrier: Carrier) {
    super(socket, reserved.bytes);
    this.#reserved = reserved;
    this.#carrier = carrier;
  }

  protected write(bytes: Buffer, callback?: (error?: Error | null) => void): boolean {
    const { socket } = this;
    const isNext = socket.writable && socket.writableLength === 0 && this.#reserved.isNext;
    if (isNext && bytes.length > 0) {
      this.#carrier.sending.commit(this.#reserved, bytes.length);
      socket.uncork();
      if (callback !== undefined) process.nextTick(callback);
      return true;
    }
    const isLost = socket.writable && this.#reserved.isLost;
    const copy = Buffer.from(bytes);
    this.#reserved.commit(0);
    socket.uncork();
    if (isLost && copy.length > 0) throw reserveError('the socket was uncorked, and something else was written there');
    return writeTo(socket, copy, callback);
  }
}

function writeTo(socket: Socket, bytes: Buffer, callback?: (error?: Error | null) => void): boolean {
  if (bytes.length > 0) return socket.write(bytes, callback);
  if (callback !== undefined) process.nextTick(callback);
  return !socket.writableNeedDrain;
}
