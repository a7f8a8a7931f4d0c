/**
 * What two host devices say to each other on their pair channel (an AF_UNIX SOCK_SEQPACKET socket, made by the fabric).
 *
 * A packet holds one record or more; a record is `type u8, 0 u8, length u16`, then a body of that length. Little-endian, like
 * the machines this runs on. Records that bring a descriptor stand alone in their packet, with exactly one; others bring none.
 *
 *     type             | body
 *     -----------------+----------------------------------------------------------------------------------------------
 *     1 OPEN      1 fd | version u16, access u8 (0 mapped, 1 store), 0 u8, capacity u32, length u32 of the first piece
 *     2 PIECE     1 fd | piece u16, 0 u16, length u32
 *     3 DMB            | token u64, index u16, generation u16, piece u16, 0 u16, offset u32, length u32
 *     4 UNREGISTERED   | token u64
 *     5 DETACHED       | token u64
 *     6 EVENT          | code u32, 0 u32, data u64
 *     7 MESSAGE        | bytes of the clients (CLC messages)
 */
import { IsmError, parseToken, type Token } from '../../ism/index.ts';

export const PAIR_VERSION = 2;

export type PairMessage =
  | {
      readonly type: 'OPEN';
      readonly version: number;
      readonly access: 'mapped' | 'store';
      readonly capacity: number;
      readonly lengthBytes: number;
    }
  | { readonly type: 'PIECE'; readonly piece: number; readonly lengthBytes: number }
  | {
      readonly type: 'DMB';
      readonly token: Token;
      readonly index: number;
      readonly generation: number;
      readonly piece: number;
      readonly offset: number;
      readonly lengthBytes: number;
    }
  | { readonly type: 'UNREGISTERED'; readonly token: Token }
  | { readonly type: 'DETACHED'; readonly token: Token }
  | { readonly type: 'EVENT'; readonly code: number; readonly data: bigint }
  | { readonly type: 'MESSAGE'; readonly bytes: Buffer };

type PairMessageType = PairMessage['type'];

const TYPES: Readonly<Record<PairMessageType, { code: number; bodyBytes: number | null; descriptors: 0 | 1 }>> = {
  OPEN: { code: 1, bodyBytes: 12, descriptors: 1 },
  PIECE: { code: 2, bodyBytes: 8, descriptors: 1 },
  DMB: { code: 3, bodyBytes: 24, descriptors: 0 },
  UNREGISTERED: { code: 4, bodyBytes: 8, descriptors: 0 },
  DETACHED: { code: 5, bodyBytes: 8, descriptors: 0 },
  EVENT: { code: 6, bodyBytes: 16, descriptors: 0 },
  MESSAGE: { code: 7, bodyBytes: null, descriptors: 0 },
};
const BY_CODE = new Map(
  Object.entries(TYPES).map(([type, row]) => [row.code, { type: type as PairMessageType, ...row }]),
);

const RECORD_HEADER_BYTES = 4;

export function takesDescriptor(message: PairMessage): boolean {
  return TYPES[message.type].descriptors === 1;
}

/** One record. */
export function encodePairMessage(message: PairMessage): Buffer {
  const { code, bodyBytes } = TYPES[message.type];
  const length = message.type === 'MESSAGE' ? message.bytes.length : (bodyBytes ?? 0);
  // From the pool, where Buffer.alloc takes memory of its own each time.
  const record = Buffer.allocUnsafe(RECORD_HEADER_BYTES + length).fill(0);
  record.writeUInt8(code, 0);
  record.writeUInt16LE(length, 2);
  const body = record.subarray(RECORD_HEADER_BYTES);
  switch (message.type) {
    case 'OPEN':
      body.writeUInt16LE(message.version, 0);
      body.writeUInt8(message.access === 'store' ? 1 : 0, 2);
      body.writeUInt32LE(message.capacity, 4);
      body.writeUInt32LE(message.lengthBytes, 8);
      break;
    case 'PIECE':
      body.writeUInt16LE(message.piece, 0);
      body.writeUInt32LE(message.lengthBytes, 4);
      break;
    case 'DMB':
      body.writeBigUInt64LE(message.token, 0);
      body.writeUInt16LE(message.index, 8);
      body.writeUInt16LE(message.generation, 10);
      body.writeUInt16LE(message.piece, 12);
      body.writeUInt32LE(message.offset, 16);
      body.writeUInt32LE(message.lengthBytes, 20);
      break;
    case 'UNREGISTERED':
    case 'DETACHED':
      body.writeBigUInt64LE(message.token, 0);
      break;
    case 'EVENT':
      body.writeUInt32LE(message.code, 0);
      body.writeBigUInt64LE(message.data, 8);
      break;
    case 'MESSAGE':
      body.set(message.bytes);
      break;
    default:
      message satisfies never;
  }
  return record;
}

/** All records of a packet. Throws IsmError PROTOCOL for anything that is not exactly that; the number of descriptors comes first. */
export function decodePairPacket(packet: Buffer, descriptors: number): PairMessage[] {
  const first = BY_CODE.get(packet[0] ?? 0);
  if (first === undefined) throw malformed(`record of type ${packet[0]}`);
  if (first.descriptors !== descriptors) throw malformed(`${first.type} with ${descriptors} descriptors`);
  const messages: PairMessage[] = [];
  for (let at = 0; at < packet.length; ) {
    if (at + RECORD_HEADER_BYTES > packet.length) throw malformed('a record that is cut off');
    const row = BY_CODE.get(packet.readUInt8(at));
    const length = packet.readUInt16LE(at + 2);
    if (row === undefined) throw malformed(`record of type ${packet[at]}`);
    if (row.descriptors === 1 && (messages.length > 0 || at + RECORD_HEADER_BYTES + length !== packet.length)) {
      throw malformed(`${row.type} does not stand alone`);
    }
    if (row.bodyBytes !== null && row.bodyBytes !== length) throw malformed(`${row.type} of ${length} bytes`);
    if (at + RECORD_HEADER_BYTES + length > packet.length) throw malformed('a record that is cut off');
    messages.push(decodeBody(row.type, packet.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + length)));
    at += RECORD_HEADER_BYTES + length;
  }
  return messages;
}

function decodeBody(type: PairMessageType, body: Buffer): PairMessage {
  switch (type) {
    case 'OPEN':
      return {
        type,
        version: body.readUInt16LE(0),
        access: body.readUInt8(2) === 0 ? 'mapped' : 'store',
        capacity: body.readUInt32LE(4),
        lengthBytes: body.readUInt32LE(8),
      };
    case 'PIECE':
      return { type, piece: body.readUInt16LE(0), lengthBytes: body.readUInt32LE(4) };
    case 'DMB':
      return {
        type,
        token: parseToken(body.readBigUInt64LE(0)),
        index: body.readUInt16LE(8),
        generation: body.readUInt16LE(10),
        piece: body.readUInt16LE(12),
        offset: body.readUInt32LE(16),
        lengthBytes: body.readUInt32LE(20),
      };
    case 'UNREGISTERED':
    case 'DETACHED':
      return { type, token: parseToken(body.readBigUInt64LE(0)) };
    case 'EVENT':
      return { type, code: body.readUInt32LE(0), data: body.readBigUInt64LE(8) };
    case 'MESSAGE':
      return { type, bytes: Buffer.from(body) };
    default:
      return type satisfies never;
  }
}

function malformed(what: string): IsmError {
  return new IsmError('ERR_ISTHMUS_PROTOCOL', 'peer', `pair channel: ${what}`);
}
