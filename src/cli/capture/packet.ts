/**
 * From a captured packet to the TCP segment in it: link layers, VLAN tags, IPv4, IPv6 with extension headers. All numbers
 * big-endian, as on the wire. What a packet says of its lengths is held against what was captured.
 *
 * Source: tcpdump.org/linktypes, RFC 791, 8200, 9293; the SMC option: RFC 7609 section 3.1, net/ipv4/tcp_input.c.
 *
 *     link type                  | network layer at | what it is
 *     0 NULL, 108 LOOP           | 4                | its version tells; the family in front of it differs from system to system
 *     1 Ethernet                 | 14               | type at 12
 *     12, 14, 101 raw, 228, 229  | 0                | its version tells
 *     113 Linux cooked           | 16               | type at 14
 *     276 Linux cooked, 2        | 20               | type at 0
 */
import { ipv6Text } from '../../smc/clc/bytes.ts';

export interface Segment {
  /** Address (4 or 16 bytes) and port (2), as characters of one byte each: see endpointText. */
  readonly from: string;
  readonly to: string;
  readonly seq: number;
  readonly syn: boolean;
  readonly ack: boolean;
  readonly fin: boolean;
  readonly rst: boolean;
  /** Says "I can SMC"; only ever with SYN. */
  readonly smcOption: boolean;
  /** As much as was captured. */
  readonly payload: Buffer;
  /** On the wire. */
  readonly payloadLength: number;
}

/** Why there is no segment: not TCP over IP; a fragment that is not the first; headers cut; an unknown link type. */
export type NoSegment = 'other' | 'fragment' | 'cut' | 'link type';

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
/** 802.1Q, 802.1ad and its predecessor: 4 more bytes, the next type in the last two. */
const VLAN_TAGS = new Set([0x8100, 0x88a8, 0x9100]);
const VLAN_BYTES = 4;

/** Where the network layer begins and where its type stands; null: there is none. */
const LINKS: Readonly<Record<number, readonly [network: number, type: number | null]>> = {
  0: [4, null],
  1: [14, 12],
  12: [0, null],
  14: [0, null],
  101: [0, null],
  108: [4, null],
  113: [16, 14],
  228: [0, null],
  229: [0, null],
  276: [20, 0],
};

export function isKnownLinkType(linkType: number): boolean {
  return linkType in LINKS;
}

export function segmentOf(linkType: number, bytes: Buffer): Segment | NoSegment {
  const link = LINKS[linkType];
  if (link === undefined) return 'link type';
  let [network] = link;
  const [, typeAt] = link;
  if (typeAt !== null) {
    if (bytes.length < network) return 'cut';
    let type = bytes.readUInt16BE(typeAt);
    for (; VLAN_TAGS.has(type); network += VLAN_BYTES) {
      if (bytes.length < network + VLAN_BYTES) return 'cut';
      type = bytes.readUInt16BE(network + 2);
    }
    if (type !== ETHERTYPE_IPV4 && type !== ETHERTYPE_IPV6) return 'other';
  }
  const version = (bytes[network] ?? 0) >> 4;
  if (version === 4) return segmentInIpv4(bytes.subarray(network));
  return version === 6 ? segmentInIpv6(bytes.subarray(network)) : 'other';
}

const PROTOCOL_TCP = 6;
const IPV4_BYTES = 20;

function segmentInIpv4(packet: Buffer): Segment | NoSegment {
  if (packet.length < IPV4_BYTES) return 'cut';
  const headerBytes = (packet.readUInt8(0) & 0xf) * 4;
  if (packet.readUInt8(9) !== PROTOCOL_TCP || headerBytes < IPV4_BYTES) return 'other';
  if ((packet.readUInt16BE(6) & 0x1fff) !== 0) return 'fragment';
  // 0 where the system captured before it cut the packet to size.
  const total = packet.readUInt16BE(2) || packet.length;
  return segmentInTcp(packet, headerBytes, total, [12, 4]);
}

const IPV6_BYTES = 40;
const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const AUTHENTICATION = 51;
const DESTINATION = 60;

function segmentInIpv6(packet: Buffer): Segment | NoSegment {
  if (packet.length < IPV6_BYTES) return 'cut';
  let next = packet.readUInt8(6);
  let at = IPV6_BYTES;
  while (next !== PROTOCOL_TCP) {
    if (![HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION].includes(next)) return 'other';
    if (packet.length < at + 8) return 'cut';
    if (next === FRAGMENT && packet.readUInt16BE(at + 2) >> 3 !== 0) return 'fragment';
    const words = packet.readUInt8(at + 1);
    const headerBytes = next === FRAGMENT ? 8 : next === AUTHENTICATION ? (words + 2) * 4 : (words + 1) * 8;
    next = packet.readUInt8(at);
    at += headerBytes;
  }
  const payloadBytes = packet.readUInt16BE(4);
  const total = payloadBytes === 0 ? packet.length : IPV6_BYTES + payloadBytes;
  return segmentInTcp(packet, at, total, [8, 16]);
}

const TCP_BYTES = 20;
const [FIN, SYN, RST, ACK] = [0x01, 0x02, 0x04, 0x10];

/** @param total length of the IP packet as it says itself */
function segmentInTcp(
  packet: Buffer,
  at: number,
  total: number,
  [addresses, addressBytes]: readonly [number, number],
): Segment | NoSegment {
  if (packet.length < at + TCP_BYTES) return 'cut';
  const start = at + (packet.readUInt8(at + 12) >> 4) * 4;
  if (start < at + TCP_BYTES || start > total) return 'other';
  const flags = packet.readUInt8(at + 13);
  const endpoint = (index: number) => {
    const address = addresses + index * addressBytes;
    const port = at + index * 2;
    return packet.toString('latin1', address, address + addressBytes) + packet.toString('latin1', port, port + 2);
  };
  const syn = (flags & SYN) !== 0;
  return {
    from: endpoint(0),
    to: endpoint(1),
    seq: packet.readUInt32BE(at + 4),
    syn,
    ack: (flags & ACK) !== 0,
    fin: (flags & FIN) !== 0,
    rst: (flags & RST) !== 0,
    smcOption: syn && hasSmcOption(packet.subarray(at + TCP_BYTES, start)),
    payload: packet.subarray(start, total),
    payloadLength: total - start,
  };
}

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_EXPERIMENT = 254;
/** EBCDIC "SMCR". */
const SMC_MAGIC = 0xe2d4c3d9;

function hasSmcOption(options: Buffer): boolean {
  for (let at = 0; at < options.length; ) {
    const kind = options.readUInt8(at);
    if (kind === OPTION_END) return false;
    if (kind === OPTION_NOP) {
      at++;
      continue;
    }
    const length = options[at + 1] ?? 0;
    if (length < 2 || at + length > options.length) return false;
    if (kind === OPTION_EXPERIMENT && length >= 6 && length % 2 === 0 && options.readUInt32BE(at + 2) === SMC_MAGIC) {
      return true;
    }
    at += length;
  }
  return false;
}

/** `ADDRESS:PORT`, IPv6 in brackets. @param endpoint as in a Segment */
export function endpointText(endpoint: string): string {
  const bytes = Buffer.from(endpoint, 'latin1');
  const address = bytes.subarray(0, -2);
  const port = bytes.readUInt16BE(address.length);
  return address.length === 4 ? `${address.join('.')}:${port}` : `[${ipv6Text(address)}]:${port}`;
}
