/** For the tests of this folder: the vectors, what must hold for any bytes, and messages at random. Not a test itself. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import {
  CHID_LOOPBACK,
  type Eid,
  eidFromBytes,
  gidFromBytes,
  isEmulated,
  parseChid,
  parseToken,
} from '../../ism/index.ts';
import type { AcceptConfirm, AcceptConfirmR, AcceptConfirmV1, AcceptConfirmV2 } from './accept-confirm.ts';
import type { Decline } from './decline.ts';
import type { IsmDevice } from './device-list.ts';
import type { FirstContact } from './first-contact.ts';
import {
  type ClcMessage,
  type ClcType,
  ClcWireError,
  clcLength,
  decodeClc,
  describeClc,
  encodeClc,
  listClc,
} from './index.ts';
import type { Proposal, ProposalV1 } from './proposal.ts';
import type { ProposalSmcdV2, ProposalV2 } from './proposal-v2.ts';

/** Tests run from the root of the repository. */
const VECTORS = join(process.cwd(), 'test/vectors/clc');

export interface Vector {
  /** File and number of the message in it. */
  readonly name: string;
  readonly type: ClcType;
  readonly length: number;
  readonly bytes: Buffer;
  /** Lines `offset+length | field | hex | meaning`, as decoded by hand; fields that are zero and mean nothing left out. */
  readonly fields: readonly string[];
}

interface VectorFile {
  name: string;
  messages: { type: ClcType; length: number; hex: string; fields: string[] }[];
}

/** The messages of all kernel captures. */
export const vectors: readonly Vector[] = readdirSync(VECTORS)
  .filter((file) => file.endsWith('.json'))
  .sort()
  .flatMap((file) => {
    const { name, messages }: VectorFile = JSON.parse(readFileSync(join(VECTORS, file), 'utf8'));
    return messages.map(({ type, length, hex, fields }, i) => {
      return { name: `${name} message ${i + 1}`, type, length, bytes: Buffer.from(hex, 'hex'), fields };
    });
  });

export function vector(name: string): Buffer {
  const found = vectors.find((candidate) => candidate.name === name);
  assert.ok(found, `no vector ${name}`);
  return found.bytes;
}

/** The bytes of a field in a vector: undefined when it is zero or not there. */
export function fieldOf({ fields }: Vector, name: string): string | undefined {
  return fields
    .map((line) => line.split(' | '))
    .find(([, field]) => field === name)?.[2]
    ?.replace(/ \|$/, '');
}

/** Hex with blanks; `xx*n` is n times xx. */
export function bytesOf(text: string): Buffer {
  const parts = text.replace(/([0-9a-f]{2})\*(\d+)/g, (_, byte: string, count: string) => byte.repeat(Number(count)));
  return Buffer.from(parts.replaceAll(/\s/g, ''), 'hex');
}

/** A copy with these bytes in it, hex by offset. */
export function altered(bytes: Buffer, changes: Record<number, string>): Buffer {
  const copy = Buffer.from(bytes);
  for (const [offset, hex] of Object.entries(changes)) copy.set(Buffer.from(hex, 'hex'), Number(offset));
  return copy;
}

/** A copy that says how long it is. */
export function withLength(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  if (copy.length >= 8) copy.writeUInt16BE(copy.length, 5);
  return copy;
}

export function throwsWire(bytes: Buffer, field: string): void {
  assert.throws(
    () => decodeClc(bytes),
    (error) => {
      assert.ok(error instanceof ClcWireError, String(error));
      assert.equal(error.field, field, error.message);
      return true;
    },
  );
}

/** What holds for whatever a peer sends: a message that encodes to the same bytes, or a ClcWireError. True for a message. */
export function checkAny(bytes: Buffer): boolean {
  const listed = listClc(bytes);
  assert.equal(listed.map(({ hex }) => hex).join(''), bytes.toString('hex'), 'the listing has all bytes in order');
  assert.match(listed.map(({ field, meaning }) => field + meaning).join(''), /^[ -~]*$/);
  let message: ClcMessage;
  try {
    message = decodeClc(bytes);
  } catch (error) {
    if (!(error instanceof ClcWireError)) throw error;
    assert.equal(error.code, 'ERR_ISTHMUS_CLC');
    assert.equal(error.fault, 'peer');
    return false;
  }
  assert.equal(clcLength(bytes), bytes.length);
  assert.ok(encodeClc(message).equals(bytes), `encodes to the same bytes: ${bytes.toString('hex')}`);
  assert.match(describeClc(message), /^[ -~]+$/);
  return true;
}

/** Cut anywhere it is an error; cut and with a length and trailer to match it may be another message. */
export function checkTruncation(bytes: Buffer): void {
  for (let length = 0; length < bytes.length; length++) {
    const cut = bytes.subarray(0, length);
    assert.equal(checkAny(cut), false, `cut to ${length}`);
    checkAny(withLength(cut));
    if (length >= 12) checkAny(withLength(Buffer.concat([bytes.subarray(0, length - 4), bytes.subarray(-4)])));
  }
}

export function checkMutation(bytes: Buffer): void {
  for (const [offset, byte] of bytes.entries()) {
    const flipped = Array.from({ length: 8 }, (_, bit) => byte ^ (1 << bit));
    for (const value of [...flipped, 0, 0xff, byte + 1, byte - 1]) {
      const copy = Buffer.from(bytes);
      copy[offset] = value;
      checkAny(copy);
    }
  }
}

/** Bytes of this message with up to some of them changed at random. */
export function mutated(bytes: Buffer): fc.Arbitrary<Buffer> {
  const change = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255));
  return fc.array(change, { minLength: 2, maxLength: 12 }).map((changes) => {
    const copy = Buffer.from(bytes);
    for (const [offset, value] of changes) copy[offset] = value;
    return copy;
  });
}

/** Of ordinary objects, as decode makes them. */
function record<T>(model: { [Key in keyof T]: fc.Arbitrary<T[Key]> }): fc.Arbitrary<T> {
  return fc.record<T>(model, { noNullPrototype: true });
}

const byte = fc.nat(0xff);
const nibble = fc.nat(0xf);
const u16 = fc.nat(0xffff);
const u32 = fc.nat(0xffffffff);

function buffer(minLength: number, maxLength = minLength): fc.Arbitrary<Buffer> {
  return fc.uint8Array({ minLength, maxLength }).map((bytes) => Buffer.from(bytes));
}

const notZero = (...parts: (Buffer | number)[]) =>
  parts.some((part) => (typeof part === 'number' ? part !== 0 : part.some((value) => value !== 0)));

const eid: fc.Arbitrary<Eid> = fc.oneof(
  fc.constantFrom('ISTHMUS', 'A', '').map((text) => text as Eid),
  buffer(32).map(eidFromBytes),
);
const chid = fc.oneof(fc.constantFrom(0, 1, 0xfeff, 0xff00, CHID_LOOPBACK), u16).map(parseChid);
const gid64 = buffer(8).map((half) => gidFromBytes(Buffer.concat([half, Buffer.alloc(8)])));
const gid128 = buffer(16).map(gidFromBytes);

const device: fc.Arbitrary<IsmDevice> = chid.chain((value) =>
  record({ gid: isEmulated(value) ? gid128 : gid64, chid: fc.constant(value) }),
);
const devices = fc
  .array(device, { maxLength: 8 })
  .filter((list) => list.reduce((sum, { chid }) => sum + (isEmulated(chid) ? 2 : 1), 0) <= 8);

const firstContact: fc.Arbitrary<FirstContact> = record({
  os: nibble,
  release: nibble,
  hostName: fc.string({ maxLength: 32 }).map((name) => name.trimEnd()),
  v21: fc.record(
    {
      featureMask: u16,
      vendorOptions: buffer(4).filter(notZero),
      maxConns: fc.integer({ min: 1, max: 255 }),
      maxLinks: fc.integer({ min: 1, max: 255 }),
    },
    { noNullPrototype: true, requiredKeys: ['featureMask'] },
  ),
}).map((fce) => (fce.release === 0 ? { ...fce, v21: null } : fce));

const common = { type: fc.constantFrom('accept' as const, 'confirm' as const), firstContact: fc.boolean() };
const dmb = {
  ...common,
  mode: fc.constant('D' as const),
  token: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(parseToken),
  dmbeIndex: byte,
  dmbeSize: nibble,
  linkId: u32,
};
const acceptConfirmV1: fc.Arbitrary<AcceptConfirmV1> = record({
  ...dmb,
  version: fc.constant(1 as const),
  gid: gid64,
});
const acceptConfirmV2: fc.Arbitrary<AcceptConfirmV2> = device.chain((chosen) =>
  record({ ...dmb, version: fc.constant(2 as const), eid, fce: fc.option(firstContact), trailing: buffer(0, 40) }).map(
    ({ trailing, ...message }) => {
      const fce = message.firstContact ? message.fce : null;
      // Behind a first contact without an extension only less than one can stand.
      const most = message.firstContact && fce === null ? 35 : 40;
      const rest = trailing.subarray(0, most);
      return { ...message, ...chosen, fce, ...(rest.length > 0 && { trailing: rest }) };
    },
  ),
);
const acceptConfirmR: fc.Arbitrary<AcceptConfirmR> = fc.constantFrom(1 as const, 2 as const).chain((version) =>
  record({
    ...common,
    mode: fc.constant('R' as const),
    version: fc.constant(version),
    payload: version === 1 ? buffer(56) : buffer(96, 140),
  }),
);
export const acceptConfirm: fc.Arbitrary<AcceptConfirm> = fc.oneof(acceptConfirmV1, acceptConfirmV2, acceptConfirmR);

const peerId = buffer(8).filter(notZero);
const codes = { diagnosis: u32, outOfSync: fc.boolean(), os: nibble, type: fc.constant('decline' as const) };
const moreDiagnosis = fc.array(u32, { minLength: 4, maxLength: 4 }).filter((list) => notZero(...list));
export const decline: fc.Arbitrary<Decline> = fc.oneof(
  fc.record(
    { ...codes, version: fc.constant(1 as const), peerId },
    { noNullPrototype: true, requiredKeys: ['type', 'version', 'diagnosis', 'outOfSync', 'os'] },
  ),
  fc.record(
    { ...codes, version: fc.constant(2 as const), peerId, moreDiagnosis },
    { noNullPrototype: true, requiredKeys: ['type', 'version', 'diagnosis', 'outOfSync', 'os'] },
  ),
);

const offer = fc.constantFrom('R' as const, 'D' as const, 'both' as const);
const proposalV1: fc.Arbitrary<ProposalV1> = record({
  offer,
  subnet: buffer(4),
  prefixLength: byte,
  ipv6Prefixes: fc.array(record({ prefix: buffer(16), length: byte }), { maxLength: 8 }),
});
const smcdV2: fc.Arbitrary<ProposalSmcdV2> = record({ seid: fc.option(eid), devices });
const smcdParts: fc.Arbitrary<Pick<ProposalV2, 'smcd' | 'misplacedSmcd'>> = fc.oneof(
  { weight: 9, arbitrary: record({ smcd: smcdV2 }) },
  record({
    smcd: fc.constant(null),
    misplacedSmcd: fc.nat(8).chain((count) => buffer(48 + 10 * count)),
  }),
);
const proposalV2: fc.Arbitrary<ProposalV2> = fc
  .tuple(
    fc.record(
      {
        offer,
        release: nibble,
        featureMask: u16,
        userEids: fc.array(eid, { maxLength: 8 }),
        roceV2: record({ gid: buffer(16), maxConns: byte, maxLinks: byte }).filter(({ gid, maxConns, maxLinks }) =>
          notZero(gid, maxConns, maxLinks),
        ),
      },
      { noNullPrototype: true, requiredKeys: ['offer', 'release', 'featureMask', 'userEids'] },
    ),
    smcdParts,
  )
  .map(([part, smcd]) => (part.offer === 'R' ? { ...part, smcd: null } : { ...part, ...smcd }));
const extras = {
  type: fc.constant('proposal' as const),
  nativeDevice: record({ gid: gid64, chid }).filter(({ gid, chid }) => chid !== 0 || /[^0-]/.test(gid)),
  vendor: record({ oui: buffer(3), options: buffer(5) }).filter(({ oui, options }) => notZero(oui, options)),
  roce: record({ peerId: buffer(8), gid: buffer(16), mac: buffer(6) }).filter(({ peerId, gid, mac }) =>
    notZero(peerId, gid, mac),
  ),
};
export const proposal: fc.Arbitrary<Proposal> = fc.oneof(
  fc
    .record(
      { ...extras, version: fc.constant(2 as const), v1: fc.option(proposalV1), v2: fc.option(proposalV2) },
      { noNullPrototype: true, requiredKeys: ['type', 'version', 'v1', 'v2'] },
    )
    .map(({ nativeDevice, ...message }) => (message.v1 && nativeDevice ? { ...message, nativeDevice } : message)),
  fc.record(
    { ...extras, version: fc.constant(1 as const), v1: proposalV1, v2: fc.constant(null) },
    { noNullPrototype: true, requiredKeys: ['type', 'version', 'v1', 'v2'] },
  ),
  fc.record(
    {
      type: extras.type,
      roce: extras.roce,
      version: fc.constant(1 as const),
      v1: proposalV1.map((part) => ({ ...part, offer: 'R' as const, withoutSmcdPart: true as const })),
      v2: fc.constant(null),
    },
    { noNullPrototype: true, requiredKeys: ['type', 'version', 'v1', 'v2'] },
  ),
);
