/** CLC messages to and from the kernel: good ones as values, and what its answers come to, in words. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  CHID_LOOPBACK,
  type Eid,
  type Gid,
  gidFromBytes,
  gidToBytes,
  parseToken,
  type Token,
} from '../../src/ism/index.ts';
import {
  type AcceptConfirmV1,
  type AcceptConfirmV2,
  type ClcMessage,
  clcLength,
  type Decline,
  decodeClc,
  encodeClc,
  FEATURE_EMULATED_ISM,
  HEADER_BYTES,
  OS_LINUX,
  type Proposal,
  type ProposalV2,
  RELEASE_V21,
  SMC_CLC_DECL,
} from '../../src/smc/index.ts';
import type { Kernel } from './kernel.ts';
import type { TcpConnection } from './tcp.ts';

export const UEID = 'ISTHMUS.TEST.A' as Eid;

/** SMC-D v2.1 over the loopback device, as the kernel proposes it. */
export function proposal(gid: Gid, v2: Partial<ProposalV2> = {}): Proposal {
  return {
    type: 'proposal',
    version: 2,
    v1: null,
    v2: {
      offer: 'D',
      release: RELEASE_V21,
      featureMask: FEATURE_EMULATED_ISM,
      userEids: [UEID],
      smcd: { seid: null, devices: [{ gid, chid: CHID_LOOPBACK }] },
      ...v2,
    },
  };
}

/** First contact, unless changed. @param token of a DMB that is alive in the kernel */
export function accept(gid: Gid, token: Token, changes: Partial<AcceptConfirmV2> = {}): AcceptConfirmV2 {
  return {
    type: 'accept',
    mode: 'D',
    version: 2,
    firstContact: true,
    gid,
    token,
    dmbeIndex: 0,
    dmbeSize: 2,
    linkId: 0x01020304,
    chid: CHID_LOOPBACK,
    eid: UEID,
    fce: { os: OS_LINUX, release: RELEASE_V21, hostName: 'test', v21: { featureMask: FEATURE_EMULATED_ISM } },
    ...changes,
  };
}

/** The kernel's Accept as our Confirm: with its own DMB, which its device knows. */
export function confirm(accepted: AcceptConfirmV2, changes: Partial<AcceptConfirmV2> = {}): AcceptConfirmV2 {
  const { residue: _, ...values } = accepted;
  return { ...values, type: 'confirm', ...changes };
}

export function decline(diagnosis: number, changes: Partial<Decline> = {}): Decline {
  return { type: 'decline', version: 2, diagnosis, outOfSync: false, os: OS_LINUX, ...changes };
}

/** As a peer says it that knows no later version: there is room for half a GID. */
export function inVersionOne({ type, gid, token, dmbeSize, linkId }: AcceptConfirmV2): AcceptConfirmV1 {
  const half = Buffer.concat([gidToBytes(gid).subarray(0, 8), Buffer.alloc(8)]);
  const fixed = { mode: 'D', version: 1, firstContact: true, dmbeIndex: 0 } as const;
  return { type, ...fixed, gid: gidFromBytes(half), token, dmbeSize, linkId };
}

/** Where things stand in Accept and Confirm. */
export const ANSWER = { eyecatcher: 0, type: 4, length: 5, flags: 7, chid: 32, trailer: -4 };

/** Another GID: one bit of this byte is different. */
export function flipped(gid: Gid, at: number): Gid {
  const bytes = gidToBytes(gid);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  return gidFromBytes(bytes);
}

/** No device has it. */
export const UNKNOWN_TOKEN = parseToken(0x1234n);

/** The same with other bytes at an offset; a negative one counts from the end. */
export function patched(bytes: Buffer, offset: number, hex: string): Buffer {
  const copy = Buffer.from(bytes);
  copy.write(hex, offset < 0 ? bytes.length + offset : offset, 'hex');
  return copy;
}

/** With bytes put in at an offset, and the length field as it has to be then. */
export function widened(bytes: Buffer, offset: number, inserted: Buffer): Buffer {
  const at = offset < 0 ? bytes.length + offset : offset;
  const copy = Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at)]);
  copy.writeUInt16BE(copy.length, 5);
  return copy;
}

/** In which pieces a message goes out. */
export type Cut = 'whole' | 'bytes' | 'after 4 bytes';

export function pieces(bytes: Buffer, cut: Cut): Buffer[] {
  if (cut === 'bytes') return Array.from(bytes, (byte) => Buffer.from([byte]));
  const at = cut === 'whole' ? bytes.length : 4;
  return [bytes.subarray(0, at), bytes.subarray(at)].filter(({ length }) => length > 0);
}

/** What comes next from the kernel. */
export type Answer = ClcMessage | 'FIN' | 'RST' | 'data';

/** Waits for it. Every message of the kernel's has to be what our codec makes of it. */
export async function answer(connection: TcpConnection): Promise<Answer> {
  await connection.until('an answer', () => next(connection) !== null);
  const bytes = next(connection);
  if (!Buffer.isBuffer(bytes)) return bytes === 'data' ? bytes : connection.wasReset ? 'RST' : 'FIN';
  const message = decodeClc(connection.read(bytes.length));
  assert.deepEqual(encodeClc(message), bytes);
  return message;
}

/** A whole message, or what stands in its place; null while one cannot know. */
function next(connection: TcpConnection): Buffer | 'data' | 'end' | null {
  const head = connection.peek(HEADER_BYTES);
  if (head === 'end' || head.length < HEADER_BYTES) return head === 'end' ? head : null;
  try {
    const length = clcLength(head);
    const bytes = connection.peek(length);
    return bytes === 'end' || bytes.length === length ? bytes : null;
  } catch {
    return 'data';
  }
}

/** 'Accept 130', 'Decline 03030007' ... */
export function inWords(what: Answer): string {
  if (typeof what === 'string') return what;
  if (what.type === 'decline') return `Decline ${hex8(what.diagnosis)}${what.outOfSync ? ' out of sync' : ''}`;
  const name = { proposal: 'Proposal', accept: 'Accept', confirm: 'Confirm' }[what.type];
  return `${name} ${encodeClc(what).length}`;
}

export function hex8(code: number): string {
  return code.toString(16).padStart(8, '0');
}

/** The program in the kernel has an SMC-D connection, and nothing to read. */
export async function assertSmcd(kernel: Kernel, connection: TcpConnection): Promise<void> {
  assert.deepEqual(await kernel.view(connection), { mode: 'SMCD', reason: 0, peerDiagnosis: 0, unread: 0 });
}

/**
 * The program in the kernel has a TCP connection, and that works.
 * @param diagnosis in our Decline, if that is why
 */
export async function assertTcp(
  kernel: Kernel,
  connection: TcpConnection,
  why: { reason: string } | { diagnosis: string },
): Promise<void> {
  const bytes = randomBytes(64);
  connection.send(bytes);
  const look = () => connection.peek(bytes.length);
  await connection.until('an echo', () => look() === 'end' || look().length === bytes.length);
  assert.deepEqual(look(), bytes);
  connection.read(bytes.length);
  const { mode, reason, peerDiagnosis } = await kernel.view(connection);
  const expected = { reason: hex8(SMC_CLC_DECL.PEERDECL), diagnosis: hex8(0), ...why };
  assert.deepEqual({ mode, reason: hex8(reason), diagnosis: hex8(peerDiagnosis) }, { mode: 'TCP', ...expected });
}

/** What a row of a table says comes out; connections that end are not looked at further. */
export async function assertOutcome(kernel: Kernel, connection: TcpConnection, outcome: string): Promise<void> {
  const [word, code = ''] = outcome.split(' ');
  switch (word) {
    case 'SMCD':
      await assertSmcd(kernel, connection);
      break;
    case 'TCP':
      await assertTcp(kernel, connection, { diagnosis: code });
      break;
    case 'Decline':
      assert.equal(inWords(await answer(connection)), outcome);
      await assertTcp(kernel, connection, { reason: code });
      break;
    case 'Confirm':
      assert.equal(inWords(await answer(connection)), outcome);
      await assertSmcd(kernel, connection);
      break;
    case 'FIN':
    case 'RST':
      assert.equal(inWords(await answer(connection)), word);
      if (code !== '') await kernel.says(new RegExp(`^failed ${connection.localPort} ${code}$`, 'm'));
      break;
    default:
      assert.equal(inWords(await answer(connection)), outcome);
  }
}

export function isAccept(what: Answer): what is AcceptConfirmV2 {
  return typeof what !== 'string' && what.type === 'accept' && what.mode === 'D' && what.version === 2;
}
