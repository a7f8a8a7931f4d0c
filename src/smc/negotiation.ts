/**
 * What the two ends of a handshake offer and choose: pure functions over CLC messages. The order of checks and their codes are
 * those of Linux (af_smc.c); in addition it is checked that EID, CHID and GID of each answer are those agreed.
 *
 * Isthmus says in the vendor options that it uses its own head of a DMB (head.ts) instead of the kernel's CDC message: in the
 * Proposal what it can, in the first contact what was chosen for the link group.
 */
import { type Chid, type Eid, type Gid, isEmulated } from '../ism/index.ts';
import {
  type AcceptConfirmV2,
  type ClcMessage,
  FEATURE_EMULATED_ISM,
  type FirstContact,
  OS_LINUX,
  type Proposal,
  proposedDevices,
  RELEASE_V21,
} from './clc/index.ts';
import { REASONS, type Reason } from './reasons.ts';

/** Locally administered, so nobody else's. */
const VENDOR_OUI = Buffer.from([0x02, 0x49, 0x53]);
const HEAD_VERSION = 1;
const OFFERED_HEAD = Buffer.from([HEAD_VERSION, 0, 0, 0, 0]);
const CHOSEN_HEAD = Buffer.from([0x49, 0x53, HEAD_VERSION, 0]);

/** A device as it stands in messages. */
export interface DeviceName {
  readonly gid: Gid;
  readonly chid: Chid;
}

const SMALLEST_DMBE_BYTES = 16384;

/** Code of a DMB's length: 16384 << code. */
export function dmbeSizeCode(lengthBytes: number): number {
  return Math.log2(lengthBytes / SMALLEST_DMBE_BYTES);
}

/** Version 2.1, SMC-D only. @param devices at least one, of 128-bit GIDs, no CHID twice */
export function makeProposal(devices: readonly DeviceName[], ueids: readonly Eid[]): Proposal {
  return {
    type: 'proposal',
    version: 2,
    v1: null,
    v2: {
      offer: 'D',
      release: RELEASE_V21,
      featureMask: FEATURE_EMULATED_ISM,
      userEids: ueids,
      smcd: { seid: null, devices: devices.filter(({ chid }) => isEmulated(chid)) },
    },
    vendor: { oui: VENDOR_OUI, options: OFFERED_HEAD },
  };
}

/** The server's choice, up to where a device has to be asked. */
export function readProposal(
  proposal: Proposal,
  ueids: readonly Eid[],
): { readonly candidates: readonly DeviceName[]; readonly eid: Eid | null } | Reason {
  const { v2, vendor } = proposal;
  if (v2 === null) return REASONS.NOV2EXT;
  if (v2.smcd === null) return REASONS.NOV2DEXT;
  if (v2.userEids.length === 0 && v2.smcd.seid === null) return REASONS.NOUEID;
  if (!vendor?.oui.equals(VENDOR_OUI) || vendor.options[0] !== HEAD_VERSION) return REASONS.NOSMCDDEV;
  const eid = v2.userEids.find((one) => ueids.includes(one)) ?? null;
  return { candidates: proposedDevices(proposal), eid };
}

export interface Agreed {
  readonly device: DeviceName;
  readonly eid: Eid;
  readonly linkId: number;
  readonly firstContact: boolean;
  readonly hostName: string;
}

/** Accept or Confirm: describes the sender's own DMB. */
export function makeAnswer(
  type: 'accept' | 'confirm',
  { device, eid, linkId, firstContact, hostName }: Agreed,
  dmb: { readonly token: AcceptConfirmV2['token']; readonly lengthBytes: number },
): AcceptConfirmV2 {
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
    fce: firstContact ? makeFirstContact(hostName) : null,
  };
}

function makeFirstContact(hostName: string): FirstContact {
  const ascii = hostName.replace(/[^ -~]/g, '').slice(0, 32);
  return {
    os: OS_LINUX,
    release: RELEASE_V21,
    hostName: ascii,
    v21: { featureMask: FEATURE_EMULATED_ISM, vendorOptions: CHOSEN_HEAD },
  };
}

export interface Expected {
  /** Devices that were offered, or the one that was chosen. */
  readonly chids: readonly Chid[];
  readonly eids: readonly Eid[];
  /** The peer, where it is known from elsewhere. */
  readonly peer: Gid | null;
}

/** An Accept or Confirm against what it may be. The message, or the reason not to take it. */
export function readAnswer(
  message: ClcMessage,
  type: 'accept' | 'confirm',
  expected: Expected,
): AcceptConfirmV2 | Reason {
  if (message.type !== type) return REASONS.PROTOCOL;
  if (message.mode !== 'D' || message.version !== 2) return REASONS.MODEUNSUPP;
  const { chid, eid, gid, firstContact, fce } = message;
  if (!expected.chids.includes(chid) || !expected.eids.includes(eid)) return REASONS.MODEUNSUPP;
  if (expected.peer !== null && gid !== expected.peer) return REASONS.PROTOCOL;
  if (!firstContact) return message;
  if (fce?.release !== RELEASE_V21 || fce.v21 === null) return REASONS.RELEASEERR;
  if ((fce.v21.featureMask & FEATURE_EMULATED_ISM) === 0) return REASONS.NOSMCDDEV;
  return fce.v21.vendorOptions?.equals(CHOSEN_HEAD) ? message : REASONS.MODEUNSUPP;
}

/** Whether a result is the reason why not. */
export function isReason(value: object): value is Reason {
  return 'hint' in value;
}
