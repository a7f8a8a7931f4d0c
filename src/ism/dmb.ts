/**
 * DMB, direct memory buffer: memory of one owner into which exactly one peer writes.
 *
 * The owner reads it and never writes into it; what it has to say goes into the peer's DMB (single-writer rule).
 * What stands in it is hostile until checked: read once into private memory, then check.
 */
import type { Client } from './client.ts';
import type { Gid } from './gid.ts';
import type { Token } from './token.ts';

export interface DmbRequest {
  /** The one peer that may write. */
  readonly peer: Gid;
  /** Wished length; a device gives that or more. */
  readonly lengthBytes: number;
  /** Is told of signals to this DMB. */
  readonly client: Client;
}

/** The owner's end. Comes zeroed. */
export interface Dmb {
  readonly token: Token;
  /** Position in the device's table, in use by one DMB at a time. */
  readonly index: number;
  /** Counts how often this index was used before, modulo 2^16. Not 0. */
  readonly generation: number;
  readonly peer: Gid;
  readonly lengthBytes: number;
  /** Read only, by agreement. */
  readonly bytes: Buffer;
  /** The same memory as aligned 32-bit words, for Atomics.load. Its first byte is aligned to 64 bits. */
  readonly words: Int32Array;
  readonly client: Client;
  /** For the client alone; devices don't touch it. */
  clientData: unknown;
}

/**
 * The writer's end: a token, resolved once. All operations are synchronous; data may be reused at return.
 * After the DMB's owner has unregistered it, and after the owner's death, operations do nothing and do not fail: as with the
 * real device, the writer learns of it from an event.
 */
export interface RemoteDmb {
  readonly token: Token;
  readonly generation: number;
  readonly lengthBytes: number;
  /** The memory itself where the device maps it, else null. Write only, by agreement. */
  readonly bytes: Buffer | null;
  /** Copies bytes to an offset. They need not arrive at once nor in order: publish them with a word. Throws IsmError RANGE. */
  move(offset: number, data: Uint8Array): void;
  /** Stores one aligned word, whole, after everything that was moved or stored before. Throws IsmError RANGE. */
  storeWord(offset: number, value: number): void;
  /**
   * As `storeWord`, for an aligned word of 64 bits; `value` as it stands in memory, in native byte order. Where a store is a system call,
   * and the kernel is interrupted in it, the first half of it may be seen before the second.
   */
  storeLong(offset: number, value: bigint): void;
  /** Tells the owner to look at this DMB, after everything stored before. Signals may be merged; none is lost. */
  signal(): void;
}
