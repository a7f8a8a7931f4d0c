/** What the codecs of this folder share: copies, range checks of values to be written, halves of a GID, the residue. */
import { GID_BYTES, type Gid, gidFromBytes, gidToBytes } from '../../ism/index.ts';

/** The same bytes with Buffer's readers. */
export function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A message while decode makes it. Members are set one by one: spreading objects costs more than all the rest. */
export type Draft<Message> = { -readonly [Name in keyof Message]: Message[Name] };

/** A message outlives the buffer it was read from. */
export function copyOf(bytes: Buffer, offset: number, length: number): Buffer {
  return Buffer.from(bytes.subarray(offset, offset + length));
}

/** A copy, or undefined when all is zero: in this protocol that says "nothing here". */
export function copyUnlessZero(bytes: Buffer, offset: number, length: number): Buffer | undefined {
  return isZero(bytes, offset, length) ? undefined : copyOf(bytes, offset, length);
}

export function isZero(bytes: Buffer, offset: number, length: number): boolean {
  for (let at = offset; at < offset + length; at++) if (bytes[at] !== 0) return false;
  return true;
}

/** From the pool, where Buffer.alloc takes memory of its own each time. */
export function zeros(length: number): Buffer {
  return Buffer.allocUnsafe(length).fill(0);
}

/** Writes a field that has exactly `length` bytes; nothing when there is no value, for the target is zero. */
export function put(
  target: Buffer,
  offset: number,
  length: number,
  field: string,
  value: Uint8Array | undefined,
): void {
  if (value === undefined) return;
  if (value.length !== length) throw new RangeError(`${field} has ${length} bytes, not ${value.length}`);
  target.set(value, offset);
}

/** Two fields of four bits. */
export function nibbles(field: string, high: number, low: number): number {
  for (const value of [high, low]) {
    if (!Number.isInteger(value) || value < 0 || value > 0xf) throw new RangeError(`${field} has 4 bits: ${value}`);
  }
  return (high << 4) | low;
}

export function atMost(field: string, count: number, limit: number): void {
  if (count > limit) throw new RangeError(`${field}: at most ${limit}, not ${count}`);
}

export const GID_HALF_BYTES = 8;

/** @param secondAt null where a GID has 64 bits. */
export function gidOfHalves(bytes: Buffer, firstAt: number, secondAt: number | null): Gid {
  const gid = zeros(GID_BYTES);
  bytes.copy(gid, 0, firstAt, firstAt + GID_HALF_BYTES);
  if (secondAt !== null) bytes.copy(gid, GID_HALF_BYTES, secondAt, secondAt + GID_HALF_BYTES);
  return gidFromBytes(gid);
}

/** The GID as it stands in a place of 64 bits. Throws RangeError when that is not all of it. */
export function gid64(gid: Gid): Buffer {
  const bytes = gidToBytes(gid);
  const second = bytes.subarray(GID_HALF_BYTES);
  if (second.some((byte) => byte !== 0)) throw new RangeError(`only 64 bits fit here: ${gid}`);
  return bytes.subarray(0, GID_HALF_BYTES);
}

/** Text of a peer, fit for a terminal. */
export function printable(text: string): string {
  return text.replace(/[^ -~]/g, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

export function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

/** @param bytes 16 bytes. */
export function ipv6Text(bytes: Buffer): string {
  const groups = bytes.toString('hex').match(/..../g) ?? [];
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}

/**
 * What stood in a message beyond what its type can say: reserved bits, unusual eyecatchers, fields that don't count. It is
 * kept as the difference (XOR) to what encode writes without it, so that encode(decode(bytes)) gives the same bytes.
 */
export interface WithResidue {
  /** Only set by decode. A message made by hand has none; drop it when a decoded one is changed. */
  readonly residue?: Buffer;
}

/** @param written what encode makes of the message: another array, of the same length. */
export function withResidue<Message extends WithResidue>(message: Message, bytes: Buffer, written: Buffer): Message {
  if (written.equals(bytes)) return message;
  applyResidue(written, bytes);
  return { ...message, residue: written };
}

export function applyResidue(target: Buffer, residue: Uint8Array | undefined): Buffer {
  if (residue === undefined) return target;
  if (residue.length !== target.length) {
    throw new RangeError(`a residue of ${residue.length} bytes in a message of ${target.length}`);
  }
  for (const [i, byte] of residue.entries()) target[i] = (target[i] ?? 0) ^ byte;
  return target;
}
