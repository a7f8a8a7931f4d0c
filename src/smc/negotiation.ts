/**
 * What the two ends of a handshake offer and choose: pure functions over CLC messages. The order of checks and their codes are
 * those of Linux (af_smc.c, smc_clc.c). What Linux takes on trust is checked as well: EID, CHID and GID of each answer, and that
 * a first contact has its extension.
 *
 * SMC-D of version 2 is chosen or nothing: our devices are emulated ISM (GIDs of 128 bits), which version 1 cannot name, and SMC-R
 * needs other hardware.
 *
 * Isthmus says in the vendor options that it can use its own head of a DMB (head.ts) instead of the kernel's CDC message: in the
 * Proposal what it can, in the first contact what was chosen for the link group.
 */
import { type Chid, type Eid, type Gid, isEmulated } from '../ism/index.ts';
import {
  type AcceptConfirm,
  type AcceptConfirmV2,
  FEATURE_EMULATED_ISM,
  type FirstContact,
  MAX_LIST_ENTRIES,
  OS_LINUX,
  type Proposal,
  type ProposalV1,
  type ProposalV2,
  proposedDevices,
  RELEASE_V21,
} from './clc/index.ts';
import { PeerFault } from './errors.ts';
import type { LayoutName } from './layout.ts';
import { REASONS, type Reason } from './reasons.ts';

/** Locally administered, so nobody else's. */
const VENDOR_OUI = Buffer.from([0x02, 0x49, 0x53]);
const HEAD_VERSION = 2;
const OFFERED_HEAD = Buffer.from([HEAD_VERSION, 0, 0, 0, 0]);
const CHOSEN_HEAD = Buffer.from([0x49, 0x53, HEAD_VERSION, 0]);

/** A device as it stands in messages. */
export interface DeviceName {
  readonly gid: Gid;
  readonly chid: Chid;
}

/** What an end brings along. */
export interface Means {
  /** In the order in which they are offered. */
  readonly devices: readonly DeviceName[];
  readonly ueids: readonly Eid[];
  /** Null where the machine has none, or it is disabled. */
  readonly seid: Eid | null;
  /** That can be used, the preferred one first. */
  readonly layouts: readonly LayoutName[];
  /** Addresses of the interface that the TCP connection uses; null: not to be compared. */
  readonly prefixes: readonly Prefix[] | null;
}

export interface Prefix {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Bits of it that name the subnet. */
  readonly length: number;
}

export const SMALLEST_DMBE_BYTES = 16384;

/** Code of a DMB's length: 16384 << code. */
export function dmbeSizeCode(lengthBytes: number): number {
  return Math.log2(lengthBytes / SMALLEST_DMBE_BYTES);
}

/** Version 2.1, SMC-D only. Devices for which there is no place, or whose CHID is taken, are left out. */
export function makeProposal({ devices, ueids, seid, layouts }: Means): Proposal {
  return {
    type: 'proposal',
    version: 2,
    v1: null,
    v2: {
      offer: 'D',
      release: RELEASE_V21,
      featureMask: FEATURE_EMULATED_ISM,
      userEids: ueids,
      smcd: { seid, devices: offered(devices) },
    },
    ...(layouts.includes('isthmus') && { vendor: { oui: VENDOR_OUI, options: OFFERED_HEAD } }),
  };
}

function offered(devices: readonly DeviceName[]): DeviceName[] {
  const list: DeviceName[] = [];
  let entries = 0;
  for (const { gid, chid } of devices) {
    const needed = isEmulated(chid) ? 2 : 1;
    if (entries + needed > MAX_LIST_ENTRIES || list.some((one) => one.chid === chid)) continue;
    list.push({ gid, chid });
    entries += needed;
  }
  return list;
}

/** What a server makes of a Proposal, up to where a device has to be asked. */
export interface Offer {
  /** For SMC-D version 2, in the client's order of preference; null when that is not to be tried. */
  readonly candidates: readonly DeviceName[] | null;
  /** Null when none is common. */
  readonly eid: Eid | null;
  readonly release: number;
  readonly layout: LayoutName;
  /** What to say when no candidate comes to anything, and gives no reason of its own. */
  readonly otherwise: Reason;
}

export function readProposal(proposal: Proposal, own: Means): Offer {
  const { v1, v2 } = proposal;
  const layout = own.layouts.find((one) => one === 'kernel' || offersOwnHead(proposal));
  const refused = v2 === null ? null : refuseV2(v2, own);
  const isChoice = v2 !== null && offersSmcd(v2) && refused === null && layout !== undefined;
  const hasMore = v1 !== null || (v2 !== null && v2.offer !== 'D');
  return {
    candidates: isChoice ? proposedDevices(proposal) : null,
    eid: v2 === null ? null : commonEid(v2, own),
    // Our own head is said in the extension of v2.1.
    release: Math.min(v2?.release ?? 0, RELEASE_V21),
    layout: layout ?? 'kernel',
    otherwise: refused !== null && !hasMore ? refused : whatIsLeft(v1, v2, own.prefixes),
  };
}

function offersSmcd({ offer }: ProposalV1 | ProposalV2): boolean {
  return offer !== 'R';
}

function offersOwnHead({ vendor, v2 }: Proposal): boolean {
  const isOurs = vendor?.oui.equals(VENDOR_OUI) && vendor.options[0] === HEAD_VERSION;
  return isOurs === true && (v2?.release ?? 0) >= RELEASE_V21;
}

/** Takes version 2 of SMC-D out. */
function refuseV2(v2: ProposalV2, own: Means): Reason | null {
  if (!offersSmcd(v2)) return null;
  if (own.devices.length === 0) return REASONS.NOISM2SUPP;
  if (v2.smcd === null) return REASONS.NOV2DEXT;
  if (v2.userEids.length === 0 && v2.smcd.seid === null) return REASONS.NOUEID;
  return null;
}

/** The SEID before the UEIDs, those in the client's order. */
function commonEid({ smcd, userEids }: ProposalV2, own: Means): Eid | null {
  if (smcd !== null && smcd.seid !== null && smcd.seid === own.seid) return smcd.seid;
  return userEids.find((one) => own.ueids.includes(one)) ?? null;
}

/** The steps after SMC-D version 2, none of which can succeed here. */
function whatIsLeft(v1: ProposalV1 | null, v2: ProposalV2 | null, prefixes: readonly Prefix[] | null): Reason {
  if (v1 === null && v2 === null) return REASONS.PEERNOSMC;
  if (v1 !== null && prefixes !== null && !hasCommonPrefix(v1, prefixes)) return REASONS.DIFFPREFIX;
  const offers = [v1, v2].filter((one) => one !== null);
  return offers.some(offersSmcd) ? REASONS.NOSMCDDEV : REASONS.NOSMCRDEV;
}

function hasCommonPrefix({ subnet, prefixLength, ipv6Prefixes }: ProposalV1, own: readonly Prefix[]): boolean {
  const theirs: readonly { prefix: Uint8Array; length: number }[] =
    ipv6Prefixes.length > 0 ? ipv6Prefixes : [{ prefix: subnet, length: prefixLength }];
  return own.some(({ address, length }) =>
    theirs.some((one) => one.length === length && isWithin(address, one.prefix, length)),
  );
}

function isWithin(address: Uint8Array, prefix: Uint8Array, length: number): boolean {
  if (address.length !== prefix.length || length > 8 * address.length) return false;
  return address.every((byte, i) => {
    const bits = Math.min(8, Math.max(0, length - 8 * i));
    const mask = (0xff << (8 - bits)) & 0xff;
    return ((byte ^ (prefix[i] ?? 0)) & mask) === 0;
  });
}

/** What an Accept and its Confirm are about. */
export interface Agreed {
  readonly device: DeviceName;
  readonly eid: Eid;
  readonly linkId: number;
  readonly firstContact: boolean;
  readonly release: number;
  readonly featureMask: number;
  readonly layout: LayoutName;
}

/** What Isthmus understands. */
export const OWN_FEATURES = FEATURE_EMULATED_ISM;

/** Accept or Confirm: describes the sender's own DMB. */
export function makeAnswer(
  type: 'accept' | 'confirm',
  agreed: Agreed,
  dmb: { readonly token: AcceptConfirmV2['token']; readonly lengthBytes: number },
  hostName: string,
): AcceptConfirmV2 {
  const { device, eid, linkId, firstContact } = agreed;
  return {
    type,
    mode: 'D',
    version: 2,
    firstContact,
    gid: device.gid,
    chid: device.chid,
    eid,
    token: dmb.token,
    dmbeIndex: 0,
    dmbeSize: dmbeSizeCode(dmb.lengthBytes),
    linkId,
    fce: firstContact ? makeFirstContact(agreed, hostName) : null,
  };
}

function makeFirstContact({ release, featureMask, layout }: Agreed, hostName: string): FirstContact {
  const own = layout === 'isthmus' ? { vendorOptions: CHOSEN_HEAD } : {};
  return {
    os: OS_LINUX,
    release,
    hostName: hostName.replace(/[^ -~]/g, '').slice(0, 32),
    v21: release < RELEASE_V21 ? null : { featureMask, ...own },
  };
}

/** Which layout a first contact names. */
export function layoutOf({ v21 }: FirstContact): LayoutName {
  return v21?.vendorOptions?.equals(CHOSEN_HEAD) ? 'isthmus' : 'kernel';
}

/** The Accept, or the reason to decline it. Throws PeerFault when it cannot be an answer to what was offered. */
export function readAccept(accept: AcceptConfirm, own: Means): AcceptConfirmV2 | Reason {
  if (accept.mode !== 'D' || accept.version !== 2) return REASONS.MODEUNSUPP;
  const { chid, eid, firstContact, fce } = accept;
  if (!offered(own.devices).some((device) => device.chid === chid)) throw new PeerFault(`CHID ${chid} was not offered`);
  if (eid !== own.seid && !own.ueids.includes(eid)) throw new PeerFault('an EID that was not offered');
  if (!firstContact) return accept;
  if (fce === null) throw new PeerFault('a first contact without its extension');
  return own.layouts.includes(layoutOf(fce)) ? accept : REASONS.MODEUNSUPP;
}

/** The Confirm, or the reason to decline it. Throws PeerFault when it is not about what was agreed. */
export function readConfirm(confirm: AcceptConfirm, agreed: Agreed, peer: Gid): AcceptConfirmV2 | Reason {
  if (confirm.mode !== 'D' || confirm.version !== 2) throw new PeerFault('a Confirm of another mode or version');
  const { chid, eid, gid, firstContact, fce } = confirm;
  if (chid !== agreed.device.chid || eid !== agreed.eid || gid !== peer)
    throw new PeerFault('a Confirm with another CHID, EID or GID');
  if (firstContact !== agreed.firstContact) throw new PeerFault('a Confirm of another first contact');
  if (!firstContact) return confirm;
  if (fce === null) throw new PeerFault('a first contact without its extension');
  if (fce.release !== agreed.release) return REASONS.RELEASEERR;
  if (layoutOf(fce) !== agreed.layout) throw new PeerFault('a Confirm with another layout');
  return confirm;
}

/** Whether a result is the reason why not. */
export function isReason(value: object): value is Reason {
  return 'hint' in value;
}
