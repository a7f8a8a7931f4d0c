import { checkLength, checkTrailer, type Header, LENGTH, TRAILER_BYTES } from './header.ts';
import { ClcWireError } from './wire-error.ts';

/** Walks the parts of a message in wire order. A part is claimed, which makes sure that it is there, and then read. */
export class Parts {
  readonly header: Header;
  readonly view: Buffer;
  #end = 0;

  constructor(header: Header, view: Buffer) {
    this.header = header;
    this.view = view;
  }

  /** The part of this length that follows; returns where it begins. */
  claim(length: number): number {
    const start = this.#end;
    this.#end += length;
    const least = this.#end + TRAILER_BYTES;
    if (this.view.length < least) throw this.wrong('length', LENGTH, `at least ${least}`, this.view.length);
    return start;
  }

  /** A byte that counts something. */
  count(field: string, offset: number, limit: number): number {
    const count = this.view.readUInt8(offset);
    if (count > limit) throw this.wrong(field, offset, `at most ${limit}`, count);
    return count;
  }

  /** After the last part: nothing but the trailer is left. */
  end(): void {
    checkLength(this.header, this.#end + TRAILER_BYTES);
    checkTrailer(this.view, this.header.type);
  }

  wrong(field: string, offset: number, expected: string | number, got: string | number): ClcWireError {
    return new ClcWireError(this.header.type, field, offset, expected, got);
  }
}
