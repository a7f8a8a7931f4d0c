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
import { declineName } from './decline-codes.ts';
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
