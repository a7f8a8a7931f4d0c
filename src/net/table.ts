/**
 * The table of a partition's connections, in a small memfd with a name: `isthmus ss` finds it through /proc/PID/fd and reads it
 * while the program is busy. Its own user and root can open it; nothing is left behind when the process ends.
 *
 *     offset | size     | field
 *     0      | 8        | "ISTHMUS2"; another number where anything of this is otherwise
 *     8      | 4        | rows in use, at most (u32)
 *     12     | 4        | sequence (u32): odd while a row goes into the totals, changed when it has
 *     16     | 4        | thread of the program, 0 for the main one (u32)
 *     64     | 8 * 64   | totals of the partition (f64), see statistics.ts
 *     1024   | 16 * 128 | why connections never moved that have ended: code of the reason, how many (f64 each)
 *     4096   | 1024 * n | rows
 *     row: 0 | 4        | sequence: odd while the row is being written, changed when it was
 *          4 | 4        | length of the text; 0 = free
 *          8 | 56       | counters (f64), see COUNTER in info.ts
 *         64 | 960      | JSON: everything else
 *
 * Native byte order.
 */
import { threadId } from 'node:worker_threads';
import { closeFd, createSharedMemory, map } from '../os/index.ts';
import { reasonOfCode } from '../smc/reasons.ts';
import { COUNTER, type ConnectionInfo, reasonFor } from './info.ts';
import { FALLBACK_SLOTS, Statistics, TOTALS_LENGTH } from './statistics.ts';

export const TABLE_NAME = 'isthmus-connections';
export const TABLE_MAGIC = 'ISTHMUS2';
export const ROW_BYTES = 1024;
export const FIRST_ROW = 4096;
const ROWS_IN_USE = 8;
const ENDS = 12;
const THREAD = 16;
const TOTALS = 64;
const FALLBACKS = 1024;
const SEQUENCE = 0;
const TEXT_LENGTH = 4;
const COUNTERS = 8;
const COUNTER_COUNT = Object.keys(COUNTER).length;
const TEXT = 64;
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
  /** What the partition counts. */
  readonly statistics: Statistics;
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
    this.statistics = new Statistics(
      new Float64Array(this.#memory, TOTALS, TOTALS_LENGTH),
      new Float64Array(this.#memory, FALLBACKS, 2 * FALLBACK_SLOTS),
    );
    this.#words[THREAD / 4] = threadId;
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

  /** Whoever reads rows and totals finds what is moved between them in one of the two. */
  atOnce(move: () => void): void {
    Atomics.add(this.#words, ENDS / 4, 1);
    move();
    Atomics.add(this.#words, ENDS / 4, 1);
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
  const common = reasonFor(reasonOfCode(code), info.role, info.local, info.peer);
  const isCommon = common.text === text && common.hint === hint;
  const withProgram = (length: number, cause: object) =>
    JSON.stringify({ ...info, program: info.program.slice(-length), reason: code, ...cause });
  const cause = isCommon ? {} : { cause: { text, hint } };
  for (const length of [MAX_PROGRAM_LENGTH, SHORT_PROGRAM_LENGTH]) {
    const text = withProgram(length, cause);
    if (Buffer.byteLength(text) <= TEXT_BYTES) return text;
  }
  return withProgram(SHORT_PROGRAM_LENGTH, {});
}
export const MAX_PROGRAM_LENGTH = 200;
/** Fits with whatever characters. */
const SHORT_PROGRAM_LENGTH = 60;

/** One row as a reader finds it. */
export interface FoundRow {
  readonly text: string;
  readonly counters: readonly number[];
}

/** Null when it is free or being written. @param row a copy of its bytes */
export function readRow(row: Buffer): FoundRow | null {
  const length = row.readUInt32LE(TEXT_LENGTH);
  if (length === 0 || length > TEXT_BYTES || row.readUInt32LE(SEQUENCE) % 2 === 1) return null;
  return { text: row.toString('utf8', TEXT, TEXT + length), counters: doubles(row, COUNTERS, COUNTER_COUNT) };
}

/** What stands before the rows. */
export interface Head {
  readonly rows: number;
  /** Odd, or another one after the rows were read: they and the totals do not belong together. */
  readonly sequence: number;
  readonly thread: number;
  readonly totals: readonly number[];
  /** Code and number, by turns. */
  readonly fallbacks: readonly number[];
}

/** Null when it is no table. @param head a copy of the bytes before the first row */
export function readHead(head: Buffer): Head | null {
  if (head.toString('latin1', 0, TABLE_MAGIC.length) !== TABLE_MAGIC) return null;
  return {
    rows: Math.min(head.readUInt32LE(ROWS_IN_USE), MAX_ROWS),
    sequence: head.readUInt32LE(ENDS),
    thread: head.readUInt32LE(THREAD),
    totals: doubles(head, TOTALS, TOTALS_LENGTH),
    fallbacks: doubles(head, FALLBACKS, 2 * FALLBACK_SLOTS),
  };
}

function doubles(bytes: Buffer, offset: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => bytes.readDoubleLE(offset + 8 * i));
}
