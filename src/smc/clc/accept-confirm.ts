/**
 * Accept (server) and Confirm (client): one layout. For SMC-D the sender describes its own DMB; the other side will write
 * there. "First contact" means that the connection starts a new link group: set by the server, repeated by the client.
 *
 * Source: RFC 7609 appendix A.2 (SMC-R), net/smc/smc_clc.h. Big-endian. Reserved is 0.
 *
 *     offset | size | field      | values                                                                   | since
 *     0      | 8    | header     | eyecatcher of the mode; typev2 bit 1 (0x08 of the byte): first contact;  | v1
 *            |      |            | typev1: 1 SMC-D, 0 SMC-R                                                 |
 *     8      | 8    | gid        | the sender's device, first half                                          | v1
 *     16     | 8    | dmb token  | opaque to the peer                                                       | v1
 *     24     | 1    | dmbe_idx   | element of the DMB, 0 from Linux                                         | v1
 *     25     | 1    | dmbe_size  | bits 7-4: n = 16 KiB << n; bits 3-0 reserved                             | v1
 *     26     | 2    | reserved   |                                                                          |
 *     28     | 4    | linkid     | the sender's number for the link group, opaque                           | v1
 *     32     | 12   | reserved   | end of version 1                                                         | v1 only
 *     32     | 2    | chid       | of the chosen device                                                     | v2
 *     34     | 32   | eid        | the negotiated one, ASCII, blank padded                                  | v2
 *     66     | 8    | gid_ext    | second half of the GID, emulated devices only                            | v2.1
 *     74     | -    | fce        | with first contact: first contact extension, 36 or 52                    | v2
 *     -      | -    | trailing   | whatever a later version may append                                      |
 *     len-4  | 4    | trailer    |                                                                          | v1
 *
 * Lengths: v1 48; v2 78 without first contact, 114 with it (release 0), 130 (release 1 on); longer is legal.
 * SMC-R: v1 68, v2 108 or longer; carried, not interpreted.
 */
import {
  type Chid,
  EID_BYTES,
  type Eid,
  eidFromBytes,
  eidToBytes,
  type Gid,
  gidToBytes,
  isEmulated,
  parseChid,
  parseToken,
  type Token,
} from '../../ism/index.ts';
import {
  applyResidue,
  copyOf,
  GID_HALF_BYTES,
  gid64,
  gidOfHalves,
  hex,
  nibbles,
  printable,
  put,
  type WithResidue,
  withResidue,
} from './bytes.ts';
import {
  decodeFirstContact,
  describeFirstContact,
  encodeFirstContact,
  type FirstContact,
  firstContactBytes,
} from './first-contact.ts';
import {
  type ClcVersion,
  checkLength,
  checkTrailer,
  FLAGS,
  HEADER_BYTES,
  type Header,
  LENGTH,
  newMessage,
  openMessage,
  TRAILER_BYTES,
} from './header.ts';
import { ClcWireError } from './wire-error.ts';

const FIRST_CONTACT = 2;
const TYPE_R = 0;
const TYPE_D = 1;
const GID = 8;
const TOKEN = 16;
const DMBE_INDEX = 24;
const DMBE_SIZE = 25;
const LINK_ID = 28;
const V1_BYTES = 48;
const CHID = 32;
const EID = 34;
const GID_EXT = 66;
const FCE = 74;
const SHORTEST_V2_BYTES = FCE + TRAILER_BYTES;
const R_V1_BYTES = 68;
const R_SHORTEST_V2_BYTES = 108;

interface Common extends WithResidue {
  readonly type: 'accept' | 'confirm';
  /** The connection starts a new link group. */
  readonly firstContact: boolean;
}

interface Dmb extends Common {
  readonly mode: 'D';
  /** The sender's device. */
  readonly gid: Gid;
  /** Of the sender's DMB. */
  readonly token: Token;
  readonly dmbeIndex: number;
  /** Compressed, four bits: see dmbeSizeBytes. */
  readonly dmbeSize: number;
  /** 32 bits. */
  readonly linkId: number;
}

export interface AcceptConfirmV1 extends Dmb {
  readonly version: 1;
}

export interface AcceptConfirmV2 extends Dmb {
  readonly version: 2;
  readonly chid: Chid;
  readonly eid: Eid;
  /** Null without first contact, or when the peer left it out. */
  readonly fce: FirstContact | null;
  /** What stands behind all that. */
  readonly trailing?: Buffer;
}

export interface AcceptConfirmR extends Common {
  readonly mode: 'R';
  readonly version: ClcVersion;
  /** All between header and trailer. */
  readonly payload: Buffer;
}

export type AcceptConfirm = AcceptConfirmV1 | AcceptConfirmV2 | AcceptConfirmR;

/** SMC-D uses 0 to 6: 16 KiB to 1 MiB. */
export function dmbeSizeBytes(dmbeSize: number): number {
  return 16384 << dmbeSize;
}

export function decodeAcceptConfirm(bytes: Uint8Array): AcceptConfirm {
  const { header, view } = openMessage(bytes, 'accept', 'confirm');
  const message = read(header, view);
  checkTrailer(view, header.type);
  return withResidue(message, view, write(message));
}

/** Objects are written out: spreading this many members costs ten times the rest. */
function read(header: Header, view: Buffer): AcceptConfirm {
  const type = header.type === 'accept' ? 'accept' : 'confirm';
  const firstContact = (header.typev2 & FIRST_CONTACT) !== 0;
  if (header.typev1 === TYPE_R) {
    checkSize(header, R_V1_BYTES, R_SHORTEST_V2_BYTES);
    const payload = copyOf(view, HEADER_BYTES, header.length - HEADER_BYTES - TRAILER_BYTES);
    return { type, firstContact, mode: 'R', version: header.version, payload };
  }
  if (header.typev1 !== TYPE_D) throw new ClcWireError(header.type, 'typev1', FLAGS, '0 or 1', header.typev1);
  checkSize(header, V1_BYTES, SHORTEST_V2_BYTES);
  const token = parseToken(view.readBigUInt64BE(TOKEN));
  const dmbeIndex = view.readUInt8(DMBE_INDEX);
  const dmbeSize = view.readUInt8(DMBE_SIZE) >> 4;
  const linkId = view.readUInt32BE(LINK_ID);
  if (header.version === 1) {
    const gid = gidOfHalves(view, GID, null);
    return { type, firstContact, mode: 'D', token, dmbeIndex, dmbeSize, linkId, version: 1, gid };
  }
  const chid = parseChid(view.readUInt16BE(CHID));
  const gid = gidOfHalves(view, GID, isEmulated(chid) ? GID_EXT : null);
  const eid = eidFromBytes(view.subarray(EID, EID + EID_BYTES));
  const rest = view.subarray(FCE, header.length - TRAILER_BYTES);
  const fce = firstContact ? decodeFirstContact(rest) : null;
  const known = firstContactBytes(fce);
  const message = {
    type,
    firstContact,
    mode: 'D',
    token,
    dmbeIndex,
    dmbeSize,
    linkId,
    version: 2,
    gid,
    chid,
    eid,
    fce,
  } as const;
  return rest.length === known ? message : { ...message, trailing: Buffer.from(rest.subarray(known)) };
}

/** Version 1 has one size, what came later may be longer. */
function checkSize(header: Header, v1Bytes: number, shortestV2Bytes: number): void {
  if (header.version === 1) {
    checkLength(header, v1Bytes);
  } else if (header.length < shortestV2Bytes) {
    throw new ClcWireError(header.type, 'length', LENGTH, `at least ${shortestV2Bytes}`, header.length);
  }
}

export function encodeAcceptConfirm(message: AcceptConfirm): Buffer {
  return applyResidue(write(message), message.residue);
}

function write(message: AcceptConfirm): Buffer {
  return message.mode === 'R' ? writeR(message) : writeD(message);
}

function writeR(message: AcceptConfirmR): Buffer {
  const header = headerOf(message, HEADER_BYTES + message.payload.length + TRAILER_BYTES);
  if (message.version === 1 ? header.length !== R_V1_BYTES : header.length < R_SHORTEST_V2_BYTES) {
    throw new RangeError(`payload of ${message.payload.length} bytes`);
  }
  const bytes = newMessage('SMCR', header);
  bytes.set(message.payload, HEADER_BYTES);
  return bytes;
}

function writeD(message: AcceptConfirmV1 | AcceptConfirmV2): Buffer {
  const bytes = newMessage('SMCD', headerOf(message, lengthOf(message)));
  bytes.writeBigUInt64BE(message.token, TOKEN);
  bytes.writeUInt8(message.dmbeIndex, DMBE_INDEX);
  bytes.writeUInt8(nibbles('dmbe_size', message.dmbeSize, 0), DMBE_SIZE);
  bytes.writeUInt32BE(message.linkId, LINK_ID);
  if (message.version === 1 || !isEmulated(message.chid)) {
    bytes.set(gid64(message.gid), GID);
  } else {
    const gid = gidToBytes(message.gid);
    bytes.set(gid.subarray(0, GID_HALF_BYTES), GID);
    bytes.set(gid.subarray(GID_HALF_BYTES), GID_EXT);
  }
  if (message.version === 1) return bytes;
  const { chid, eid, fce, firstContact, trailing } = message;
  if (fce !== null && !firstContact) throw new RangeError('an extension belongs to a first contact');
  bytes.writeUInt16BE(chid, CHID);
  put(bytes, EID, EID_BYTES, 'eid', eidToBytes(eid));
  if (fce !== null) bytes.set(encodeFirstContact(fce), FCE);
  if (trailing) bytes.set(trailing, FCE + firstContactBytes(fce));
  return bytes;
}

function lengthOf(message: AcceptConfirmV1 | AcceptConfirmV2): number {
  if (message.version === 1) return V1_BYTES;
  return SHORTEST_V2_BYTES + firstContactBytes(message.fce) + (message.trailing?.length ?? 0);
}

function headerOf({ type, version, mode, firstContact }: AcceptConfirm, length: number): Header {
  return {
    type,
    length,
    version,
    typev1: mode === 'D' ? TYPE_D : TYPE_R,
    typev2: firstContact ? FIRST_CONTACT : 0,
  };
}

/** Without the token: who knows it may write. */
export function describeAcceptConfirm(message: AcceptConfirm): string {
  const { type, version, mode, firstContact } = message;
  const parts = [`${type === 'accept' ? 'Accept' : 'Confirm'} v${version} SMC-${mode}`];
  if (firstContact) parts.push('first contact');
  if (message.mode === 'D') {
    parts.push(`device ${message.gid}`);
    if (message.version === 2) parts.push(`CHID ${hex(message.chid, 4)}`, `EID ${printable(message.eid)}`);
    parts.push(`DMB of ${dmbeSizeBytes(message.dmbeSize)} bytes`, `link group ${hex(message.linkId, 8)}`);
    if (message.version === 2 && message.fce) parts.push(describeFirstContact(message.fce));
  }
  return parts.join(', ');
}
