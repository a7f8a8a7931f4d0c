/**
 * What an end has written and read, in a file that is left when its program is killed.
 *
 *     offset  | size | field
 *     24 n    | 4    | id (u32)
 *     24 n+4  | 1    | 0 client, 1 server
 *     24 n+5  | 1    | 1 once it is over, and told by the program itself
 *     24 n+8  | 8    | bytes written (f64): at least those that were given to the socket
 *     24 n+16 | 8    | bytes received (f64): at most those that the socket gave
 *
 * Little-endian.
 */
import { existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import type { Side } from './plan.ts';

const ENTRY_BYTES = 24;

export class Ledger {
  readonly #fd: number;
  #count = 0;

  constructor(path: string) {
    this.#fd = openSync(path, 'w');
  }

  open(id: number, side: Side): Entry {
    return new Entry(this.#fd, this.#count++ * ENTRY_BYTES, id, side);
  }
}

export class Entry {
  readonly #fd: number;
  readonly #offset: number;
  readonly #bytes = Buffer.alloc(ENTRY_BYTES);

  constructor(fd: number, offset: number, id: number, side: Side) {
    this.#fd = fd;
    this.#offset = offset;
    this.#bytes.writeUInt32LE(id, 0);
    this.#bytes[4] = side === 'client' ? 0 : 1;
    this.#write();
  }

  note(written: number, received: number): void {
    this.#bytes.writeDoubleLE(written, 8);
    this.#bytes.writeDoubleLE(received, 16);
    this.#write();
  }

  close(): void {
    this.#bytes[5] = 1;
    this.#write();
  }

  #write(): void {
    writeSync(this.#fd, this.#bytes, 0, ENTRY_BYTES, this.#offset);
  }
}

export interface Unfinished {
  readonly id: number;
  readonly side: Side;
  readonly written: number;
  readonly received: number;
}

/** Ends of which their program, which has died, did not tell. */
export function unfinishedIn(path: string): Unfinished[] {
  const file = existsSync(path) ? readFileSync(path) : Buffer.alloc(0); // it was killed before it had begun
  return Array.from({ length: Math.floor(file.length / ENTRY_BYTES) }, (_, i) => {
    const entry = file.subarray(i * ENTRY_BYTES, (i + 1) * ENTRY_BYTES);
    const one: Unfinished = {
      id: entry.readUInt32LE(0),
      side: entry[4] === 0 ? 'client' : 'server',
      written: entry.readDoubleLE(8),
      received: entry.readDoubleLE(16),
    };
    return entry[5] === 1 ? [] : [one];
  }).flat();
}
