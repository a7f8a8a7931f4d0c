/** How many bytes of a socket went which way, and whether those of TCP passed through JavaScript. */
import { count } from '../ism/counters.ts';
import type { Connection } from '../smc/connection.ts';
import { COUNTER } from './info.ts';
import type { TcpHandle } from './internals.ts';
import type { NativeHandle } from './native-handle.ts';

export class Traffic {
  readonly #handle: TcpHandle;
  readonly #native: NativeHandle;
  /** What the native counters were when bytes last passed through JavaScript; more than that passed below it. */
  #seenRead: number;
  #seenWritten: number;
  #isWriting = false;
  /** Bytes were written below JavaScript before one of our writes. */
  #foreignWritten = false;
  /** Bytes that went through rings of connections before. */
  readonly #earlierRead: number;
  readonly #earlierWritten: number;
  #connection: Connection | null = null;
  /** By way and direction, and how often, see COUNTER. */
  #counters: Float64Array = new Float64Array(Object.keys(COUNTER).length);

  constructor(handle: TcpHandle, native: NativeHandle) {
    this.#handle = handle;
    this.#native = native;
    this.#seenRead = this.nativeRead;
    this.#seenWritten = this.nativeWritten;
    this.#earlierRead = handle.bytesRead - this.#seenRead;
    this.#earlierWritten = handle.bytesWritten - this.#seenWritten;
    this.sum();
  }

  get nativeRead(): number {
    return this.#native.bytesRead;
  }

  get nativeWritten(): number {
    return this.#native.bytesWritten;
  }

  /** Of the bytes written those that the kernel has not got yet. */
  get nativeQueued(): number {
    return this.#handle.writeQueueSize;
  }

  /** Whether bytes passed below JavaScript since `rebase`: something in C++ reads or writes this handle. */
  get hasForeignBytes(): boolean {
    if (this.#isWriting) return this.#foreignWritten;
    return this.#foreignWritten || this.nativeRead !== this.#seenRead || this.nativeWritten !== this.#seenWritten;
  }

  /** The handle was given back by something in C++: bytes are counted from here. */
  rebase(): void {
    this.#seenRead = this.nativeRead;
    this.#seenWritten = this.nativeWritten;
    this.#foreignWritten = false;
    this.sum();
  }

  /**
   * From now on the handle counts what goes through the ring, too.
   * @param waitingBytes written, and waiting for room in it
   */
  carry(connection: Connection, waitingBytes: () => number): void {
    this.#connection = connection;
    const { in: inbound, out: outbound } = connection;
    Object.defineProperty(this.#handle, 'bytesRead', {
      configurable: true,
      get: () => this.nativeRead + this.#earlierRead + inbound.ringTotal,
    });
    Object.defineProperty(this.#handle, 'bytesWritten', {
      configurable: true,
      get: () => this.nativeWritten + this.#earlierWritten + outbound.ringTotal + waitingBytes(),
    });
  }

  /** The handle counts for itself again, unless something went through the ring. */
  release(): void {
    const connection = this.#connection;
    if (connection === null || connection.in.ringTotal + connection.out.ringTotal > 0) return;
    Reflect.deleteProperty(this.#handle, 'bytesRead');
    Reflect.deleteProperty(this.#handle, 'bytesWritten');
  }

  get counters(): Float64Array {
    return this.#counters;
  }

  /** From now on counts in other memory, which other processes read, with what was counted before on this socket. */
  countIn(memory: Float64Array): void {
    const own = this.#counters;
    for (const index of [COUNTER.reads, COUNTER.writes, COUNTER.full])
      own[index] = (own[index] ?? 0) + (memory[index] ?? 0);
    memory.set(own);
    this.#counters = memory;
  }

  /** The last count: the memory is another connection's soon. */
  close(): void {
    this.sum();
    this.#counters = this.#counters.slice();
  }

  count(counter: number): void {
    count(this.#counters, counter);
  }

  readTcp(lengthBytes: number): void {
    this.#seenRead += lengthBytes;
    this.#counters[COUNTER.inTcp] = this.#seenRead;
  }

  /** @param write writes to the handle, and may call back into the program, which may write again */
  writeTcp(write: () => void): void {
    const isNested = this.#isWriting;
    if (!isNested && this.nativeWritten !== this.#seenWritten) this.#foreignWritten = true;
    this.#isWriting = true;
    try {
      write();
    } finally {
      this.#isWriting = isNested;
    }
    this.#seenWritten = this.nativeWritten;
    this.#counters[COUNTER.outTcp] = this.#seenWritten;
  }

  readRing(): void {
    this.#counters[COUNTER.inShm] = this.#earlierRead + (this.#connection?.in.ringTotal ?? 0);
  }

  wroteRing(): void {
    this.#counters[COUNTER.outShm] = this.#earlierWritten + (this.#connection?.out.ringTotal ?? 0);
  }

  sum(): void {
    this.#counters[COUNTER.inTcp] = this.#seenRead;
    this.#counters[COUNTER.outTcp] = this.#seenWritten;
    this.readRing();
    this.wroteRing();
  }
}
