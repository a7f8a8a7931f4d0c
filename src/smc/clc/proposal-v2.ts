/**
 * The two parts of a Proposal that offer version 2, one behind the other. Offsets are in the part.
 *
 * Source: net/smc/smc_clc.h, smc_clc.c; IBM "SMC Version 2" papers known through them. Big-endian. Reserved is 0.
 *
 *     offset | size | field              | values                                                               | since
 *     v2 extension
 *     0      | 1    | eid_cnt            | 0 to 8                                                               | v2
 *     1      | 1    | ism_gid_cnt        | 0 to 8 list entries                                                  | v2
 *     2      | 1    | reserved           |                                                                      |
 *     3      | 1    | release, seid      | bits 7-4: 0 v2, 1 v2.1; bit 0: SEID offered                          | v2
 *     4      | 2    | reserved           |                                                                      |
 *     6      | 2    | smcd_v2_ext_offset | from 8 to the SMC-D v2 extension, 0 without it                       | v2
 *     8      | 16   | roce gid           | SMC-R                                                                | v2
 *     24     | 1    | max_conns          | SMC-R                                                                | v2.1
 *     25     | 1    | max_links          | SMC-R                                                                | v2.1
 *     26     | 2    | feature_mask       | 0x0001 emulated ISM understood                                       | v2.1
 *     28     | 12   | reserved           |                                                                      |
 *     40     | 32*n | user EIDs          | ASCII, blank padded, in the client's order of preference             | v2
 *     SMC-D v2 extension, if SMC-D is offered
 *     0      | 32   | system_eid         | zero if not offered                                                  | v2
 *     32     | 16   | reserved           |                                                                      |
 *     48     | 10*n | GID/CHID list      | see device-list.ts                                                   | v2
 *
 * A wrong smcd_v2_ext_offset is no error: it is a reason to decline (NOV2DEXT), and the connection goes on.
 */
import { EID_BYTES, type Eid, eidFromBytes, eidToBytes } from '../../ism/index.ts';
import { atMost, copyOf, type Draft, hex, isZero, nibbles, printable, put, zeros } from './bytes.ts';
import {
  decodeDeviceList,
  deviceText,
  encodeDeviceList,
  entriesOf,
  type IsmDevice,
  LIST_ENTRY_BYTES,
  MAX_LIST_ENTRIES,
} from './device-list.ts';
import { type Offer, offerText } from './offer.ts';
import type { Parts } from './parts.ts';

const EID_COUNT = 0;
const GID_COUNT = 1;
const RELEASE_SEID = 3;
const SEID_OFFERED = 0x01;
const SMCD_V2_OFFSET = 6;
const SMCD_V2_OFFSET_FROM = 8;
const ROCE_GID = 8;
const ROCE_GID_BYTES = 16;
const MAX_CONNS = 24;
const MAX_LINKS = 25;
const FEATURE_MASK = 26;
const V2_BYTES = 40;
const MAX_EIDS = 8;

const SEID = 0;
const SMCD_V2_BYTES = 48;

export interface ProposalV2 {
  readonly offer: Offer;
  /** Four bits: 0 v2, 1 v2.1. */
  readonly release: number;
  readonly featureMask: number;
  /** Up to 8, in the client's order of preference. */
  readonly userEids: readonly Eid[];
  /** Null when SMC-D is not offered, or its extension is not where its offset says. */
  readonly smcd: ProposalSmcdV2 | null;
  /** That misplaced extension as it came. */
  readonly misplacedSmcd?: Buffer;
  /** SMC-R; absent: zero. */
  readonly roceV2?: RoceV2;
}

export interface ProposalSmcdV2 {
  /** The system's own EID, null when not offered. */
  readonly seid: Eid | null;
  /** In the client's order. They take up to 8 entries: an emulated one takes two. */
  readonly devices: readonly IsmDevice[];
  /** The list as it came, if not every entry belongs to a device. Only set by decode, and wins over `devices` in encode. */
  readonly entries?: Buffer;
}

export interface RoceV2 {
  /** 16 bytes. */
  readonly gid: Buffer;
  readonly maxConns: number;
  readonly maxLinks: number;
}

/** Claims the v2 extension; the caller checks that this is where its offset leads. */
export function claimV2(parts: Parts): number {
  return parts.claim(V2_BYTES);
}

export function readV2(parts: Parts, start: number, offer: Offer): ProposalV2 {
  const { view } = parts;
  const eidCount = parts.count('eid_cnt', start + EID_COUNT, MAX_EIDS);
  const eidsAt = parts.claim(eidCount * EID_BYTES);
  const userEids = Array.from({ length: eidCount }, (_, i) => readEid(view, eidsAt + i * EID_BYTES));
  const v2: Draft<ProposalV2> = {
    offer,
    release: view.readUInt8(start + RELEASE_SEID) >> 4,
    featureMask: view.readUInt16BE(start + FEATURE_MASK),
    userEids,
    smcd: null,
  };
  if (offer !== 'R') readSmcdV2(parts, start, v2);
  if (!isZero(view, start + ROCE_GID, FEATURE_MASK - ROCE_GID)) v2.roceV2 = readRoceV2(view, start);
  return v2;
}

function readRoceV2(view: Buffer, start: number): RoceV2 {
  return {
    gid: copyOf(view, start + ROCE_GID, ROCE_GID_BYTES),
    maxConns: view.readUInt8(start + MAX_CONNS),
    maxLinks: view.readUInt8(start + MAX_LINKS),
  };
}

function readSmcdV2(parts: Parts, v2Start: number, v2: Draft<ProposalV2>): void {
  const { view } = parts;
  const listBytes = parts.count('ism_gid_cnt', v2Start + GID_COUNT, MAX_LIST_ENTRIES) * LIST_ENTRY_BYTES;
  const start = parts.claim(SMCD_V2_BYTES + listBytes);
  if (v2Start + SMCD_V2_OFFSET_FROM + view.readUInt16BE(v2Start + SMCD_V2_OFFSET) !== start) {
    v2.misplacedSmcd = copyOf(view, start, SMCD_V2_BYTES + listBytes);
    return;
  }
  const seidOffered = (view.readUInt8(v2Start + RELEASE_SEID) & SEID_OFFERED) !== 0;
  const seid = seidOffered ? readEid(view, start + SEID) : null;
  const entries = view.subarray(start + SMCD_V2_BYTES, start + SMCD_V2_BYTES + listBytes);
  const devices = decodeDeviceList(entries);
  const isPlain = entriesOf(devices) * LIST_ENTRY_BYTES === listBytes;
  v2.smcd = isPlain ? { seid, devices } : { seid, devices, entries: Buffer.from(entries) };
}

function readEid(view: Buffer, offset: number): Eid {
  return eidFromBytes(view.subarray(offset, offset + EID_BYTES));
}

/** Both parts. */
export function writeV2(v2: ProposalV2): Buffer {
  const { offer, release, featureMask, userEids, smcd, misplacedSmcd, roceV2 } = v2;
  if (offer === 'R' && (smcd || misplacedSmcd)) throw new RangeError('an SMC-D extension without an offer of SMC-D');
  atMost('eid_cnt', userEids.length, MAX_EIDS);
  const part = zeros(V2_BYTES + userEids.length * EID_BYTES);
  part.writeUInt8(userEids.length, EID_COUNT);
  part.writeUInt8(nibbles('release', release, smcd === null || smcd.seid === null ? 0 : SEID_OFFERED), RELEASE_SEID);
  put(part, ROCE_GID, ROCE_GID_BYTES, 'roce gid', roceV2?.gid);
  part.writeUInt8(roceV2?.maxConns ?? 0, MAX_CONNS);
  part.writeUInt8(roceV2?.maxLinks ?? 0, MAX_LINKS);
  part.writeUInt16BE(featureMask, FEATURE_MASK);
  for (const [i, eid] of userEids.entries()) {
    put(part, V2_BYTES + i * EID_BYTES, EID_BYTES, 'user EID', eidToBytes(eid));
  }
  if (offer === 'R') return part;
  const smcdPart = smcd === null ? (misplacedSmcd ?? zeros(SMCD_V2_BYTES)) : writeSmcdV2(smcd);
  const entryCount = (smcdPart.length - SMCD_V2_BYTES) / LIST_ENTRY_BYTES;
  if (!Number.isInteger(entryCount)) throw new RangeError(`an SMC-D v2 extension of ${smcdPart.length} bytes`);
  atMost('ism_gid_cnt', entryCount, MAX_LIST_ENTRIES);
  part.writeUInt8(entryCount, GID_COUNT);
  if (smcd !== null) part.writeUInt16BE(part.length - SMCD_V2_OFFSET_FROM, SMCD_V2_OFFSET);
  return Buffer.concat([part, smcdPart]);
}

function writeSmcdV2({ seid, devices, entries }: ProposalSmcdV2): Buffer {
  const part = zeros(SMCD_V2_BYTES);
  if (seid !== null) put(part, SEID, EID_BYTES, 'system_eid', eidToBytes(seid));
  return Buffer.concat([part, entries ?? encodeDeviceList(devices)]);
}

export function describeV2({ offer, release, featureMask, userEids, smcd, misplacedSmcd }: ProposalV2): string {
  const parts = [`v2 ${offerText(offer)}`, `release ${release}`, `features 0x${hex(featureMask, 4)}`];
  parts.push(...userEids.map((eid) => `EID ${printable(eid)}`));
  if (smcd !== null && smcd.seid !== null) parts.push(`SEID ${printable(smcd.seid)}`);
  parts.push(...(smcd?.devices ?? []).map((device) => `device ${deviceText(device)}`));
  if (misplacedSmcd) parts.push('SMC-D v2 extension misplaced');
  return parts.join(', ');
}
