/**
 * Decline: "no SMC, stay on TCP". Sent by the client instead of a Proposal or Confirm, by the server instead of an Accept
 * or after a bad Confirm. It speaks the version of the message it answers. The TCP payload begins right behind it.
 *
 * Source: RFC 7609 appendix A.2, net/smc/smc_clc.h. Big-endian. Reserved is 0.
 *
 *     offset | size | field             | values                                                              | since
 *     0      | 8    | header            | typev2 bit 1 (0x08 of the byte): out of sync; eyecatcher SMCR       | v1
 *     8      | 8    | id_for_peer       | who declines, 0 without RDMA                                        | v1
 *     16     | 4    | peer_diagnosis    | why, see SMC_CLC_DECL                                               | v1
 *     20     | 1    | os_type           | bits 7-4: 1 z/OS, 2 Linux, 3 AIX; v1: 0; bits 3-0 reserved          | v2
 *     21     | 3    | reserved          |                                                                     |
 *     24     | 16   | peer_diagnosis_v2 | four more codes, 0 from Linux                                       | v2
 *     24, 40 | 4    | trailer           | not checked, as in Linux                                            | v1
 */
import { applyResidue, copyUnlessZero, hex, nibbles, put, type WithResidue, withResidue } from './bytes.ts';
import { osName } from './first-contact.ts';
import { type ClcVersion, checkLength, newMessage, openMessage } from './header.ts';

const OUT_OF_SYNC = 2;
const PEER_ID = 8;
const PEER_ID_BYTES = 8;
const DIAGNOSIS = 16;
const OS_TYPE = 20;
const MORE_DIAGNOSIS = 24;
const MORE_DIAGNOSIS_COUNT = 4;
const CODE_BYTES = 4;
const DECLINE_V1_BYTES = 28;
const DECLINE_V2_BYTES = 44;

/** Diagnosis codes by the names of Linux (SMC_CLC_DECL_*). Other systems have codes of their own. */
export const SMC_CLC_DECL = {
  /** No memory or buffer of any size, or attaching failed. */
  MEM: 0x01010000,
  /** SMC-R: confirm link timed out. */
  TIMEOUT_CL: 0x02010000,
  /** SMC-R: add link timed out. */
  TIMEOUT_AL: 0x02020000,
  /** Configuration: own IP prefix not found. */
  CNFERR: 0x03000000,
  /** The peer doesn't speak SMC, or offers nothing usable. */
  PEERNOSMC: 0x03010000,
  /** IPsec on the connection. */
  IPSEC: 0x03020000,
  /** No device at all. */
  NOSMCDEV: 0x03030000,
  /** No SMC-D device; also when no EID is common. */
  NOSMCDDEV: 0x03030001,
  /** No SMC-R device. */
  NOSMCRDEV: 0x03030002,
  /** Own devices can't do v2. */
  NOISM2SUPP: 0x03030003,
  /** No v2 extension in the Proposal. */
  NOV2EXT: 0x03030004,
  /** No SMC-D v2 extension in the Proposal. */
  NOV2DEXT: 0x03030005,
  /** No SEID in the Proposal. */
  NOSEID: 0x03030006,
  /** No own device with a proposed CHID reaches the peer. */
  NOSMCD2DEV: 0x03030007,
  /** No EID in the Proposal. */
  NOUEID: 0x03030008,
  /** The release of the Confirm is not the negotiated one. */
  RELEASEERR: 0x03030009,
  /** SMC-R: maximum of connections out of range or changed. */
  MAXCONNERR: 0x0303000a,
  /** SMC-R: maximum of links out of range or changed. */
  MAXLINKERR: 0x0303000b,
  /** The Accept names what was not offered. */
  MODEUNSUPP: 0x03040000,
  /** SMC-R: bad eyecatcher of an RMBE. */
  RMBE_EC: 0x03050000,
  /** Socket option that SMC can't do. */
  OPTUNSUPP: 0x03060000,
  /** v1: other IP subnet. */
  DIFFPREFIX: 0x03070000,
  /** VLAN id of the interface not found. */
  GETVLANERR: 0x03080000,
  /** VLAN id can't be registered on the device. */
  ISMVLANERR: 0x03090000,
  /** SMC-R: no active link. */
  NOACTLINK: 0x030a0000,
  /** SMC-R: no link of the server's. */
  NOSRVLINK: 0x030b0000,
  /** Version mismatch. */
  VERSMISMAT: 0x030c0000,
  /** The device has no DMB left. */
  MAX_DMB: 0x030d0000,
  /** SMC-R: no route. */
  NOROUTE: 0x030e0000,
  /** SMC-R: no indirect route. */
  NOINDIRECT: 0x030f0000,
  /** The server joined a link group that the client doesn't have. */
  SYNCERR: 0x04000000,
  /** Local note, not sent: the peer declined. */
  PEERDECL: 0x05000000,
  /** Internal error. */
  INTERR: 0x09990000,
  /** SMC-R: rtoken handling failed. */
  ERR_RTOK: 0x09990001,
  /** SMC-R: a link could not be made ready. */
  ERR_RDYLNK: 0x09990002,
  /** SMC-R: a buffer could not be registered. */
  ERR_REGBUF: 0x09990003,
} as const;

export interface Decline extends WithResidue {
  readonly type: 'decline';
  readonly version: ClcVersion;
  readonly diagnosis: number;
  /** With SYNCERR: the receiver's link group is of no use any more. */
  readonly outOfSync: boolean;
  /** Four bits: 0 unknown, 1 z/OS, 2 Linux, 3 AIX. */
  readonly os: number;
  /** 8 bytes; absent: zero. */
  readonly peerId?: Buffer;
  /** Four codes, version 2 only; absent: all zero. */
  readonly moreDiagnosis?: readonly number[];
}

export function decodeDecline(bytes: Uint8Array): Decline {
  const { header, view } = openMessage(bytes, 'decline');
  checkLength(header, lengthOf(header.version));
  const peerId = copyUnlessZero(view, PEER_ID, PEER_ID_BYTES);
  const moreDiagnosis: number[] = [];
  for (let i = 0; header.version === 2 && i < MORE_DIAGNOSIS_COUNT; i++) {
    moreDiagnosis.push(view.readUInt32BE(MORE_DIAGNOSIS + i * CODE_BYTES));
  }
  const message: Decline = {
    type: 'decline',
    version: header.version,
    diagnosis: view.readUInt32BE(DIAGNOSIS),
    outOfSync: (header.typev2 & OUT_OF_SYNC) !== 0,
    os: view.readUInt8(OS_TYPE) >> 4,
    ...(peerId && { peerId }),
    ...(moreDiagnosis.some((code) => code !== 0) && { moreDiagnosis }),
  };
  return withResidue(message, view, write(message));
}

export function encodeDecline(message: Decline): Buffer {
  return applyResidue(write(message), message.residue);
}

function write({ version, diagnosis, outOfSync, os, peerId, moreDiagnosis = [] }: Decline): Buffer {
  if (moreDiagnosis.length !== 0 && (version === 1 || moreDiagnosis.length !== MORE_DIAGNOSIS_COUNT)) {
    throw new RangeError(`more diagnosis codes: ${MORE_DIAGNOSIS_COUNT}, in version 2 only`);
  }
  const typev2 = outOfSync ? OUT_OF_SYNC : 0;
  const bytes = newMessage('SMCR', { type: 'decline', length: lengthOf(version), version, typev1: 0, typev2 });
  put(bytes, PEER_ID, PEER_ID_BYTES, 'id_for_peer', peerId);
  bytes.writeUInt32BE(diagnosis, DIAGNOSIS);
  bytes.writeUInt8(nibbles('os_type', os, 0), OS_TYPE);
  for (const [i, code] of moreDiagnosis.entries()) bytes.writeUInt32BE(code, MORE_DIAGNOSIS + i * CODE_BYTES);
  return bytes;
}

function lengthOf(version: ClcVersion): number {
  return version === 1 ? DECLINE_V1_BYTES : DECLINE_V2_BYTES;
}

export function describeDecline({ version, diagnosis, outOfSync, os, moreDiagnosis }: Decline): string {
  const codes = [diagnosis, ...(moreDiagnosis ?? [])].map((code) => `0x${hex(code, 8)}`);
  const name = declineName(diagnosis);
  const parts = [`Decline v${version}: ${codes.join(' ')}${name ? ` ${name}` : ''}`];
  if (outOfSync) parts.push('out of sync');
  if (os !== 0) parts.push(osName(os));
  return parts.join(', ');
}

/** The name without SMC_CLC_DECL_, undefined for a code that Linux doesn't have. */
export function declineName(code: number): string | undefined {
  return Object.entries(SMC_CLC_DECL).find(([, value]) => value === code)?.[0];
}
