/** Bytes as they come, in parts that end where a record of the stream does. */

export interface Format {
  readonly headerBytes: number;
  /** Of what follows the header. */
  bodyBytes(header: Buffer): number;
}

/** RFC 8446, 5.1: type u8, version u16, length u16. */
export const TLS_RECORD: Format = { headerBytes: 5, bodyBytes: (header) => header.readUInt16BE(3) };

/** RFC 9113, 4.1: length u24, type u8, flags u8, stream u32. */
export const HTTP2_FRAME: Format = { headerBytes: 9, bodyBytes: (header) => header.readUIntBE(0, 3) };

/** What a client of HTTP/2 says first (RFC 9113, 3.4), before any frame. */
export const HTTP2_PREFACE_BYTES = 24;

export class Records {
  readonly #format: Format;
  readonly #header: Buffer;
  #headerBytes = 0;
  /** Of the record that has begun. */
  #left: number;

  /** @param before bytes that come before the first record */
  constructor(format: Format, before = 0) {
    this.#format = format;
    this.#header = Buffer.alloc(format.headerBytes);
    this.#left = before;
  }

  /** The chunk in parts: each but the last ends with a record. */
  split(chunk: Buffer): Buffer[] {
    const parts: Buffer[] = [];
    let [start, at] = [0, 0];
    while (at < chunk.length) {
      if (this.#left === 0) {
        const length = Math.min(this.#format.headerBytes - this.#headerBytes, chunk.length - at);
        chunk.copy(this.#header, this.#headerBytes, at, at + length);
        this.#headerBytes += length;
        at += length;
        if (this.#headerBytes < this.#format.headerBytes) break;
        this.#headerBytes = 0;
        this.#left = this.#format.bodyBytes(this.#header);
      }
      const length = Math.min(this.#left, chunk.length - at);
      this.#left -= length;
      at += length;
      if (this.#left > 0) break;
      parts.push(chunk.subarray(start, at));
      start = at;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
    return parts;
  }
}
