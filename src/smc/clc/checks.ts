/**
 * What is wrong with a CLC message: the checks that Linux makes, in its order up to the first that ends it, then those that only
 * a reader makes who takes nothing on trust. Pure; for tools and for tests. What `decode` refuses, Isthmus refuses.
 */
import type { Eid, Token } from '../../ism/index.ts';
import type { AcceptConfirm } from './accept-confirm.ts';
import { viewOf } from './bytes.ts';
import { carefulChecks } from './checks-careful.ts';
import { linuxChecks } from './checks-linux.ts';
import type { IsmDevice } from './device-list.ts';
import { HEADER_BYTES, LENGTH } from './header.ts';
import { decodeClc } from './message.ts';
import type { Proposal } from './proposal.ts';
import { type ClcType, ClcWireError } from './wire-error.ts';

/** What Linux does when a check fails. */
export type LinuxConsequence =
  /** Ends the TCP connection: the stream is not to be trusted any more. */
  | { readonly does: 'closes' }
  /** For what is missing, 6 seconds at most; then it closes. */
  | { readonly does: 'waits' }
  /** With this code, one of SMC_CLC_DECL; the connection goes on as TCP. */
  | { readonly does: 'declines'; readonly code: number }
  /** With what else was offered. */
  | { readonly does: 'goes on'; readonly without: 'SMC-D v2' };

export interface ClcCheck {
  readonly by: 'Linux' | 'careful readers';
  readonly passed: boolean;
  readonly field: string;
  /** From the start of the message. */
  readonly offset: number;
  readonly expected: string;
  readonly got: string;
  /** What Linux does if this fails; null when it does not look. */
  readonly linux: LinuxConsequence | null;
}

/** What is known besides the message. */
export interface ClcContext {
  /** The type that is awaited; a Decline may come instead. Absent: any. */
  readonly expected?: Exclude<ClcType, 'decline'>;
  /** The Proposal that went before. */
  readonly proposal?: Proposal;
  /** The Accept that went before. */
  readonly accept?: AcceptConfirm;
  /** Who reads it. Absent: what depends on that is not checked. */
  readonly reader?: ClcReader;
}

/** A host with SMC-D that reads a message. */
export interface ClcReader {
  readonly ueids: readonly Eid[];
  /** Null: there is none, or it is disabled. */
  readonly seid: Eid | null;
  /** Whether an own device has this CHID and reaches this GID. */
  reaches(device: IsmDevice): boolean;
  /** Whether there is a DMB of this token; only devices that map ask before they write. */
  hasDmb?(token: Token): boolean;
}

/** @param bytes a message, or as much of it as there is; what stands behind it is left alone */
export function checkClc(bytes: Uint8Array, context: ClcContext = {}): ClcCheck[] {
  const view = viewOf(bytes);
  const checks: ClcCheck[] = [];
  for (const check of linuxChecks(view, context)) {
    checks.push(check);
    if (!check.passed && check.linux?.does !== 'goes on') break;
  }
  const message = view.subarray(0, view.length < HEADER_BYTES ? view.length : view.readUInt16BE(LENGTH));
  try {
    return [...checks, ...carefulChecks(message, decodeClc(message), context)];
  } catch (error) {
    if (!(error instanceof ClcWireError)) throw error;
    // Where Linux ends it, that was said already.
    return linuxVerdict(checks) === null ? [...checks, undecodable(error)] : checks;
  }
}

function undecodable({ field, offset, expected, got }: ClcWireError): ClcCheck {
  const texts = { expected: String(expected), got: String(got) };
  return { by: 'careful readers', passed: false, field, offset, ...texts, linux: null };
}

/** What Linux does with a message that was checked; null: it goes on. */
export function linuxVerdict(checks: readonly ClcCheck[]): LinuxConsequence | null {
  return checks.find(({ passed, linux }) => !passed && linux !== null && linux.does !== 'goes on')?.linux ?? null;
}
