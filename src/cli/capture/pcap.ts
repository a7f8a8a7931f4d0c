/**
 * pcap, the classic format of tcpdump. Byte order of the machine that captured; the magic tells.
 *
 * Source: draft-ietf-opsawg-pcap.
 *
 *     offset | size | field           | values
 *     file header
 *     0      | 4    | magic           | a1b2c3d4: microseconds; a1b23c4d: nanoseconds
 *     4      | 4    | version         | 2.4
 *     8      | 8    | reserved        |
 *     16     | 4    | snaplen         |
 *     20     | 4    | link type       | bits 15-0; above them the length of a check sequence
 *     packet
 *     0      | 4    | seconds         | since 1970
 *     4      | 4    | fraction        | micro- or nanoseconds
 *     8      | 4    | captured length |
 *     12     | 4    | length          | on the wire
 *     16     | -    | bytes           | captured length
 */
import { CaptureError, type Format, MAX_PACKET_BYTES, numbersOf } from './format.ts';

const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;
const LINK_TYPE = 20;
export const PCAP_HEADER_BYTES = 24;
const FRACTION = 4;
const CAPTURED = 8;
const PACKET_BYTES = 16;

export function isPcap(head: Buffer): boolean {
  return [head.readUInt32LE(0), head.readUInt32BE(0)].some(isMagic);
}

function isMagic(value: number): boolean {
  return value === MAGIC_MICROSECONDS || value === MAGIC_NANOSECONDS;
}

/** @param header the first 24 bytes, with a magic of pcap */
export function pcapFormat(header: Buffer): Format {
  const { u32 } = numbersOf(isMagic(header.readUInt32LE(0)));
  const fractionNs = u32(header, 0) === MAGIC_NANOSECONDS ? 1n : 1000n;
  const linkType = u32(header, LINK_TYPE) & 0xffff;
  return {
    step(bytes, at) {
      if (bytes.length < at + PACKET_BYTES) return null;
      const captured = u32(bytes, at + CAPTURED);
      if (captured > MAX_PACKET_BYTES) throw new CaptureError(`a packet of ${captured} bytes`);
      const start = at + PACKET_BYTES;
      const next = start + captured;
      if (bytes.length < next) return null;
      const timeNs = BigInt(u32(bytes, at)) * 1_000_000_000n + BigInt(u32(bytes, at + FRACTION)) * fractionNs;
      return { packet: { timeNs, linkType, bytes: bytes.subarray(start, next) }, next };
    },
  };
}
