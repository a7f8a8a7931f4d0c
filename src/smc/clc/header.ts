/**
 * What all CLC messages begin and end with. CLC (connection layer control) is the handshake of SMC, in the TCP stream
 * before any payload: the client sends a Proposal, the server an Accept, the client a Confirm; each can send a Decline
 * instead, which leaves both on TCP. What stands behind a message belongs to the next one or, after a Decline, to the
 * application: read 8 bytes, ask `clcLength`, read the rest.
 *
 * Source: RFC 7609 appendix A.2, net/smc/smc_clc.h. Big-endian; bit 7 of a byte is the most significant.
 *
 *     offset | size | field      | values
 *     0      | 4    | eyecatcher | EBCDIC "SMCR" e2d4c3d9 or "SMCD" e2d4c3c4; receivers take either in any message
 *     4      | 1    | type       | 1 Proposal, 2 Accept, 3 Confirm, 4 Decline
 *     5      | 2    | length     | of the message, header and trailer included
 *     7      | 1    | flags      | bits 7-4 version, not 0; bits 3-2 typev2, bits 1-0 typev1: see the messages
 *     len-4  | 4    | trailer    | eyecatcher again
 */
import { nibbles, viewOf, zeros } from './bytes.ts';
import { type ClcType, ClcWireError } from './wire-error.ts';

const TYPE = 4;
export const LENGTH = 5;
export const FLAGS = 7;
export const HEADER_BYTES = 8;
export const TRAILER_BYTES = 4;

export const EYECATCHERS = { SMCR: Buffer.from('e2d4c3d9', 'hex'), SMCD: Buffer.from('e2d4c3c4', 'hex') } as const;
export type Eyecatcher = keyof typeof EYECATCHERS;
const SMCR = EYECATCHERS.SMCR.readUInt32BE();
const SMCD = EYECATCHERS.SMCD.readUInt32BE();

/** The type byte is the index. */
export const CLC_TYPES: readonly (ClcType | undefined)[] = [undefined, 'proposal', 'accept', 'confirm', 'decline'];

/** Less can't be one, so there is no use in waiting for more bytes. */
const SHORTEST_BYTES = { proposal: 52, accept: 48, confirm: 48, decline: 28 } as const;

/** Versions after 2 don't exist; peers who name one are answered as if they had said 2, as Linux does. */
export type ClcVersion = 1 | 2;

export interface Header {
  readonly type: ClcType;
  readonly length: number;
  readonly version: ClcVersion;
  /** Two bits each. */
  readonly typev1: number;
  readonly typev2: number;
}

/** @param bytes the first 8 bytes of a message, or more. */
export function decodeHeader(bytes: Uint8Array): Header {
  if (bytes.length < HEADER_BYTES) throw new ClcWireError('header', 'header', 0, `${HEADER_BYTES} bytes`, bytes.length);
  const view = viewOf(bytes);
  checkEyecatcher(view, 0, 'header', 'eyecatcher');
  const typeByte = view.readUInt8(TYPE);
  const type = CLC_TYPES[typeByte];
  if (type === undefined) throw new ClcWireError('header', 'type', TYPE, '1 to 4', typeByte);
  const flags = view.readUInt8(FLAGS);
  const version = flags >> 4;
  if (version === 0) throw new ClcWireError(type, 'version', FLAGS, 'at least 1', version);
  const length = view.readUInt16BE(LENGTH);
  const shortest = SHORTEST_BYTES[type];
  if (length < shortest) throw new ClcWireError(type, 'length', LENGTH, `at least ${shortest}`, length);
  return { type, length, version: version === 1 ? 1 : 2, typev1: flags & 3, typev2: (flags >> 2) & 3 };
}

/** How long the message is that begins so. Throws ClcWireError when none does. */
export function clcLength(first8bytes: Uint8Array): number {
  return decodeHeader(first8bytes).length;
}

/** The header of exactly one message, which must be of one of these types. */
export function openMessage(bytes: Uint8Array, ...types: ClcType[]): { header: Header; view: Buffer } {
  const header = decodeHeader(bytes);
  if (!types.includes(header.type)) {
    throw new ClcWireError(header.type, 'type', TYPE, types.join(' or '), header.type);
  }
  checkLength(header, bytes.length);
  return { header, view: viewOf(bytes) };
}

/** @param expected what the fields of the message add up to. */
export function checkLength(header: Header, expected: number): void {
  if (header.length !== expected) throw new ClcWireError(header.type, 'length', LENGTH, expected, header.length);
}

export function checkTrailer(view: Buffer, type: ClcType): void {
  checkEyecatcher(view, view.length - TRAILER_BYTES, type, 'trailer');
}

function checkEyecatcher(view: Buffer, offset: number, type: ClcType | 'header', field: string): void {
  const found = view.readUInt32BE(offset);
  if (found === SMCR || found === SMCD) return;
  throw new ClcWireError(type, field, offset, 'SMCR or SMCD in EBCDIC', found.toString(16).padStart(8, '0'));
}

export function eyecatcherName(bytes: Buffer): Eyecatcher | undefined {
  if (bytes.equals(EYECATCHERS.SMCR)) return 'SMCR';
  return bytes.equals(EYECATCHERS.SMCD) ? 'SMCD' : undefined;
}

/** A message with header and trailer, zero between them. */
export function newMessage(eyecatcher: Eyecatcher, { type, length, version, typev1, typev2 }: Header): Buffer {
  const message = zeros(length);
  message.set(EYECATCHERS[eyecatcher], 0);
  message.writeUInt8(CLC_TYPES.indexOf(type), TYPE);
  message.writeUInt16BE(length, LENGTH);
  message.writeUInt8(nibbles('version', version, (typev2 << 2) | typev1), FLAGS);
  message.set(EYECATCHERS[eyecatcher], length - TRAILER_BYTES);
  return message;
}
