/**
 * What bytes of a ring are copied to for the program: memory of its own, as what comes from TCP has it, since programs take `chunk.buffer`,
 * and post it to threads; or where the program wants them.
 */
export function chunkOf(length: number, into: Uint8Array | null): Buffer {
  return into === null ? Buffer.allocUnsafeSlow(length) : Buffer.from(into.buffer, into.byteOffset, length);
}
