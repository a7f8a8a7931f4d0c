/** For the tests of this folder: captures and packets made by hand, and what is found in them. Not a test itself. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Listener, Outcome, Said } from './connection.ts';
import { Connections } from './connections.ts';
import type { Packet } from './format.ts';
import { segmentOf } from './packet.ts';
import { CaptureReader } from './reader.ts';

/** Tests run from the root of the repository. */
const FOLDER = join(process.cwd(), 'test/vectors/pcap');

/** Captures of the Linux kernel by name, such as 01-v2-first-contact. */
export const captures: ReadonlyMap<string, Buffer> = new Map(
  readdirSync(FOLDER)
    .filter((file) => file.endsWith('.pcap'))
    .sort()
    .map((file) => [file.replace('.pcap', ''), readFileSync(join(FOLDER, file))]),
);

export function capture(name: string): Buffer {
  const found = captures.get(name);
  if (found === undefined) throw new Error(`no capture ${name}`);
  return found;
}

export interface Kept extends Packet {
  readonly bytes: Buffer;
}

/** @param chunks a capture in pieces. Throws CaptureError, as the reader does. */
export function packetsOf(...chunks: readonly Buffer[]): Kept[] {
  const reader = new CaptureReader();
  const packets: Kept[] = [];
  for (const chunk of chunks) {
    for (const { timeNs, linkType, bytes } of reader.push(chunk)) {
      packets.push({ timeNs, linkType, bytes: Buffer.from(bytes) });
    }
  }
  reader.end();
  return packets;
}

export interface Found {
  readonly said: readonly Said[];
  readonly outcomes: readonly Outcome[];
  readonly connections: Connections;
}

/** @param limits of Connections, to be smaller than usual */
export function find(
  packets: readonly Packet[],
  limits?: { readonly connections: number; readonly heldBytes: number },
): Found {
  const said: Said[] = [];
  const outcomes: Outcome[] = [];
  const listener: Listener = { said: (message) => said.push(message), outcome: (outcome) => outcomes.push(outcome) };
  const connections = new Connections(listener, limits);
  for (const { timeNs, linkType, bytes } of packets) {
    const segment = segmentOf(linkType, bytes);
    if (typeof segment !== 'string') connections.add(timeNs, segment);
  }
  connections.end();
  return { said, outcomes, connections };
}

export interface TcpOptions {
  readonly from?: number;
  readonly to?: number;
  readonly seq?: number;
  /** Any of S, A, F, R. */
  readonly flags?: string;
  readonly payload?: Buffer;
  readonly options?: Buffer;
}

/** A TCP segment; checksums are zero, for nobody looks at them. */
export function tcp({ from = 40000, to = 7777, seq = 0, flags = 'A', payload, options }: TcpOptions): Buffer {
  const optionBytes = options ?? Buffer.alloc(0);
  const header = Buffer.alloc(20 + optionBytes.length);
  header.writeUInt16BE(from, 0);
  header.writeUInt16BE(to, 2);
  header.writeUInt32BE(seq >>> 0, 4);
  header.writeUInt8((header.length / 4) << 4, 12);
  const bits = { F: 0x01, S: 0x02, R: 0x04, A: 0x10 } as const;
  header.writeUInt8(
    [...flags].reduce((sum, flag) => sum | bits[flag as keyof typeof bits], 0),
    13,
  );
  header.set(optionBytes, 20);
  return Buffer.concat([header, payload ?? Buffer.alloc(0)]);
}

export function ipv4(segment: Buffer, [from, to] = ['0a000002', '0a000001'], fragmentOffset = 0): Buffer {
  const header = Buffer.alloc(20);
  header.writeUInt8(0x45, 0);
  header.writeUInt16BE(20 + segment.length, 2);
  header.writeUInt16BE(fragmentOffset, 6);
  header.writeUInt8(6, 9);
  header.write(`${from}${to}`, 12, 'hex');
  return Buffer.concat([header, segment]);
}

/** @param extensions headers between, with the number of the first; the last names TCP itself */
export function ipv6(segment: Buffer, extensions: Buffer = Buffer.alloc(0), next = 6): Buffer {
  const header = Buffer.alloc(40);
  header.writeUInt8(0x60, 0);
  header.writeUInt16BE(extensions.length + segment.length, 4);
  header.writeUInt8(next, 6);
  header.writeUInt8(0xfd, 8);
  header.writeUInt8(2, 23);
  header.writeUInt8(0xfd, 24);
  header.writeUInt8(1, 39);
  return Buffer.concat([header, extensions, segment]);
}

/** A packet of raw IP. */
export const raw = (bytes: Buffer): Packet => ({ timeNs: null, linkType: 101, bytes });
