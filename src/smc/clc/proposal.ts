/**
 * Proposal: the client's first message, what it can offer. Parts in this order, without gaps; which are there is said by
 * typev1 and typev2 (0 SMC-R, 1 SMC-D, 2 none, 3 both). Linux always says version 2, with v1 parts inside.
 *
 * Source: RFC 7609 appendix A.2 (base, prefixes), net/smc/smc_clc.h. Big-endian. Reserved is 0.
 *
 *     offset | size  | field                | values
 *     base: always
 *     0      | 8     | header               | eyecatcher SMCR
 *     8      | 8     | id_for_peer          | these three are zero unless SMC-R is offered in v1
 *     16     | 16    | ib gid               |
 *     32     | 6     | ib mac               |
 *     38     | 2     | iparea_offset        | from 40 to the prefix part: 40 with v1, or 0 if the next part is missing; else 0
 *     SMC-D part: always, but a peer of version 1 that offers SMC-R only may leave it out
 *     40     | 8     | ism gid              | the v1 device, zero unless SMC-D is offered in v1
 *     48     | 2     | ism chid             | if not 0, the device is a candidate for v2 too
 *     50     | 2     | v2_ext_offset        | from 52 to the v2 extension, 0 without it
 *     52     | 3     | vendor_oui           |
 *     55     | 5     | vendor_exp_options   | free for vendors
 *     60     | 20    | reserved             |
 *     prefix part: v1 offered
 *     0      | 4     | outgoing_subnet      | IPv4 subnet of the interface, 0 for IPv6
 *     4      | 1     | prefix_len           |
 *     5      | 2     | reserved             |
 *     7      | 1     | ipv6_prefixes_cnt    | 0 to 8; 0: compare IPv4
 *     8      | 17*n  | ipv6 prefixes        | 16 prefix, 1 length
 *     v2 extension, SMC-D v2 extension: v2 offered, see proposal-v2.ts
 *     trailer: 4
 *
 * Decode is stricter than Linux in one thing: parts must not overlap, so each offset has one right value.
 */
import { gidToBytes, parseChid } from '../../ism/index.ts';
import {
  applyResidue,
  atMost,
  copyOf,
  type Draft,
  gid64,
  gidOfHalves,
  ipv6Text,
  isZero,
  put,
  type WithResidue,
  withResidue,
} from './bytes.ts';
import { deviceText, type IsmDevice } from './device-list.ts';
import { type ClcVersion, FLAGS, newMessage, openMessage, TRAILER_BYTES } from './header.ts';
import { decodeOffer, encodeOffer, type Offer, offerText } from './offer.ts';
import { Parts } from './parts.ts';
import { claimV2, describeV2, type ProposalV2, readV2, writeV2 } from './proposal-v2.ts';

const PEER_ID = 8;
const PEER_ID_BYTES = 8;
const IB_GID = 16;
const IB_GID_BYTES = 16;
const IB_MAC = 32;
const IB_MAC_BYTES = 6;
const IPAREA_OFFSET = 38;
const BASE_BYTES = 40;

const ISM_GID = 40;
const ISM_CHID = 48;
const V2_EXT_OFFSET = 50;
const V2_EXT_OFFSET_FROM = 52;
const VENDOR_OUI = 52;
const VENDOR_OUI_BYTES = 3;
const VENDOR_OPTIONS = 55;
const VENDOR_OPTIONS_BYTES = 5;
const SMCD_RESERVED = 60;
const SMCD_BYTES = 40;
const SMCD_END = BASE_BYTES + SMCD_BYTES;

/** Offsets in the prefix part. */
const SUBNET = 0;
const SUBNET_BYTES = 4;
const PREFIX_LENGTH = 4;
const IPV6_COUNT = 7;
const PREFIX_BYTES = 8;
const IPV6_PREFIX = 0;
const IPV6_PREFIX_BYTES = 16;
const IPV6_PREFIX_LENGTH = 16;
const IPV6_ENTRY_BYTES = 17;
const MAX_IPV6_PREFIXES = 8;

/** With v1, all of SMC-R and SMC-D, and as much of everything as is allowed. */
export const MAX_PROPOSAL_BYTES = 652;

export interface Proposal extends WithResidue {
  readonly type: 'proposal';
  /** 1 only from peers that know no other. */
  readonly version: ClcVersion;
  readonly v1: ProposalV1 | null;
  readonly v2: ProposalV2 | null;
  /** The v1 device, 64 bits of its GID; also a candidate for v2 if its CHID is not 0. Belongs to an offer of SMC-D in v1. */
  readonly nativeDevice?: IsmDevice;
  /** Absent: zero. */
  readonly vendor?: Vendor;
  /** SMC-R in v1; absent: zero. */
  readonly roce?: Roce;
}

export interface ProposalV1 {
  readonly offer: Offer;
  /** 4 bytes: address AND mask of the interface; zero for IPv6. */
  readonly subnet: Buffer;
  readonly prefixLength: number;
  /** Up to 8. When there are any, the IPv4 subnet doesn't count. */
  readonly ipv6Prefixes: readonly Ipv6Prefix[];
  /** Version 1 and SMC-R only: the SMC-D part is missing. */
  readonly withoutSmcdPart?: true;
}

export interface Ipv6Prefix {
  /** 16 bytes. */
  readonly prefix: Buffer;
  readonly length: number;
}

export interface Vendor {
  /** 3 bytes. */
  readonly oui: Buffer;
  /** 5 bytes. */
  readonly options: Buffer;
}

export interface Roce {
  /** 8 bytes. */
  readonly peerId: Buffer;
  /** 16 bytes. */
  readonly gid: Buffer;
  /** 6 bytes. */
  readonly mac: Buffer;
}

/** The candidates for SMC-D v2, in the order in which a server tries them. */
export function proposedDevices({ nativeDevice, v2 }: Proposal): readonly IsmDevice[] {
  const listed = v2?.smcd?.devices ?? [];
  return nativeDevice && nativeDevice.chid !== 0 ? [nativeDevice, ...listed] : listed;
}

export function decodeProposal(bytes: Uint8Array): Proposal {
  const { header, view } = openMessage(bytes, 'proposal');
  const message = read(new Parts(header, view));
  return withResidue(message, view, write(message));
}

function read(parts: Parts): Proposal {
  const { header, view } = parts;
  const { version } = header;
  const offerV1 = decodeOffer(header.typev1);
  const offerV2 = version === 1 ? null : decodeOffer(header.typev2);
  if (version === 1 && offerV1 === null) throw parts.wrong('typev1', FLAGS, 'an offer in version 1', 'none');
  parts.claim(BASE_BYTES);
  const ipareaOffset = view.readUInt16BE(IPAREA_OFFSET);
  const ipv6Count = readIpv6Count(parts, ipareaOffset);
  const withoutSmcdPart = version === 1 && offerV1 === 'R' && ipareaOffset === 0;
  if (!withoutSmcdPart) parts.claim(SMCD_BYTES);
  if (offerV1 !== null && !withoutSmcdPart && ipareaOffset !== SMCD_BYTES) {
    throw parts.wrong('iparea_offset', IPAREA_OFFSET, SMCD_BYTES, ipareaOffset);
  }
  const v1: Draft<ProposalV1> | null = offerV1 && readV1(parts, offerV1, ipv6Count);
  if (v1 !== null && withoutSmcdPart) v1.withoutSmcdPart = true;
  let v2: ProposalV2 | null = null;
  if (offerV2 !== null) {
    const start = claimV2(parts);
    checkV2ExtOffset(parts, start - V2_EXT_OFFSET_FROM);
    v2 = readV2(parts, start, offerV2);
  }
  parts.end();
  const message: Draft<Proposal> = { type: 'proposal', version, v1, v2 };
  if (!withoutSmcdPart && !isZero(view, ISM_GID, V2_EXT_OFFSET - ISM_GID))
    message.nativeDevice = readNativeDevice(view);
  if (!withoutSmcdPart && !isZero(view, VENDOR_OUI, SMCD_RESERVED - VENDOR_OUI)) message.vendor = readVendor(view);
  if (!isZero(view, PEER_ID, IPAREA_OFFSET - PEER_ID)) message.roce = readRoce(view);
  return message;
}

/** Checked even when v1 is not offered, as Linux does: what stands there then is a byte of some other field. */
function readIpv6Count(parts: Parts, ipareaOffset: number): number {
  if (ipareaOffset > SMCD_BYTES) {
    throw parts.wrong('iparea_offset', IPAREA_OFFSET, `at most ${SMCD_BYTES}`, ipareaOffset);
  }
  const at = BASE_BYTES + ipareaOffset + IPV6_COUNT;
  if (at >= parts.view.length - TRAILER_BYTES) {
    throw parts.wrong('iparea_offset', IPAREA_OFFSET, 'to point into the message', ipareaOffset);
  }
  return parts.count('ipv6_prefixes_cnt', at, MAX_IPV6_PREFIXES);
}

function checkV2ExtOffset(parts: Parts, expected: number): void {
  const v2ExtOffset = parts.view.readUInt16BE(V2_EXT_OFFSET);
  if (v2ExtOffset !== expected) throw parts.wrong('v2_ext_offset', V2_EXT_OFFSET, expected, v2ExtOffset);
}

function readRoce(view: Buffer): Roce {
  return {
    peerId: copyOf(view, PEER_ID, PEER_ID_BYTES),
    gid: copyOf(view, IB_GID, IB_GID_BYTES),
    mac: copyOf(view, IB_MAC, IB_MAC_BYTES),
  };
}

function readNativeDevice(view: Buffer): IsmDevice {
  return { gid: gidOfHalves(view, ISM_GID, null), chid: parseChid(view.readUInt16BE(ISM_CHID)) };
}

function readVendor(view: Buffer): Vendor {
  return {
    oui: copyOf(view, VENDOR_OUI, VENDOR_OUI_BYTES),
    options: copyOf(view, VENDOR_OPTIONS, VENDOR_OPTIONS_BYTES),
  };
}

function readV1(parts: Parts, offer: Offer, ipv6Count: number): ProposalV1 {
  const { view } = parts;
  const start = parts.claim(PREFIX_BYTES);
  const subnet = copyOf(view, start + SUBNET, SUBNET_BYTES);
  const prefixLength = view.readUInt8(start + PREFIX_LENGTH);
  const ipv6Prefixes = Array.from({ length: ipv6Count }, () => {
    const entry = parts.claim(IPV6_ENTRY_BYTES);
    const prefix = copyOf(view, entry + IPV6_PREFIX, IPV6_PREFIX_BYTES);
    return { prefix, length: view.readUInt8(entry + IPV6_PREFIX_LENGTH) };
  });
  return { offer, subnet, prefixLength, ipv6Prefixes };
}

/** Throws RangeError for what can't be said, or what Linux would take for something else. */
export function encodeProposal(message: Proposal): Buffer {
  const bytes = applyResidue(write(message), message.residue);
  const { v1, nativeDevice, residue } = message;
  if (v1 === null && nativeDevice && !residue) {
    atMost('byte 7 of a native GID, taken for ipv6_prefixes_cnt', gidToBytes(nativeDevice.gid)[IPV6_COUNT] ?? 0, 8);
  }
  return bytes;
}

function write(message: Proposal): Buffer {
  const { version, v1, v2, roce } = message;
  if (version === 1 && (v1 === null || v2 !== null)) throw new RangeError('version 1 offers v1 and nothing else');
  const prefixAt = v1?.withoutSmcdPart ? BASE_BYTES : SMCD_END;
  const v2At = prefixAt + (v1 ? PREFIX_BYTES + v1.ipv6Prefixes.length * IPV6_ENTRY_BYTES : 0);
  const v2Part = v2 ? writeV2(v2) : Buffer.alloc(0);
  const bytes = newMessage('SMCR', {
    type: 'proposal',
    length: v2At + v2Part.length + TRAILER_BYTES,
    version,
    typev1: encodeOffer(v1?.offer ?? null),
    typev2: version === 1 ? 0 : encodeOffer(v2?.offer ?? null),
  });
  put(bytes, PEER_ID, PEER_ID_BYTES, 'id_for_peer', roce?.peerId);
  put(bytes, IB_GID, IB_GID_BYTES, 'ib gid', roce?.gid);
  put(bytes, IB_MAC, IB_MAC_BYTES, 'ib mac', roce?.mac);
  if (v1?.withoutSmcdPart) checkWithoutSmcdPart(message, v1);
  else writeSmcd(bytes, message, v2 ? v2At - V2_EXT_OFFSET_FROM : 0);
  if (v1) {
    bytes.writeUInt16BE(prefixAt - BASE_BYTES, IPAREA_OFFSET);
    writeV1(bytes.subarray(prefixAt), v1);
  }
  bytes.set(v2Part, v2At);
  return bytes;
}

function checkWithoutSmcdPart({ version, nativeDevice, vendor }: Proposal, { offer }: ProposalV1): void {
  if (version !== 1 || offer !== 'R' || nativeDevice || vendor) {
    throw new RangeError('only version 1 with nothing but SMC-R can leave out the SMC-D part');
  }
}

function writeSmcd(bytes: Buffer, { nativeDevice, vendor }: Proposal, v2ExtOffset: number): void {
  if (nativeDevice) {
    bytes.set(gid64(nativeDevice.gid), ISM_GID);
    bytes.writeUInt16BE(nativeDevice.chid, ISM_CHID);
  }
  bytes.writeUInt16BE(v2ExtOffset, V2_EXT_OFFSET);
  put(bytes, VENDOR_OUI, VENDOR_OUI_BYTES, 'vendor_oui', vendor?.oui);
  put(bytes, VENDOR_OPTIONS, VENDOR_OPTIONS_BYTES, 'vendor_exp_options', vendor?.options);
}

function writeV1(part: Buffer, { subnet, prefixLength, ipv6Prefixes }: ProposalV1): void {
  atMost('ipv6_prefixes_cnt', ipv6Prefixes.length, MAX_IPV6_PREFIXES);
  put(part, SUBNET, SUBNET_BYTES, 'outgoing_subnet', subnet);
  part.writeUInt8(prefixLength, PREFIX_LENGTH);
  part.writeUInt8(ipv6Prefixes.length, IPV6_COUNT);
  for (const [i, { prefix, length }] of ipv6Prefixes.entries()) {
    const entry = PREFIX_BYTES + i * IPV6_ENTRY_BYTES;
    put(part, entry + IPV6_PREFIX, IPV6_PREFIX_BYTES, 'ipv6 prefix', prefix);
    part.writeUInt8(length, entry + IPV6_PREFIX_LENGTH);
  }
}

export function describeProposal({ version, v1, v2, nativeDevice, vendor }: Proposal): string {
  const parts = [`Proposal${version === 1 ? ' of version 1' : ''}`];
  if (v1) {
    const prefixes = v1.ipv6Prefixes.map(({ prefix, length }) => `${ipv6Text(prefix)}/${length}`);
    parts.push(`v1 ${offerText(v1.offer)}`);
    parts.push(...(prefixes.length > 0 ? prefixes : [`${v1.subnet.join('.')}/${v1.prefixLength}`]));
  }
  if (nativeDevice) parts.push(`native device ${deviceText(nativeDevice)}`);
  if (v2) parts.push(describeV2(v2));
  if (!v1 && !v2) parts.push('nothing offered');
  if (vendor) parts.push(`vendor ${vendor.oui.toString('hex')} ${vendor.options.toString('hex')}`);
  return parts.join(', ');
}
