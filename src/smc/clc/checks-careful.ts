/**
 * What Linux does not look at, and a reader does who takes nothing on trust: for messages that can be decoded. Receivers have to
 * ignore reserved bits, so none of this is a reason to end a connection by itself; values that contradict what was offered or
 * agreed are a reason to decline.
 */
import { type Eid, isEmulated, parseChid, parseUeid } from '../../ism/index.ts';
import type { AcceptConfirm, AcceptConfirmV1, AcceptConfirmV2 } from './accept-confirm.ts';
import { hex, printable } from './bytes.ts';
import type { ClcCheck, ClcContext } from './checks.ts';
import type { Decline } from './decline.ts';
import { declineReason, SMC_CLC_DECL } from './decline-codes.ts';
import { decodeDeviceList, ENTRY_CHID, LIST_ENTRY_BYTES } from './device-list.ts';
import { FEATURE_EMULATED_ISM, type FirstContact, RELEASE_V21 } from './first-contact.ts';
import { EYECATCHER_BYTES, eyecatcherName, FLAGS } from './header.ts';
import { type ClcField, listClc } from './listing.ts';
import type { ClcMessage } from './message.ts';
import { type Proposal, type ProposalV1, proposedDevices } from './proposal.ts';
import type { ProposalV2 } from './proposal-v2.ts';

/** SMC-D has DMBs of 16 KiB to 1 MiB. */
const LARGEST_DMBE_SIZE = 6;

/** Fields of the listing. */
const PROPOSED_RELEASE = 'release:4 rsvd:3 seid:1';
const AGREED_RELEASE = 'os_type:4 release:4';

/** @param bytes of this message, no more and no less */
export function carefulChecks(bytes: Buffer, message: ClcMessage, context: ClcContext): ClcCheck[] {
  const checks = new Checks(bytes);
  checkFrame(checks, bytes, message);
  switch (message.type) {
    case 'proposal':
      checkProposal(checks, message);
      break;
    case 'accept':
    case 'confirm':
      if (message.mode === 'D') checkDmb(checks, message, context);
      break;
    case 'decline':
      checkDecline(checks, message);
      break;
    default:
      message satisfies never;
  }
  return checks.list;
}

/** Fields are named as in the listing, which knows where they are. */
class Checks {
  readonly list: ClcCheck[] = [];
  readonly fields: readonly ClcField[];

  constructor(bytes: Buffer) {
    this.fields = listClc(bytes);
  }

  /** @param got what is there; by default the bytes of the field */
  add(passed: boolean, name: string, expected: string, got?: string | number): void {
    const { field = name, offset = 0, hex: found = '' } = this.fields.find(({ field }) => field === name) ?? {};
    const shown = String(got ?? found);
    this.list.push({ by: 'careful readers', passed, field, offset, expected, got: shown, linux: null });
  }

  /** A field in which bits are reserved, or all. */
  reserved({ field, offset, hex: found }: ClcField, mask: number | null): void {
    const passed = mask === null ? /^0*$/.test(found) : (Number.parseInt(found, 16) & mask) === 0;
    const expected = mask === null ? 'zero' : `bits ${hex(mask, 2)} zero`;
    this.list.push({ by: 'careful readers', passed, field, offset, expected, got: found, linux: null });
  }
}

const FLAGS_FIELD: Readonly<Record<ClcMessage['type'], string>> = {
  proposal: 'version:4 typev2:2 typev1:2',
  accept: 'version:4 fc:1 rsvd:1 type:2',
  confirm: 'version:4 fc:1 rsvd:1 type:2',
  decline: 'version:4 sync:2 rsvd:2',
};

function checkFrame(checks: Checks, bytes: Buffer, message: ClcMessage): void {
  const isOfD = (message.type === 'accept' || message.type === 'confirm') && message.mode === 'D';
  const usual = isOfD ? 'SMCD' : 'SMCR';
  for (const [field, at] of [['eyecatcher', 0] as const, ['trailer', bytes.length - EYECATCHER_BYTES] as const]) {
    const found = eyecatcherName(bytes.subarray(at, at + EYECATCHER_BYTES));
    checks.add(found === usual, field, `${usual} in this message`, found);
  }
  const version = bytes.readUInt8(FLAGS) >> 4;
  checks.add(version <= 2, FLAGS_FIELD[message.type], 'version 1 or 2', `version ${version}`);
  for (const field of checks.fields) {
    if (field.field.startsWith('reserved')) checks.reserved(field, null);
    else if (field.field.includes(' rsvd:')) checks.reserved(field, reservedBits(field.field));
  }
}

/** @param name as `release:4 rsvd:3 seid:1`, from the highest bit on */
function reservedBits(name: string): number {
  let mask = 0;
  for (const [, part, width] of name.matchAll(/(\w+):(\d)/g)) {
    const bits = Number(width);
    mask = (mask << bits) | (part === 'rsvd' ? (1 << bits) - 1 : 0);
  }
  return mask;
}

// --- Proposal ---

function checkProposal(checks: Checks, proposal: Proposal): void {
  const { v1, v2 } = proposal;
  if (v1) checkPrefixes(checks, v1);
  if (v2) checkV2(checks, v2, proposal);
}

function checkPrefixes(checks: Checks, { subnet, prefixLength, ipv6Prefixes }: ProposalV1): void {
  checkPrefix(checks, 'prefix_len', 'outgoing_subnet', subnet, prefixLength);
  for (const [i, { prefix, length }] of ipv6Prefixes.entries()) {
    checkPrefix(checks, `ipv6 prefix_len ${i}`, `ipv6 prefix ${i}`, prefix, length);
  }
}

function checkPrefix(checks: Checks, lengthField: string, field: string, prefix: Buffer, length: number): void {
  const bits = prefix.length * 8;
  checks.add(length <= bits, lengthField, `at most ${bits}`, length);
  const host = prefix.some((byte, i) => (byte & (0xff >> Math.min(8, Math.max(0, length - i * 8)))) !== 0);
  checks.add(!host, field, 'host bits zero');
}

function checkV2(checks: Checks, v2: ProposalV2, proposal: Proposal): void {
  const { release, featureMask, userEids, smcd, misplacedSmcd } = v2;
  checks.add(release <= RELEASE_V21, PROPOSED_RELEASE, `release ${RELEASE_V21} at most`, `release ${release}`);
  checkFeatures(checks, featureMask);
  for (const [i, eid] of userEids.entries()) {
    checks.add(isEid(eid), `ueid ${i}`, 'A-Z, 0-9, "." and "-", blanks behind', quoted(eid));
    checks.add(userEids.indexOf(eid) === i, `ueid ${i}`, 'each EID once', quoted(eid));
  }
  if (misplacedSmcd) checks.add(false, 'smcd_v2_ext_offset', 'where the SMC-D v2 extension is');
  if (smcd === null) return;
  if (smcd.seid === null) {
    const found = checks.fields.find(({ field }) => field === 'system_eid')?.hex ?? '';
    checks.add(/^0*$/.test(found), 'system_eid', 'zero, for it is not offered');
  } else {
    checks.add(isEid(smcd.seid), 'system_eid', 'A-Z, 0-9, "." and "-"', quoted(smcd.seid));
  }
  const devices = proposedDevices(proposal);
  const hasDevice = devices.length > 0 || proposal.nativeDevice !== undefined;
  checks.add(hasDevice, 'ism_gid_cnt', 'a device for SMC-D v2', hasDevice ? devices.length : 'none');
  checkEntries(checks, smcd.entries);
  for (const [i, { chid }] of devices.entries()) {
    const isFirst = devices.findIndex((other) => other.chid === chid) === i;
    checks.add(isFirst, 'ism_gid_cnt', 'each CHID once', `${isFirst ? 'one' : 'another'} of CHID ${hex(chid, 4)}`);
  }
  if (devices.some(({ chid }) => isEmulated(chid))) checkEmulated(checks, release, featureMask, PROPOSED_RELEASE);
}

/** @param entries there when not all of them make devices */
function checkEntries(checks: Checks, entries: Buffer | undefined): void {
  for (let at = 0; entries !== undefined && at < entries.length; at += LIST_ENTRY_BYTES) {
    const chid = parseChid(entries.readUInt16BE(at + ENTRY_CHID));
    if (!isEmulated(chid)) continue;
    const [first] = decodeDeviceList(entries.subarray(at, at + 2 * LIST_ENTRY_BYTES));
    const isWhole = first?.chid === chid;
    const got = isWhole ? 'one' : 'half a GID, which is skipped';
    checks.add(isWhole, `gid ${at / LIST_ENTRY_BYTES}`, 'a second half of the same CHID behind it', got);
    if (isWhole) at += LIST_ENTRY_BYTES;
  }
}

function checkFeatures(checks: Checks, mask: number): void {
  checks.add((mask & ~FEATURE_EMULATED_ISM) === 0, 'feature_mask', 'no unknown features');
}

/** Who has an emulated device has to understand GIDs of 128 bits. @param releaseField where that is said without a mask */
function checkEmulated(checks: Checks, release: number, mask: number | undefined, releaseField: string): void {
  const isSaid = release >= RELEASE_V21 && mask !== undefined && (mask & FEATURE_EMULATED_ISM) !== 0;
  const got = mask === undefined ? `release ${release}` : `release ${release}, ${hex(mask, 4)}`;
  const field = mask === undefined ? releaseField : 'feature_mask';
  checks.add(isSaid, field, 'release 1 and features 0001 for an emulated device', got);
}

const quoted = (text: string) => `"${printable(text)}"`;

function isEid(eid: Eid): boolean {
  try {
    parseUeid(eid); // a SEID is within its rules
    return true;
  } catch {
    return false;
  }
}

// --- Accept and Confirm ---

function checkDmb(checks: Checks, message: AcceptConfirmV1 | AcceptConfirmV2, context: ClcContext): void {
  const { dmbeSize } = message;
  checks.add(dmbeSize <= LARGEST_DMBE_SIZE, 'dmbe_size:4 rsvd:4', 'at most 6 (1 MiB)', dmbeSize);
  checks.add(/[^0-]/.test(message.gid), 'gid', 'not zero');
  if (message.version === 2) checkAnswerV2(checks, message);
  if (message.type === 'accept') checkAgainstProposal(checks, message, context.proposal);
  else checkAgainstBoth(checks, message, context);
}

function checkAnswerV2(checks: Checks, { chid, eid, firstContact, fce, trailing }: AcceptConfirmV2): void {
  checks.add(isEid(eid), 'negotiated eid', 'A-Z, 0-9, "." and "-", blanks behind', quoted(eid));
  const second = checks.fields.find(({ field }) => field === 'gid_ext')?.hex ?? '';
  if (!isEmulated(chid)) checks.add(/^0*$/.test(second), 'gid_ext', 'zero, for this CHID is of hardware');
  if (firstContact) {
    checks.add(fce !== null, 'length', 'at least 114, with first contact');
    if (fce !== null) checkFirstContact(checks, fce, isEmulated(chid));
  }
  checks.add(
    trailing === undefined,
    trailing ? 'trailing' : 'trailer',
    'nothing in front of it',
    `${trailing?.length ?? 0} bytes`,
  );
}

function checkFirstContact(checks: Checks, { release, v21 }: FirstContact, emulated: boolean): void {
  checks.add(release <= RELEASE_V21, AGREED_RELEASE, `release ${RELEASE_V21} at most`, `release ${release}`);
  const name = Buffer.from(checks.fields.find(({ field }) => field === 'hostname')?.hex ?? '', 'hex').toString(
    'latin1',
  );
  checks.add(/^[!-~]+ *$/.test(name), 'hostname', 'ASCII, blanks behind', quoted(name));
  if (release >= RELEASE_V21) {
    checks.add(v21 !== null, 'length', `at least 130, with release ${release}`);
    if (v21 !== null) checkFeatures(checks, v21.featureMask);
  }
  if (emulated) checkEmulated(checks, release, v21?.featureMask, AGREED_RELEASE);
}

/** An Accept chooses from what was offered; the CHID Linux checks itself. */
function checkAgainstProposal(
  checks: Checks,
  message: AcceptConfirmV1 | AcceptConfirmV2,
  proposal: Proposal | undefined,
): void {
  if (message.version === 1 || !proposal?.v2) return;
  const { eid, fce } = message;
  const { userEids, smcd, release } = proposal.v2;
  const isOffered = userEids.includes(eid) || smcd?.seid === eid;
  checks.add(isOffered, 'negotiated eid', 'one that was offered', quoted(eid));
  if (fce) {
    const got = `release ${fce.release}`;
    checks.add(fce.release <= release, AGREED_RELEASE, `release ${release} at most, as offered`, got);
  }
}

/** A Confirm describes the device that was offered, and repeats what the Accept said. */
function checkAgainstBoth(
  checks: Checks,
  message: AcceptConfirmV1 | AcceptConfirmV2,
  { proposal, accept }: ClcContext,
): void {
  if (proposal !== undefined) {
    const own = message.version === 1 ? [proposal.nativeDevice] : proposedDevices(proposal);
    const isOffered = own.some(
      (device) => device?.gid === message.gid && (message.version === 1 || device.chid === message.chid),
    );
    checks.add(isOffered, 'gid', 'of a device that was offered', message.gid);
  }
  if (accept === undefined) return;
  checkAgainstAccept(checks, message, accept);
}

function checkAgainstAccept(checks: Checks, message: AcceptConfirmV1 | AcceptConfirmV2, accept: AcceptConfirm): void {
  const modeOf = ({ version, mode, firstContact }: AcceptConfirm) =>
    `SMC-${mode} v${version}, ${firstContact ? '' : 'no '}first contact`;
  const expected = `as in the Accept: ${modeOf(accept)}`;
  checks.add(modeOf(message) === modeOf(accept), FLAGS_FIELD.confirm, expected, modeOf(message));
  if (message.version === 1 || accept.mode === 'R' || accept.version === 1) return;
  const { chid, eid, fce } = message;
  checks.add(chid === accept.chid, 'chid', `${hex(accept.chid, 4)}, as in the Accept`, hex(chid, 4));
  const agreed = quoted(accept.eid);
  checks.add(eid === accept.eid, 'negotiated eid', `${agreed}, as in the Accept`, quoted(eid));
  if (fce?.v21 && accept.fce?.v21) {
    const more = fce.v21.featureMask & ~accept.fce.v21.featureMask;
    checks.add(more === 0, 'feature_mask', `within ${hex(accept.fce.v21.featureMask, 4)}, as in the Accept`);
  }
}

// --- Decline ---

function checkDecline(checks: Checks, { diagnosis, outOfSync }: Decline): void {
  const code = hex(diagnosis, 8);
  checks.add(declineReason(diagnosis) !== undefined, 'peer_diagnosis', 'a code of Linux', code);
  checks.add(diagnosis !== SMC_CLC_DECL.PEERDECL, 'peer_diagnosis', 'a code for the wire, not a note to oneself', code);
  const isSyncError = diagnosis === SMC_CLC_DECL.SYNCERR;
  const got = outOfSync ? 'set' : 'not set';
  const expected = isSyncError ? 'out of sync, with SYNCERR' : 'not out of sync, without SYNCERR';
  checks.add(outOfSync === isSyncError, FLAGS_FIELD.decline, expected, got);
}
