/** Writes as fast as a socket takes it, as a well-behaved program does: until `write` says no, and on with 'drain'. */
import type { Socket } from 'node:net';

/** More than that in one turn of the event loop would keep its timers waiting: sockets may take everything at once. */
const TURN_BYTES = 1 << 20;

export class Writer {
  readonly #socket: Socket;
  readonly #chunk: Buffer;
  #sent = 0;
  #stopped = false;

  constructor(socket: Socket, writeBytes: number) {
    this.#socket = socket;
    this.#chunk = Buffer.alloc(writeBytes, 'c');
  }

  /** Bytes that the socket was given. */
  get sent(): number {
    return this.#sent;
  }

  start(): void {
    this.#socket.on('drain', () => this.#write());
    this.#socket.resume();
    this.#write();
  }

  #write(): void {
    for (let left = TURN_BYTES; left > 0; left -= this.#chunk.length) {
      if (this.#stopped || this.#socket.destroyed) return;
      this.#sent += this.#chunk.length;
      if (!this.#socket.write(this.#chunk)) return;
    }
    setImmediate(() => this.#write());
  }

  stop(): void {
    this.#stopped = true;
    this.#socket.end();
  }
}
