import { IsthmusError } from '../../ism/index.ts';

/** A file or stream that is no capture, or is none any more from some byte on. */
export class CaptureError extends IsthmusError {
  constructor(message: string) {
    super('ERR_ISTHMUS_CAPTURE', 'peer', message);
    this.name = 'CaptureError';
  }
}

/** As it was captured. */
export interface Packet {
  /** Since 1970; null where the format has no time. */
  readonly timeNs: bigint | null;
  /** LINKTYPE_ of tcpdump.org. */
  readonly linkType: number;
  /** As much as was captured. Only valid until the next packet is read. */
  readonly bytes: Buffer;
}

/** A step through a capture: what it brought, and where the next begins, which may be behind all that has arrived. */
export interface Step {
  readonly packet: Packet | null;
  readonly next: number;
}

/** How a kind of capture is read. */
export interface Format {
  /** @param at where something begins. Null: more bytes are needed. Throws CaptureError. */
  step(bytes: Buffer, at: number): Step | null;
}

/** What libpcap takes at most; more is no packet but garbage. */
export const MAX_PACKET_BYTES = 262_144;

/** Readers of numbers in the byte order of whoever captured. */
export interface Numbers {
  u16(bytes: Buffer, at: number): number;
  u32(bytes: Buffer, at: number): number;
  i64(bytes: Buffer, at: number): bigint;
}

const LITTLE_ENDIAN: Numbers = {
  u16: (bytes, at) => bytes.readUInt16LE(at),
  u32: (bytes, at) => bytes.readUInt32LE(at),
  i64: (bytes, at) => bytes.readBigInt64LE(at),
};
const BIG_ENDIAN: Numbers = {
  u16: (bytes, at) => bytes.readUInt16BE(at),
  u32: (bytes, at) => bytes.readUInt32BE(at),
  i64: (bytes, at) => bytes.readBigInt64BE(at),
};

export const numbersOf = (littleEndian: boolean): Numbers => (littleEndian ? LITTLE_ENDIAN : BIG_ENDIAN);
