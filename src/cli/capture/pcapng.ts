/**
 * pcapng, the format of Wireshark: sections of blocks. The byte order is that of the section. Only what holds packets is read;
 * other blocks are stepped over.
 *
 * Source: draft-ietf-opsawg-pcapng.
 *
 *     offset | size | field           | values
 *     block: a multiple of 4 bytes
 *     0      | 4    | type            | 0a0d0d0a section, 1 interface, 2 packet (old), 3 simple packet, 6 enhanced packet
 *     4      | 4    | length          | of all of it
 *     8      | -    | body            |
 *     len-4  | 4    | length          | again
 *     section body
 *     0      | 4    | magic           | 1a2b3c4d in the byte order of the section
 *     interface body
 *     0      | 2    | link type       |
 *     4      | 4    | snaplen         | 0: no limit
 *     8      | -    | options         | code 2, length 2, value padded to 4; 9: resolution of time, 14: its offset in seconds
 *     enhanced packet body
 *     0      | 4    | interface       | the number of its block in this section; old: 2, then 2 drops
 *     4      | 8    | time            | upper half first, in units of the resolution: 10^-n, or 2^-n with bit 7; else microseconds
 *     12     | 4    | captured length |
 *     16     | 4    | length          |
 *     20     | -    | bytes           |
 *     simple packet body: of interface 0
 *     0      | 4    | length          |
 *     4      | -    | bytes           | up to the snaplen
 */
import { CaptureError, type Format, MAX_PACKET_BYTES, numbersOf, type Packet, type Step } from './format.ts';

const SECTION = 0x0a0d0d0a;
const INTERFACE = 1;
const OLD_PACKET = 2;
const SIMPLE_PACKET = 3;
const ENHANCED_PACKET = 6;
const MAGIC = 0x1a2b3c4d;
const BODY = 8;
const TRAILER_BYTES = 4;
const SMALLEST_BLOCK_BYTES = BODY + TRAILER_BYTES;
/** Of a block that is looked into: a packet and options. */
const MAX_BLOCK_BYTES = 2 * MAX_PACKET_BYTES;
const MAX_INTERFACES = 65_536;
const OPTION_RESOLUTION = 9;
const OPTION_TIME_OFFSET = 14;

interface Interface {
  readonly linkType: number;
  readonly snaplen: number;
  readonly unitsPerSecond: bigint;
  readonly offsetSeconds: bigint;
}

export function isPcapng(head: Buffer): boolean {
  return head.readUInt32BE(0) === SECTION;
}

export class PcapngFormat implements Format {
  #numbers = numbersOf(true);
  #interfaces: Interface[] = [];

  step(bytes: Buffer, at: number): Step | null {
    if (bytes.length < at + SMALLEST_BLOCK_BYTES) return null;
    const isSection = bytes.readUInt32BE(at) === SECTION;
    if (isSection) this.#beginSection(bytes.readUInt32LE(at + BODY), bytes.readUInt32BE(at + BODY));
    const { u32 } = this.#numbers;
    const [type, length] = [u32(bytes, at), u32(bytes, at + 4)];
    if (length < SMALLEST_BLOCK_BYTES || length % 4 !== 0) throw new CaptureError(`a block of ${length} bytes`);
    const next = at + length;
    if (!isSection && ![INTERFACE, OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET].includes(type)) {
      return { packet: null, next };
    }
    if (length > MAX_BLOCK_BYTES) throw new CaptureError(`a block of ${length} bytes`);
    if (bytes.length < next) return null;
    if (u32(bytes, next - TRAILER_BYTES) !== length) throw new CaptureError('a block whose two lengths differ');
    const body = bytes.subarray(at + BODY, next - TRAILER_BYTES);
    if (type === INTERFACE) this.#addInterface(body);
    return { packet: isSection || type === INTERFACE ? null : this.#packet(type, body), next };
  }

  #beginSection(littleMagic: number, bigMagic: number): void {
    if (littleMagic !== MAGIC && bigMagic !== MAGIC) throw new CaptureError('a section without a byte order');
    this.#numbers = numbersOf(littleMagic === MAGIC);
    this.#interfaces = [];
  }

  #addInterface(body: Buffer): void {
    const { u16, u32, i64 } = this.#numbers;
    if (body.length < 8) throw new CaptureError('an interface block that is too short');
    if (this.#interfaces.length === MAX_INTERFACES) throw new CaptureError('too many interfaces');
    let unitsPerSecond = 1_000_000n;
    let offsetSeconds = 0n;
    for (let at = 8; at + 4 <= body.length; ) {
      const [code, length] = [u16(body, at), u16(body, at + 2)];
      const value = body.subarray(at + 4, at + 4 + length);
      if (code === OPTION_RESOLUTION && value.length === 1) unitsPerSecond = unitsOf(value.readUInt8());
      if (code === OPTION_TIME_OFFSET && value.length === 8) offsetSeconds = i64(value, 0);
      at += 4 + length + ((4 - (length % 4)) % 4);
    }
    const snaplen = u32(body, 4);
    this.#interfaces.push({ linkType: u16(body, 0), snaplen, unitsPerSecond, offsetSeconds });
  }

  #packet(type: number, body: Buffer): Packet {
    const { u16, u32 } = this.#numbers;
    const headBytes = type === SIMPLE_PACKET ? 4 : 20;
    if (body.length < headBytes) throw new CaptureError('a packet block that is too short');
    const number = type === SIMPLE_PACKET ? 0 : type === OLD_PACKET ? u16(body, 0) : u32(body, 0);
    const from = this.#interfaces[number];
    if (from === undefined) throw new CaptureError(`a packet of interface ${number}, which is not there`);
    const { linkType, snaplen, unitsPerSecond, offsetSeconds } = from;
    const room = body.length - headBytes;
    if (type === SIMPLE_PACKET) {
      const captured = Math.min(u32(body, 0), snaplen || MAX_PACKET_BYTES, room);
      return { timeNs: null, linkType, bytes: body.subarray(headBytes, headBytes + captured) };
    }
    const captured = u32(body, 12);
    if (captured > room) throw new CaptureError(`a packet of ${captured} bytes in a block for ${room}`);
    const units = (BigInt(u32(body, 4)) << 32n) | BigInt(u32(body, 8));
    const timeNs = offsetSeconds * 1_000_000_000n + (units * 1_000_000_000n) / unitsPerSecond;
    return { timeNs, linkType, bytes: body.subarray(headBytes, headBytes + captured) };
  }
}

function unitsOf(resolution: number): bigint {
  const exponent = BigInt(resolution & 0x7f);
  return resolution & 0x80 ? 2n ** exponent : 10n ** exponent;
}
