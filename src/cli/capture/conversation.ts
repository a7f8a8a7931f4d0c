/** What is said on one connection: each message judged by what went before it, and what came of all of them in words. */

import { hex } from '../../smc/clc/bytes.ts';
import { CLC_TYPES, HEADER_BYTES, LENGTH, TYPE } from '../../smc/clc/header.ts';
import {
  type AcceptConfirm,
  type ClcCheck,
  type ClcContext,
  type ClcMessage,
  type ClcType,
  checkClc,
  declineReason,
  decodeClc,
  type Proposal,
  RELEASE_V21,
} from '../../smc/clc/index.ts';

export interface Judged {
  readonly bytes: Buffer;
  /** Null when it says none that there is. */
  readonly type: ClcType | null;
  /** Null when it cannot be decoded. */
  readonly message: ClcMessage | null;
  /** None when the rest of it is missing in the capture only. */
  readonly checks: readonly ClcCheck[];
  readonly isCutByCapture: boolean;
}

export type Side = 'client' | 'server';

export class Conversation {
  /** What came of it; null: nothing yet. */
  outcome: string | null = null;
  #isDeclined = false;
  #proposal: Proposal | undefined;
  #accept: AcceptConfirm | undefined;
  #last: Judged | null = null;

  /**
   * @param bytes one message, or what there is of it; what stands behind it does not count
   * @param side who sends it; null: not known
   * @param isCutByCapture whether the rest of it is missing in the capture only
   */
  judge(bytes: Buffer, side: Side | null, isCutByCapture = false): Judged {
    const context = this.#context(side);
    const type = CLC_TYPES[bytes[TYPE] ?? 0] ?? null;
    const judged = {
      bytes,
      type,
      message: decoded(bytes),
      checks: isCutByCapture ? [] : checkClc(bytes, context),
      isCutByCapture,
    };
    this.#last = judged;
    this.#take(judged, side);
    return judged;
  }

  /** What other bytes behind the outcome are. */
  get followText(): string {
    return this.#isDeclined ? 'plain TCP goes on' : 'other bytes follow on TCP, which Linux does not deliver';
  }

  /** How it stands when no more comes. @param end what ended it */
  unfinished(end: string): string {
    const { type, checks, isCutByCapture } = this.#last ?? { type: null, checks: [], isCutByCapture: false };
    if (isCutByCapture) return `bytes are missing in the capture (tcpdump -s 0 takes them all); ${end}`;
    const ended = checks.find(({ passed, linux }) => !passed && (linux?.does === 'closes' || linux?.does === 'waits'));
    const name = nameOf(type);
    if (ended !== undefined) return `Linux ${ended.linux?.does} at this ${name} (${ended.field}); ${end}`;
    return type === 'proposal' || type === 'accept' ? `no answer to the ${name}; ${end}` : `no handshake; ${end}`;
  }

  #context(side: Side | null): ClcContext {
    const known = {
      ...(this.#proposal && { proposal: this.#proposal }),
      ...(this.#accept && { accept: this.#accept }),
    };
    if (side === null) return known;
    const awaited = side === 'server' ? 'accept' : this.#last === null ? 'proposal' : 'confirm';
    return { ...known, expected: awaited };
  }

  #take({ message, checks }: Judged, side: Side | null): void {
    if (message === null) return;
    switch (message.type) {
      case 'proposal':
        this.#proposal = message;
        this.#accept = undefined;
        break;
      case 'accept':
        this.#accept = message;
        break;
      case 'confirm': {
        const refused = checks.find(({ passed, linux }) => !passed && linux !== null);
        if (refused === undefined) this.outcome = agreedText(message);
        break;
      }
      case 'decline': {
        const { name, text } = declineReason(message.diagnosis) ?? { name: 'unknown code', text: 'not one of Linux' };
        this.#isDeclined = true;
        const by = side === null ? '' : ` by the ${side}`;
        this.outcome = `declined${by}: 0x${hex(message.diagnosis, 8)} ${name}: ${text.replace(/\.$/, '')}`;
        break;
      }
      default:
        message satisfies never;
    }
  }
}

export function nameOf(type: ClcType | null): string {
  return type === null ? 'message' : type.replace(/^./, (first) => first.toUpperCase());
}

function decoded(bytes: Buffer): ClcMessage | null {
  try {
    return decodeClc(bytes.subarray(0, bytes.length < HEADER_BYTES ? 0 : bytes.readUInt16BE(LENGTH)));
  } catch {
    return null;
  }
}

function agreedText(message: AcceptConfirm): string {
  const { mode, version, firstContact } = message;
  const isV21 = message.mode === 'D' && message.version === 2 && (message.fce?.release ?? 0) >= RELEASE_V21;
  const parts = [`SMC-${mode} v${version}${isV21 ? '.1' : ''}`];
  parts.push(firstContact ? 'first contact' : 'in a link group that was there');
  if (message.mode === 'D' && message.version === 2) parts.push(`CHID ${hex(message.chid, 4)}`, `EID ${message.eid}`);
  return parts.join(', ');
}
