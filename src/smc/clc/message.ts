/** Any message of CLC: by its type to the codec that knows it. */
import {
  type AcceptConfirm,
  decodeAcceptConfirm,
  describeAcceptConfirm,
  encodeAcceptConfirm,
} from './accept-confirm.ts';
import { type Decline, decodeDecline, describeDecline, encodeDecline } from './decline.ts';
import { decodeHeader } from './header.ts';
import { decodeProposal, describeProposal, encodeProposal, type Proposal } from './proposal.ts';

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
