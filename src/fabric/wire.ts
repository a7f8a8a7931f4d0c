/**
 * How a message of the fabric protocol becomes bytes, from the schema in protocol.ts: `code u8, 0 u8, 0 u16`, then the fields in the
 * order of the schema, little-endian, without padding.
 */
import { GID_BYTES, type Gid, gidFromBytes, gidToBytes, IsthmusError } from '../ism/index.ts';

/**
 * Kinds of fields: integers; a GID (16 bytes); an endpoint (16 bytes of IPv6 address, IPv4 as ::ffff:a.b.c.d, and a port u16); a
 * text (length u16, then UTF-8).
 */
export interface FieldTypes {
  u8: number;
  u16: number;
  u32: number;
  u64: bigint;
  gid: Gid;
  endpoint: Endpoint;
  text: string;
}

export interface Endpoint {
  /** IPv4 dotted, IPv6 as eight groups of hex digits. */
  readonly address: string;
  readonly port: number;
}

export interface MessageSchema {
  readonly code: number;
  readonly from: 'partition' | 'fabric';
  /** Version of the protocol that brought it; 1 where nothing is said. */
  readonly since?: number;
  /** Descriptors that come with it; checked before the body is looked at. */
  readonly descriptors: number;
  readonly fields: Readonly<Record<string, keyof FieldTypes>>;
  readonly text: string;
}

export type MessageOf<Name, Schema extends MessageSchema> = { readonly type: Name } & {
  readonly [Field in keyof Schema['fields']]: FieldTypes[Schema['fields'][Field]];
};

export class FabricWireError extends IsthmusError {
  constructor(message: string) {
    super('ERR_ISTHMUS_FABRIC_WIRE', 'peer', message);
    this.name = 'FabricWireError';
  }
}

export const HEADER_BYTES = 4;
export const MAX_TEXT_BYTES = 32 * 1024;
const MAPPED_PREFIX = Buffer.from('00000000000000000000ffff', 'hex');

export function encodeFields(schema: MessageSchema, values: Readonly<Record<string, unknown>>): Buffer {
  page.writeUInt32LE(schema.code, 0);
  let at = HEADER_BYTES;
  for (const [name, type] of Object.entries(schema.fields)) at = ENCODE[type](at, values[name] as never);
  return Buffer.from(page.subarray(0, at));
}

/** Where a message is written: the longest has two texts. */
const page = Buffer.alloc(3 * MAX_TEXT_BYTES);

/** Writes a value at an offset of the page; gives the offset behind it. */
const ENCODE: { readonly [Type in keyof FieldTypes]: (at: number, value: FieldTypes[Type]) => number } = {
  u8: (at, value) => page.writeUInt8(value, at),
  u16: (at, value) => page.writeUInt16LE(value, at),
  u32: (at, value) => page.writeUInt32LE(value, at),
  u64: (at, value) => page.writeBigUInt64LE(value, at),
  gid: (at, value) => at + gidToBytes(value).copy(page, at),
  endpoint: (at, { address, port }) => page.writeUInt16LE(port, writeAddress(at, address)),
  text: (at, value) => {
    const length = Buffer.byteLength(value);
    if (length > MAX_TEXT_BYTES) throw new RangeError(`a text of ${length} bytes`);
    return page.writeUInt16LE(length, at) + page.write(value, at + 2);
  },
};

/** @param address IPv4 dotted or IPv6 as eight groups, the forms that os/socket-options gives. */
function writeAddress(at: number, address: string): number {
  if (address.includes(':')) {
    for (const group of address.split(':')) at = page.writeUInt16BE(Number.parseInt(group, 16), at);
    return at;
  }
  at += MAPPED_PREFIX.copy(page, at);
  for (const part of address.split('.')) at = page.writeUInt8(Number(part), at);
  return at;
}

/** Throws FabricWireError when a field is cut off. */
export function decodeFields(name: string, schema: MessageSchema, reader: Reader): Record<string, unknown> {
  const values: Record<string, unknown> = { type: name };
  for (const [field, type] of Object.entries(schema.fields)) values[field] = DECODE[type](reader);
  return values;
}

export class Reader {
  readonly bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#at === this.bytes.length;
  }

  /** The offset of so many bytes, which are taken. */
  skip(lengthBytes: number): number {
    const at = this.#at;
    if (at + lengthBytes > this.bytes.length) throw new FabricWireError('a message that is cut off');
    this.#at = at + lengthBytes;
    return at;
  }
}

const DECODE: { readonly [Type in keyof FieldTypes]: (reader: Reader) => FieldTypes[Type] } = {
  u8: (reader) => reader.bytes.readUInt8(reader.skip(1)),
  u16: (reader) => reader.bytes.readUInt16LE(reader.skip(2)),
  u32: (reader) => reader.bytes.readUInt32LE(reader.skip(4)),
  u64: (reader) => reader.bytes.readBigUInt64LE(reader.skip(8)),
  gid: (reader) => {
    const at = reader.skip(GID_BYTES);
    return gidFromBytes(reader.bytes.subarray(at, at + GID_BYTES));
  },
  endpoint: (reader) => ({ address: addressText(reader.bytes, reader.skip(16)), port: DECODE.u16(reader) }),
  text: (reader) => {
    const length = DECODE.u16(reader);
    const at = reader.skip(length);
    return reader.bytes.toString('utf8', at, at + length);
  },
};

function addressText(bytes: Buffer, at: number): string {
  if (bytes.compare(MAPPED_PREFIX, 0, MAPPED_PREFIX.length, at, at + MAPPED_PREFIX.length) === 0)
    return `${bytes[at + 12]}.${bytes[at + 13]}.${bytes[at + 14]}.${bytes[at + 15]}`;
  return Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(at + 2 * i).toString(16)).join(':');
}
