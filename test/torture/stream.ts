/**
 * What goes over a connection: bytes that are a function of the connection's id, the direction and the offset, so that a byte that is
 * lost, doubled, out of order or somebody else's does not look like the one that is expected.
 *
 *     offset | size | field
 *     0      | 3    | "ISM"
 *     3      | 1    | who sends: 0 client, 1 server
 *     4      | 4    | id (u32, big-endian)
 *     8      | ...  | bytesAt(salt, offset)
 */
import { bytesAt } from '../integration/life.ts';
import type { Side } from './plan.ts';

export const HEADER_BYTES = 8;
const MAGIC = 0x49534d00;

export function streamBytes(id: number, sender: Side, from: number, length: number): Buffer {
  const bytes = bytesAt(2 * id + codeOf(sender), from, length);
  if (from < HEADER_BYTES) header(id, sender).copy(bytes, 0, from);
  return bytes;
}

/** The id that a client's stream begins with; null when it is no such stream. */
export function idOf(bytes: Buffer): number | null {
  const id = bytes.readUInt32BE(4);
  return bytes.readUInt32BE(0) === MAGIC ? id : null;
}

function header(id: number, sender: Side): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.writeUInt32BE(MAGIC + codeOf(sender), 0);
  bytes.writeUInt32BE(id, 4);
  return bytes;
}

const codeOf = (side: Side): number => (side === 'client' ? 0 : 1);
