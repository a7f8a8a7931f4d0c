/**
 * One direction of a TCP connection: its first bytes put together, and CLC messages taken from them. Segments may come out of
 * order, doubled, overlapping, in pieces, cut by the capture, and without the SYN that tells where the stream begins.
 *
 * Bytes that were there first stay. Held are 64 KiB at most, and nothing once it is known that no (more) CLC messages follow.
 */
import { viewOf } from '../../smc/clc/bytes.ts';
import { CLC_TYPES, EYECATCHER_BYTES, EYECATCHERS, HEADER_BYTES, LENGTH, TYPE } from '../../smc/clc/header.ts';

/** Of one direction, from where it begins. */
const MAX_BYTES = 65_536;
/** Segments that may wait for one in front of them. */
const MAX_WAITING = 256;
/** What may come before the first bytes are known for such, without a SYN: a few segments. */
const MAX_EARLY_BYTES = 4096;
const MAX_EARLY = 256;
/** Of either eyecatcher. */
const FIRST_BYTE = 0xe2;

export interface FoundMessage {
  readonly bytes: Buffer;
  /** Whether the rest of it went over the wire, but is not in the capture. */
  readonly isCutByCapture: boolean;
}

interface Piece {
  readonly seq: number;
  readonly bytes: Buffer;
  /** On the wire, which may be more than was captured. */
  readonly length: number;
}

type Phase =
  /** Where it begins is not known. */
  | 'early'
  /** It begins with CLC messages, or may. */
  | 'clc'
  /** Other bytes, or none that count. */
  | 'over';

export class Stream {
  phase: Phase = 'early';
  /** The sequence number of the first byte. */
  #base = 0;
  #early: Piece[] = [];
  #bytes: Buffer = Buffer.alloc(0);
  /** In use of them, without a gap from the first byte on. */
  #length = 0;
  #waiting: Piece[] = [];
  /** Where the wire was at most. */
  #seen = 0;
  /** Up to here they were taken as messages. */
  #taken = 0;

  /** What it costs to keep this. */
  get heldBytes(): number {
    return [...this.#early, ...this.#waiting].reduce((sum, { bytes }) => sum + bytes.length, this.#bytes.length);
  }

  /** The stream begins with this sequence number. */
  begin(seq: number): void {
    this.#base = seq;
    this.phase = 'clc';
    for (const piece of this.#early.splice(0)) this.#put(piece);
  }

  /** @param length on the wire, which may be more than was captured */
  add(seq: number, bytes: Buffer, length: number): void {
    if (this.phase === 'over' || length === 0) return;
    if (this.phase === 'early') this.#addEarly({ seq, bytes: Buffer.from(bytes), length });
    else this.#put({ seq, bytes, length });
  }

  /** The next message that is complete, if there is one. Only a copy is given away. */
  take(): Buffer | null {
    if (this.phase !== 'clc') return null;
    const rest = this.#rest();
    if (!mayBeMessage(rest)) this.leave();
    if (this.phase !== 'clc' || rest.length < HEADER_BYTES) return null;
    const length = rest.readUInt16BE(LENGTH);
    // Such a length leads nowhere: what has come is all of it.
    if (length < HEADER_BYTES) return this.#takeAll();
    if (rest.length < length) return this.#length === MAX_BYTES ? this.#takeAll() : null;
    return this.#takeBytes(length);
  }

  /** At the end of the connection or capture: the beginning of a message that did not come. */
  takeRest(): FoundMessage | null {
    if (this.phase !== 'clc') return null;
    const isCutByCapture = this.#seen > this.#length;
    const bytes = this.#rest();
    const isMessage = bytes.length >= EYECATCHER_BYTES && mayBeMessage(bytes);
    const copy = Buffer.from(bytes);
    this.leave();
    return isMessage ? { bytes: copy, isCutByCapture } : null;
  }

  #addEarly(piece: Piece): void {
    this.#early.push(piece);
    const begin = this.#findBegin(piece);
    if (begin !== null) {
      this.begin(begin);
      return;
    }
    const bytes = this.#early.reduce((sum, one) => sum + one.bytes.length, 0);
    const isHopeless = this.#early.length > MAX_EARLY || bytes > MAX_EARLY_BYTES;
    if (isHopeless) this.leave();
  }

  /**
   * Where a segment begins with eyecatcher and type, perhaps in pieces. The eyecatcher alone is what messages end with, too.
   */
  #findBegin(last: Piece): number | null {
    for (const { seq, bytes } of this.#early) {
      // Nothing new where the last piece has no part in it.
      const lastAt = (last.seq - seq) | 0;
      if (bytes[0] !== FIRST_BYTE || lastAt > TYPE || lastAt + last.bytes.length < 0) continue;
      const head = Buffer.alloc(TYPE + 1);
      for (const piece of this.#early) {
        const at = (piece.seq - seq) | 0;
        for (let i = Math.max(0, -at); i < piece.bytes.length && at + i < head.length; i++) {
          head[at + i] = piece.bytes[i] ?? 0;
        }
      }
      if (mayBeMessage(head) && CLC_TYPES[head.readUInt8(TYPE)] !== undefined) return seq;
    }
    return null;
  }

  #relative(seq: number): number {
    return (seq - this.#base) | 0;
  }

  #put(piece: Piece): void {
    const at = this.#relative(piece.seq);
    this.#seen = Math.max(this.#seen, at + piece.length);
    if (!this.#append(piece)) {
      if (at > MAX_BYTES || this.#waiting.length === MAX_WAITING) return;
      this.#waiting.push({ ...piece, bytes: Buffer.from(piece.bytes) });
      return;
    }
    // What waited may follow now; each that does may let others follow.
    while (this.#waiting.some((one, i) => this.#append(one) && this.#waiting.splice(i, 1).length > 0));
  }

  /** False when there is a gap in front of it. */
  #append({ seq, bytes }: Piece): boolean {
    const at = this.#relative(seq);
    if (at > this.#length) return false;
    const fresh = bytes.subarray(this.#length - at, MAX_BYTES - at);
    if (at + bytes.length <= this.#length) return true;
    const length = this.#length + fresh.length;
    if (length > this.#bytes.length) {
      const larger = Buffer.alloc(Math.min(MAX_BYTES, Math.max(length, 2 * this.#bytes.length)));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    this.#bytes.set(fresh, this.#length);
    this.#length = length;
    return true;
  }

  #rest(): Buffer {
    return viewOf(this.#bytes.subarray(this.#taken, this.#length));
  }

  #takeBytes(length: number): Buffer {
    const message = Buffer.from(this.#rest().subarray(0, length));
    this.#taken += length;
    return message;
  }

  #takeAll(): Buffer {
    const message = this.#takeBytes(this.#length - this.#taken);
    this.leave();
    return message;
  }

  /** Nothing of it counts any more. */
  leave(): void {
    this.phase = 'over';
    this.#early = [];
    this.#waiting = [];
    this.#bytes = Buffer.alloc(0);
    this.#length = 0;
    this.#taken = 0;
  }
}

/** Whether the first bytes are an eyecatcher, as far as they have come. */
function mayBeMessage(bytes: Buffer): boolean {
  const found = bytes.subarray(0, EYECATCHER_BYTES);
  return Object.values(EYECATCHERS).some((eyecatcher) => eyecatcher.subarray(0, found.length).equals(found));
}
