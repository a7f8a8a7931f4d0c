/**
 * The CLC messages of SMC-D v1, v2 and v2.1 as values: pure functions from and to bytes.
 *
 * `decodeClc` takes exactly one message and throws ClcWireError when it is none. What it returns can be encoded again to the
 * same bytes. `encodeClc` throws RangeError for what no message can say.
 * @module
 */
import {
  type AcceptConfirm,
  decodeAcceptConfirm,
  describeAcceptConfirm,
  encodeAcceptConfirm,
} from './accept-confirm.ts';
import { type Decline, decodeDecline, describeDecline, encodeDecline } from './decline.ts';
import { decodeHeader } from './header.ts';
import { decodeProposal, describeProposal, encodeProposal, type Proposal } from './proposal.ts';

export {
  type AcceptConfirm,
  type AcceptConfirmR,
  type AcceptConfirmV1,
  type AcceptConfirmV2,
  decodeAcceptConfirm,
  describeAcceptConfirm,
  dmbeSizeBytes,
  encodeAcceptConfirm,
} from './accept-confirm.ts';
export { type Decline, decodeDecline, describeDecline, encodeDecline } from './decline.ts';
export { declineName, SMC_CLC_DECL } from './decline-codes.ts';
export { type IsmDevice, MAX_LIST_ENTRIES } from './device-list.ts';
export {
  describeFirstContact,
  FEATURE_EMULATED_ISM,
  type FirstContact,
  type FirstContactV21,
  OS_LINUX,
  osName,
  RELEASE_V21,
} from './first-contact.ts';
export { type ClcVersion, clcLength, decodeHeader, HEADER_BYTES } from './header.ts';
export { type ClcField, listClc } from './listing.ts';
export type { Offer } from './offer.ts';
export {
  decodeProposal,
  describeProposal,
  encodeProposal,
  type Ipv6Prefix,
  MAX_PROPOSAL_BYTES,
  type Proposal,
  type ProposalV1,
  proposedDevices,
  type Roce,
  type Vendor,
} from './proposal.ts';
export type { ProposalSmcdV2, ProposalV2, RoceV2 } from './proposal-v2.ts';
export { type ClcType, ClcWireError } from './wire-error.ts';

export type ClcMessage = Proposal | AcceptConfirm | Decline;

/** @param bytes exactly one message. */
export function decodeClc(bytes: Uint8Array): ClcMessage {
  const { type } = decodeHeader(bytes);
  switch (type) {
    case 'proposal':
      return decodeProposal(bytes);
    case 'accept':
    case 'confirm':
      return decodeAcceptConfirm(bytes);
    case 'decline':
      return decodeDecline(bytes);
    default:
      return type satisfies never;
  }
}

export function encodeClc(message: ClcMessage): Buffer {
  switch (message.type) {
    case 'proposal':
      return encodeProposal(message);
    case 'accept':
    case 'confirm':
      return encodeAcceptConfirm(message);
    case 'decline':
      return encodeDecline(message);
    default:
      return message satisfies never;
  }
}

/** One line for people. Never contains a token. */
export function describeClc(message: ClcMessage): string {
  switch (message.type) {
    case 'proposal':
      return describeProposal(message);
    case 'accept':
    case 'confirm':
      return describeAcceptConfirm(message);
    case 'decline':
      return describeDecline(message);
    default:
      return message satisfies never;
  }
}
