/**
 * The CDC message (connection data control): what the kernel has at the head of a DMB, before the ring (net/smc/smc_cdc.h, struct
 * smcd_cdc_msg; RFC 7609 appendix A.4 has the one of SMC-R, which looks otherwise).
 *
 * Written by the one peer that may write into the DMB, after its data, and read by the owner. There is one, not a queue: it holds the
 * latest state, and overwrites what stood there before. Both ends use one byte order, and Linux swaps nothing: little-endian on the
 * loopback device of a PC, big-endian on s390.
 *
 *     offset | size | field          | values
 *     -------+------+----------------+------------------------------------------------------------------------------------------
 *          0 |    1 | type           | 0xfe; nobody looks at it
 *          1 |    7 | reserved       | 0
 *          8 |    2 | producer wrap  | how often the writer has gone round this ring, modulo 2^16
 *         10 |    4 | producer count | offset in this ring behind the last byte that was written
 *         14 |    2 | reserved       | 0
 *         16 |    2 | consumer wrap  | how often the writer has gone round its own ring, reading
 *         18 |    4 | consumer count | offset in its own ring of the next byte it will read
 *         22 |    1 | producer flags | 0x80 write blocked: tell me when you have read
 *            |      |                | 0x40 urgent data is coming, 0x20 urgent data: the byte before the producer cursor
 *            |      |                | 0x10 tell me your consumer cursor (Linux heeds it and never asks)
 *         23 |    1 | state flags    | 0x80 sending done, 0x40 closed, 0x20 closed abnormally; they stay
 *         24 |    8 | reserved       | 0
 *
 * Bytes 8 to 15 and 16 to 23 are read, and have to be stored, as one word of 64 bits each: the counts are not aligned.
 */
import { FLAG } from '../head.ts';
import { type Cursor, show } from './cursor.ts';

export const CDC_BYTES = 32;
export const PRODUCER_AT = 8;
export const CONSUMER_AT = 16;
const FLAGS_AT = 22;
export const TYPE_CDC = 0xfe;

export type ByteOrder = 'LE' | 'BE';

/** Producer flags in the upper byte, state flags in the lower. */
export const CDC_FLAG = {
  ...FLAG,
  /** Urgent data is coming. */
  URGENT_PENDING: 0x4000,
  /** The byte before the producer cursor is urgent. */
  URGENT_PRESENT: 0x2000,
  /** The writer wants to know our consumer cursor. */
  UPDATE_REQUESTED: 0x1000,
} as const;

const STATE_FLAGS = 0xff;

export interface CdcMessage {
  /** In the ring of whoever receives this. */
  readonly producer: Cursor;
  /** In the ring of whoever sent this. */
  readonly consumer: Cursor;
  /** CDC_FLAG. */
  readonly flags: number;
}

/** @param into at least 32 bytes */
export function encodeCdc(message: CdcMessage, order: ByteOrder, into: Buffer = Buffer.alloc(CDC_BYTES)): Buffer {
  into[0] = TYPE_CDC;
  writeCursor(into, PRODUCER_AT, message.producer, order);
  writeCursor(into, CONSUMER_AT, message.consumer, order);
  into.writeUInt16BE(message.flags, FLAGS_AT); // two bytes, whatever the order
  return into;
}

/** Any 32 bytes are a message; whether its cursors lie in their rings is the engine's to say. */
export function decodeCdc(bytes: Buffer, order: ByteOrder): CdcMessage {
  return {
    producer: readCursor(bytes, PRODUCER_AT, order),
    consumer: readCursor(bytes, CONSUMER_AT, order),
    flags: bytes.readUInt16BE(FLAGS_AT),
  };
}

function writeCursor(bytes: Buffer, at: number, { wrap, count }: Cursor, order: ByteOrder): void {
  if (order === 'LE') {
    bytes.writeUInt16LE(wrap, at);
    bytes.writeUInt32LE(count, at + 2);
  } else {
    bytes.writeUInt16BE(wrap, at);
    bytes.writeUInt32BE(count, at + 2);
  }
}

function readCursor(bytes: Buffer, at: number, order: ByteOrder): Cursor {
  return order === 'LE'
    ? { wrap: bytes.readUInt16LE(at), count: bytes.readUInt32LE(at + 2) }
    : { wrap: bytes.readUInt16BE(at), count: bytes.readUInt32BE(at + 2) };
}

/** One line for people. */
export function describeCdc({ producer, consumer, flags }: CdcMessage): string {
  const names = Object.entries(CDC_FLAG).filter(([, bit]) => flags & bit);
  const of = (isState: boolean) =>
    names
      .filter(([, bit]) => bit <= STATE_FLAGS === isState)
      .map(([name]) => name)
      .join('+') || '-';
  return `prod ${show(producer)} cons ${show(consumer)} flags ${of(false)} state ${of(true)}`;
}
