/**
 * The table of a partition's connections, in a small memfd with a name: `isthmus ss` finds it through /proc/PID/fd and reads it
 * while the program is busy. Its own user and root can open it; nothing is left behind when the process ends.
 *
 *     offset | size     | field
 *     0      | 8        | "ISTHMUS1"
 *     8      | 4        | rows in use, at most (u32)
 *     64     | 1024 * n | rows
 *     row: 0 | 4        | sequence: odd while the row is being written, changed when it was
 *          4 | 4        | length of the text; 0 = free
 *          8 | 32       | four counters (f64): bytes in by TCP, in by memory, out by TCP, out by memory
 *         40 | 984      | JSON: everything else
 *
 * Native byte order.
 */
import { closeFd, createSharedMemory, map } from '../os/index.ts';
import { reasonOfCode } from '../smc/reasons.ts';
import type { ConnectionInfo } from './info.ts';

export const TABLE_NAME = 'isthmus-connections';
export const TABLE_MAGIC = 'ISTHMUS1';
export const ROW_BYTES = 1024;
export const FIRST_ROW = 64;
const ROWS_IN_USE = 8;
const SEQUENCE = 0;
const TEXT_LENGTH = 4;
const COUNTERS = 8;
const COUNTER_COUNT = 4;
const TEXT = 40;
/** Room for the text of a row. */
export const TEXT_BYTES = ROW_BYTES - TEXT;
/** Address space; pages come with the rows. */
const MAX_ROWS = 65536;

export class ConnectionTable {
  readonly #fd: number;
  readonly #memory: ArrayBuffer;
  readonly #bytes: Buffer;
  readonly #words: Int32Array;
  readonly #free: number[] = [];
  #used = 0;

  /** Throws SystemError. */
  constructor() {
    const lengthBytes = FIRST_ROW + MAX_ROWS * ROW_BYTES;
    this.#fd = createSharedMemory(TABLE_NAME, lengthBytes);
    try {
      this.#memory = map(this.#fd, lengthBytes);
    } catch (error) {
      closeFd(this.#fd);
      throw error;
    }
    this.#bytes = Buffer.from(this.#memory);
    this.#words = new Int32Array(this.#memory);
    this.#bytes.write(TABLE_MAGIC, 0, 'latin1');
  }

  /** Null when the table is full. */
  addRow(): TableRow | null {
    const index = this.#free.pop() ?? this.#used;
    if (index === MAX_ROWS) return null;
    if (index === this.#used) {
      this.#used++;
      Atomics.store(this.#words, ROWS_IN_USE / 4, this.#used);
    }
    const offset = FIRST_ROW + index * ROW_BYTES;
    const counters = new Float64Array(this.#memory, offset + COUNTERS, COUNTER_COUNT);
    return {
      counters,
      write: (text) => this.#write(offset, text),
      free: () => {
        this.#write(offset, '');
        counters.fill(0);
        this.#free.push(index);
      },
    };
  }

  #write(offset: number, text: string): void {
    const sequence = (offset + SEQUENCE) / 4;
    Atomics.add(this.#words, sequence, 1);
    const length = this.#bytes.write(text, offset + TEXT, TEXT_BYTES);
    Atomics.store(this.#words, (offset + TEXT_LENGTH) / 4, length);
    Atomics.add(this.#words, sequence, 1);
  }
}

export interface TableRow {
  readonly counters: Float64Array;
  write(text: string): void;
  free(): void;
}

/**
 * The text of a row. Texts of the reason are the reader's, who has the same table, but for what is known of the cause. Of a long program
 * the end is kept; a cause that has no room is left out.
 */
export function rowText(info: Omit<ConnectionInfo, 'bytes'>): string {
  const { code, text, hint } = info.reason;
  const isCommon = reasonOfCode(code).text === text;
  const withProgram = (length: number, cause: object) =>
    JSON.stringify({ ...info, program: info.program.slice(-length), reason: code, ...cause });
  const cause = isCommon ? {} : { cause: { text, hint } };
  const texts = [withProgram(MAX_PROGRAM_LENGTH, cause), withProgram(SHORT_PROGRAM_LENGTH, cause)];
  return texts.find((one) => Buffer.byteLength(one) <= TEXT_BYTES) ?? withProgram(SHORT_PROGRAM_LENGTH, {});
}
export const MAX_PROGRAM_LENGTH = 200;
/** Fits with whatever characters. */
const SHORT_PROGRAM_LENGTH = 60;

/** One row as a reader finds it; null when it is free or being written. @param row a copy of its bytes */
export function readRow(row: Buffer): { readonly text: string; readonly counters: readonly number[] } | null {
  const length = row.readUInt32LE(TEXT_LENGTH);
  if (length === 0 || length > TEXT_BYTES || row.readUInt32LE(SEQUENCE) % 2 === 1) return null;
  const counters = Array.from({ length: COUNTER_COUNT }, (_, i) => row.readDoubleLE(COUNTERS + 8 * i));
  return { text: row.toString('utf8', TEXT, TEXT + length), counters };
}

export function rowsInUse(head: Buffer): number {
  if (head.toString('latin1', 0, TABLE_MAGIC.length) !== TABLE_MAGIC) return 0;
  return Math.min(head.readUInt32LE(ROWS_IN_USE), MAX_ROWS);
}
