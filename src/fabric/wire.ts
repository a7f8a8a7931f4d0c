/**
 * How a message of the fabric protocol becomes bytes, from the schema in protocol.ts. One message a packet:
 * `code u8, 0 u8, 0 u16`, then the fields in the order of the schema, little-endian, without padding.
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

export function encodeFields(schema: MessageSchema, values: Readonly<Record<string, unknown>>): Buffer {
  const parts: Buffer[] = [Buffer.from([schema.code, 0, 0, 0])];
  for (const [name, type] of Object.entries(schema.fields)) parts.push(ENCODE[type](values[name] as never));
  return Buffer.concat(parts);
}

function integer(lengthBytes: number): (value: number) => Buffer {
  return (value) => {
    const bytes = Buffer.alloc(lengthBytes);
    bytes.writeUIntLE(value, 0, lengthBytes);
    return bytes;
  };
}

const ENCODE: { readonly [Type in keyof FieldTypes]: (value: FieldTypes[Type]) => Buffer } = {
  u8: integer(1),
  u16: integer(2),
  u32: integer(4),
  u64: (value) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    return bytes;
  },
  gid: gidToBytes,
  endpoint: ({ address, port }) => Buffer.concat([addressBytes(address), integer(2)(port)]),
  text: (value) => {
    const bytes = Buffer.from(value);
    if (bytes.length > MAX_TEXT_BYTES) throw new RangeError(`a text of ${bytes.length} bytes`);
    return Buffer.concat([integer(2)(bytes.length), bytes]);
  },
};

/** Throws FabricWireError unless the bytes are exactly the fields of the schema. */
export function decodeFields(name: string, schema: MessageSchema, packet: Buffer): Record<string, unknown> {
  const values: Record<string, unknown> = { type: name };
  const reader = new Reader(packet, HEADER_BYTES);
  for (const [field, type] of Object.entries(schema.fields)) values[field] = DECODE[type](reader);
  if (!reader.atEnd) throw new FabricWireError(`${name} is longer than its fields`);
  return values;
}

class Reader {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  take(lengthBytes: number): Buffer {
    const end = this.#at + lengthBytes;
    if (end > this.#bytes.length) throw new FabricWireError('a message that is cut off');
    const part = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return part;
  }
}

const DECODE: { readonly [Type in keyof FieldTypes]: (reader: Reader) => FieldTypes[Type] } = {
  u8: (reader) => reader.take(1).readUInt8(),
  u16: (reader) => reader.take(2).readUInt16LE(),
  u32: (reader) => reader.take(4).readUInt32LE(),
  u64: (reader) => reader.take(8).readBigUInt64LE(),
  gid: (reader) => gidFromBytes(reader.take(GID_BYTES)),
  endpoint: (reader) => ({ address: addressText(reader.take(16)), port: reader.take(2).readUInt16LE() }),
  text: (reader) => reader.take(reader.take(2).readUInt16LE()).toString(),
};

const MAPPED_PREFIX = Buffer.from('00000000000000000000ffff', 'hex');

/** @param address IPv4 dotted or IPv6 as eight groups, the forms that os/socket-options gives. */
function addressBytes(address: string): Buffer {
  if (!address.includes(':')) return Buffer.concat([MAPPED_PREFIX, Buffer.from(address.split('.').map(Number))]);
  return Buffer.concat(address.split(':').map((group) => Buffer.from(group.padStart(4, '0'), 'hex')));
}

function addressText(bytes: Buffer): string {
  if (bytes.subarray(0, 12).equals(MAPPED_PREFIX)) return bytes.subarray(12).join('.');
  return Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16)).join(':');
}
