/**
 * The checks that Linux makes of a CLC message, in its order, each with what becomes of the connection when it fails.
 *
 *     step                                              | fails: Linux
 *     header: 8 bytes, version, type as awaited         | waits for the bytes; closes
 *     as much of the message as its buffer takes        | waits
 *     eyecatcher, offsets, counts, length, trailer      | closes
 *     the rest of a longer message, which it drops      | waits
 *     what it says, against what was offered and agreed | declines, goes on with less, or closes
 *
 * "Waits" is 6 seconds at most, then it closes; "closes" is the end of the TCP connection, no fallback. Only a Decline, its own
 * or the peer's, leaves both on TCP. Not predicted is what depends on the host alone: IPsec, VLANs, IP prefixes and PNETIDs of
 * version 1, memory, and all of SMC-R.
 *
 * Source: net/smc/smc_clc.c, af_smc.c, smc_ism.c of Linux 7.2; what it does was compared with a running kernel.
 */
import { EID_BYTES, eidFromBytes, parseChid, parseToken } from '../../ism/index.ts';
import {
  CHID,
  FCE,
  FIRST_CONTACT,
  R_SHORTEST_V2_BYTES,
  R_V1_BYTES,
  SHORTEST_V2_BYTES,
  TOKEN,
  TYPE_D,
  TYPE_R,
  V1_BYTES,
} from './accept-confirm.ts';
import { gidOfHalves, hex } from './bytes.ts';
import type { ClcCheck, ClcContext, ClcReader, LinuxConsequence } from './checks.ts';
import { DECLINE_V1_BYTES, DECLINE_V2_BYTES } from './decline.ts';
import { SMC_CLC_DECL } from './decline-codes.ts';
import { decodeDeviceList, LIST_ENTRY_BYTES, MAX_LIST_ENTRIES } from './device-list.ts';
import { OS_RELEASE, RELEASE_V21 } from './first-contact.ts';
import {
  CLC_TYPES,
  EYECATCHER_BYTES,
  eyecatcherName,
  FLAGS,
  HEADER_BYTES,
  LENGTH,
  TRAILER_BYTES,
  TYPE,
} from './header.ts';
import { decodeOffer, type Offer } from './offer.ts';
import {
  BASE_BYTES,
  IPAREA_OFFSET,
  IPV6_COUNT,
  IPV6_ENTRY_BYTES,
  ISM_CHID,
  ISM_GID,
  MAX_IPV6_PREFIXES,
  MAX_PROPOSAL_BYTES,
  PREFIX_BYTES,
  proposedDevices,
  SMCD_BYTES,
  V2_EXT_OFFSET,
  V2_EXT_OFFSET_FROM,
} from './proposal.ts';
import {
  EID_COUNT,
  GID_COUNT,
  MAX_CONNS,
  MAX_EIDS,
  MAX_LINKS,
  RELEASE_SEID,
  SEID,
  SEID_OFFERED,
  SMCD_V2_BYTES,
  SMCD_V2_OFFSET,
  SMCD_V2_OFFSET_FROM,
  V2_BYTES,
} from './proposal-v2.ts';
import type { ClcType } from './wire-error.ts';

/** What Linux reads a message into, by the type that it awaits. A Decline comes instead of any. */
const BUFFER_BYTES: Readonly<Record<ClcType, number>> = {
  proposal: MAX_PROPOSAL_BYTES,
  accept: 160,
  confirm: MAX_PROPOSAL_BYTES,
  decline: MAX_PROPOSAL_BYTES,
};

/** Offsets may lead here, with everything in front at its longest. */
const MAX_V2_EXT_OFFSET = 172;
const MAX_SMCD_V2_OFFSET = 288;
/** What Linux wants of SMC-R at least. */
const LEAST_CONNS = 16;
const LEAST_LINKS = 1;

const CLOSES: LinuxConsequence = { does: 'closes' };
const WAITS: LinuxConsequence = { does: 'waits' };
const declines = (code: number): LinuxConsequence => ({ does: 'declines', code });

function check(
  passed: boolean,
  field: string,
  offset: number,
  expected: string | number,
  got: string | number,
  linux: LinuxConsequence,
): ClcCheck {
  return { by: 'Linux', passed, field, offset, expected: String(expected), got: String(got), linux };
}

/** One after the other: who takes them stops where Linux does. @param bytes a message, or as much of it as there is */
export function* linuxChecks(bytes: Buffer, context: ClcContext): Generator<ClcCheck> {
  const { expected } = context;
  yield check(bytes.length >= HEADER_BYTES, 'header', 0, `${HEADER_BYTES} bytes`, bytes.length, WAITS);
  const flags = bytes.readUInt8(FLAGS);
  yield check(flags >> 4 >= 1, 'version', FLAGS, 'at least 1', flags >> 4, CLOSES);
  const typeByte = bytes.readUInt8(TYPE);
  const type = CLC_TYPES[typeByte];
  const isAwaited = expected === undefined || type === expected || type === 'decline';
  const awaited = expected === undefined ? '1 to 4' : `${expected} or decline`;
  yield check(type !== undefined && isAwaited, 'type', TYPE, awaited, type ?? typeByte, CLOSES);
  if (type === undefined) return;

  const length = bytes.readUInt16BE(LENGTH);
  const bufferBytes = BUFFER_BYTES[expected ?? type];
  const readBytes = Math.min(length, bufferBytes);
  yield check(bytes.length >= readBytes, 'length', LENGTH, `${length} bytes`, `${bytes.length} so far`, WAITS);
  // Zero behind the message, as in Linux: offsets that lead astray read zero, and never more than this.
  const area = Buffer.alloc(MAX_PROPOSAL_BYTES);
  area.set(bytes.subarray(0, Math.max(readBytes, HEADER_BYTES)));

  yield eyecatcherCheck(area, 'eyecatcher', 0);
  yield* formatChecks(type, area, length);
  if (type !== 'decline' && length <= bufferBytes) {
    yield eyecatcherCheck(area, 'trailer', length - TRAILER_BYTES);
  }
  if (length > bufferBytes) {
    yield check(bytes.length >= length, 'length', LENGTH, `${length} bytes`, `${bytes.length} so far`, WAITS);
  }
  yield* contentChecks(type, area, context);
}

function eyecatcherCheck(area: Buffer, field: string, offset: number): ClcCheck {
  const found = area.subarray(offset, offset + EYECATCHER_BYTES);
  return check(eyecatcherName(found) !== undefined, field, offset, 'SMCR or SMCD', found.toString('hex'), CLOSES);
}

function formatChecks(type: ClcType, area: Buffer, length: number): Generator<ClcCheck> {
  switch (type) {
    case 'proposal':
      return proposalFormat(area, length);
    case 'accept':
    case 'confirm':
      return answerFormat(area, length);
    case 'decline':
      return declineFormat(area, length);
    default:
      return type satisfies never;
  }
}

function* contentChecks(type: ClcType, area: Buffer, context: ClcContext): Generator<ClcCheck> {
  switch (type) {
    case 'proposal':
      return yield* proposalContent(area, context.reader);
    case 'accept':
      return yield* acceptContent(area, context);
    case 'confirm':
      return yield* confirmContent(area, context);
    case 'decline':
      return; // whatever it says
    default:
      return type satisfies never;
  }
}

// --- Proposal ---

const versionOf = (area: Buffer) => (area.readUInt8(FLAGS) >> 4 === 1 ? 1 : 2);
const offerV1Of = (area: Buffer) => decodeOffer(area.readUInt8(FLAGS) & 3);
const offerV2Of = (area: Buffer) => (versionOf(area) === 1 ? null : decodeOffer((area.readUInt8(FLAGS) >> 2) & 3));
const offers = (offer: Offer | null | undefined, mode: 'R' | 'D') => offer === mode || offer === 'both';

function* proposalFormat(area: Buffer, length: number): Generator<ClcCheck> {
  const [offerV1, offerV2] = [offerV1Of(area), offerV2Of(area)];
  const ipareaOffset = area.readUInt16BE(IPAREA_OFFSET);
  yield check(ipareaOffset <= SMCD_BYTES, 'iparea_offset', IPAREA_OFFSET, 'at most 40', ipareaOffset, CLOSES);
  const countAt = BASE_BYTES + ipareaOffset + IPV6_COUNT;
  const ipv6Count = area.readUInt8(countAt);
  // With v1 not offered, this is a byte of some other field, mostly of the native GID.
  const most = `at most ${MAX_IPV6_PREFIXES}${offerV1 === null ? ', although v1 is not offered' : ''}`;
  yield check(ipv6Count <= MAX_IPV6_PREFIXES, 'ipv6_prefixes_cnt', countAt, most, ipv6Count, CLOSES);
  const prefixBytes = PREFIX_BYTES + IPV6_ENTRY_BYTES * ipv6Count;
  if (versionOf(area) === 1) {
    yield check(offerV1 !== null, 'typev1', FLAGS, 'an offer in version 1', 'none', CLOSES);
    yield lengthCheck(length, BASE_BYTES + ipareaOffset + prefixBytes + TRAILER_BYTES);
    return;
  }
  let sum = BASE_BYTES + SMCD_BYTES + (offerV1 === null ? 0 : prefixBytes) + TRAILER_BYTES;
  if (offerV2 !== null) {
    if (offers(offerV1, 'D')) {
      const isExact = ipareaOffset === SMCD_BYTES;
      yield check(isExact, 'iparea_offset', IPAREA_OFFSET, '40 with SMC-D in v1', ipareaOffset, CLOSES);
    }
    const offset = area.readUInt16BE(V2_EXT_OFFSET);
    const isReachable = offset >= 1 && offset <= MAX_V2_EXT_OFFSET;
    yield check(isReachable, 'v2_ext_offset', V2_EXT_OFFSET, `1 to ${MAX_V2_EXT_OFFSET}`, offset, CLOSES);
    const at = V2_EXT_OFFSET_FROM + offset;
    const [eids, entries] = [area.readUInt8(at + EID_COUNT), area.readUInt8(at + GID_COUNT)];
    yield check(eids <= MAX_EIDS, 'eid_cnt', at + EID_COUNT, `at most ${MAX_EIDS}`, eids, CLOSES);
    sum += V2_BYTES + EID_BYTES * eids;
    if (offers(offerV2, 'D')) {
      const isFew = entries <= MAX_LIST_ENTRIES;
      yield check(isFew, 'ism_gid_cnt', at + GID_COUNT, `at most ${MAX_LIST_ENTRIES}`, entries, CLOSES);
      sum += SMCD_V2_BYTES + LIST_ENTRY_BYTES * entries;
    }
  }
  yield lengthCheck(length, sum);
}

function lengthCheck(length: number, sum: number): ClcCheck {
  return check(length === sum, 'length', LENGTH, `${sum}, what the parts add up to`, length, CLOSES);
}

/** How a server chooses; up to where it depends on more than what is known of it. */
function* proposalContent(area: Buffer, reader: ClcReader | undefined): Generator<ClcCheck> {
  const [offerV1, offerV2] = [offerV1Of(area), offerV2Of(area)];
  if (offerV2 === null) {
    yield check(offerV1 !== null, 'typev1', FLAGS, 'an offer', 'none', declines(SMC_CLC_DECL.PEERNOSMC));
    return;
  }
  const at = V2_EXT_OFFSET_FROM + area.readUInt16BE(V2_EXT_OFFSET);
  const eids = area.readUInt8(at + EID_COUNT);
  let withD = offers(offerV2, 'D');
  const isElse = offerV1 !== null || offers(offerV2, 'R');
  const without = (code: number): LinuxConsequence =>
    isElse ? { does: 'goes on', without: 'SMC-D v2' } : declines(code);

  const smcdOffset = area.readUInt16BE(at + SMCD_V2_OFFSET);
  const hasSeid = (area.readUInt8(at + RELEASE_SEID) & SEID_OFFERED) !== 0;
  if (withD) {
    const isReachable = smcdOffset >= 1 && smcdOffset <= MAX_SMCD_V2_OFFSET;
    const range = `1 to ${MAX_SMCD_V2_OFFSET}`;
    const consequence = without(SMC_CLC_DECL.NOV2DEXT);
    yield check(isReachable, 'smcd_v2_ext_offset', at + SMCD_V2_OFFSET, range, smcdOffset, consequence);
    const hasEid = eids > 0 || hasSeid;
    if (isReachable) {
      const got = hasEid ? `${eids} UEIDs, SEID ${hasSeid ? 'offered' : 'not offered'}` : 'neither';
      yield check(hasEid, 'eid_cnt', at + EID_COUNT, 'a UEID or the SEID', got, without(SMC_CLC_DECL.NOUEID));
    }
    withD = isReachable && hasEid;
  }
  if (offers(offerV2, 'R') && eids > 0 && area.readUInt8(at + RELEASE_SEID) >> 4 >= RELEASE_V21) {
    const [conns, links] = [area.readUInt8(at + MAX_CONNS), area.readUInt8(at + MAX_LINKS)];
    const [fewConns, fewLinks] = [declines(SMC_CLC_DECL.MAXCONNERR), declines(SMC_CLC_DECL.MAXLINKERR)];
    const [leastConns, leastLinks] = [`at least ${LEAST_CONNS}`, `at least ${LEAST_LINKS}`];
    yield check(conns >= LEAST_CONNS, 'max_conns', at + MAX_CONNS, leastConns, conns, fewConns);
    yield check(links >= LEAST_LINKS, 'max_links', at + MAX_LINKS, leastLinks, links, fewLinks);
  }
  if (!withD || reader === undefined) return;

  const extension = at + SMCD_V2_OFFSET_FROM + smcdOffset;
  const list = extension + SMCD_V2_BYTES;
  const listBytes = LIST_ENTRY_BYTES * area.readUInt8(at + GID_COUNT);
  const native = {
    gid: gidOfHalves(area, ISM_GID, null),
    chid: parseChid(area.readUInt16BE(ISM_CHID)),
  };
  const listed = decodeDeviceList(area.subarray(list, list + listBytes));
  const isReached = [...(native.chid === 0 ? [] : [native]), ...listed].some((device) => reader.reaches(device));
  const reached = isReached ? 'one' : `none of ${listed.length}`;
  yield check(isReached, 'gid 0', list, 'a device within reach', reached, without(SMC_CLC_DECL.NOSMCD2DEV));
  if (!isReached) return;
  const eidAt = (offset: number) => eidFromBytes(area.subarray(offset, offset + EID_BYTES));
  const isCommon =
    (hasSeid && reader.seid === eidAt(extension + SEID)) ||
    Array.from({ length: eids }, (_, i) => eidAt(at + V2_BYTES + i * EID_BYTES)).some((eid) =>
      reader.ueids.includes(eid),
    );
  const common = isCommon ? 'one' : 'none';
  yield check(isCommon, 'ueid 0', at + V2_BYTES, 'a common EID', common, without(SMC_CLC_DECL.NOSMCDDEV));
}

// --- Accept and Confirm ---

function* answerFormat(area: Buffer, length: number): Generator<ClcCheck> {
  const mode = area.readUInt8(FLAGS) & 3;
  yield check(mode === TYPE_R || mode === TYPE_D, 'typev1', FLAGS, '0 (SMC-R) or 1 (SMC-D)', mode, CLOSES);
  if (versionOf(area) === 1) {
    const exact = mode === TYPE_R ? R_V1_BYTES : V1_BYTES;
    yield check(length === exact, 'length', LENGTH, exact, length, CLOSES);
  } else {
    const least = mode === TYPE_R ? R_SHORTEST_V2_BYTES : SHORTEST_V2_BYTES;
    yield check(length >= least, 'length', LENGTH, `at least ${least}`, length, CLOSES);
  }
}

function* acceptContent(area: Buffer, { proposal, reader }: ClcContext): Generator<ClcCheck> {
  const version = versionOf(area);
  const mode = (area.readUInt8(FLAGS) & 3) === TYPE_D ? 'D' : 'R';
  if (proposal !== undefined) {
    const offer = version === 1 ? proposal.v1?.offer : proposal.v2?.offer;
    const consequence = declines(SMC_CLC_DECL.MODEUNSUPP);
    yield check(offers(offer, mode), 'typev1', FLAGS, 'what was offered', `SMC-${mode} v${version}`, consequence);
  }
  if (mode === 'R') return;
  if (version > 1 && proposal !== undefined) {
    const chid = parseChid(area.readUInt16BE(CHID));
    const isOffered = proposedDevices(proposal).some((device) => device.chid === chid);
    yield check(isOffered, 'chid', CHID, 'one that was offered', hex(chid, 4), CLOSES);
  }
  yield* tokenCheck(area, reader, declines(SMC_CLC_DECL.MEM));
}

function* confirmContent(area: Buffer, { proposal, accept, reader }: ClcContext): Generator<ClcCheck> {
  if (accept?.mode === 'R') return;
  const isFirstContact = ((area.readUInt8(FLAGS) >> 2) & FIRST_CONTACT) !== 0;
  const offered = proposal?.v2 ? Math.min(proposal.v2.release, RELEASE_V21) : undefined;
  const agreed = accept?.version === 2 && accept.fce ? accept.fce.release : offered;
  if (versionOf(area) > 1 && isFirstContact && agreed !== undefined) {
    const release = area.readUInt8(FCE + OS_RELEASE) & 0xf;
    const consequence = declines(SMC_CLC_DECL.RELEASEERR);
    yield check(release === agreed, 'release', FCE + OS_RELEASE, agreed, release, consequence);
  }
  yield* tokenCheck(area, reader, CLOSES);
}

/** A device that maps looks for the peer's DMB at once. */
function* tokenCheck(area: Buffer, reader: ClcReader | undefined, consequence: LinuxConsequence): Generator<ClcCheck> {
  if (reader?.hasDmb === undefined) return;
  const isKnown = reader.hasDmb(parseToken(area.readBigUInt64BE(TOKEN)));
  const got = isKnown ? 'known' : 'unknown';
  yield check(isKnown, 'dmb token', TOKEN, 'one that the device knows', got, consequence);
}

// --- Decline ---

function* declineFormat(area: Buffer, length: number): Generator<ClcCheck> {
  const exact = versionOf(area) === 1 ? DECLINE_V1_BYTES : DECLINE_V2_BYTES;
  yield check(length === exact, 'length', LENGTH, exact, length, CLOSES);
}
