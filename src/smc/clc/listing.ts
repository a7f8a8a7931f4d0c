/**
 * A message field by field, for people who look at bytes: offset, length, name, hex, meaning. It reads in wire order and
 * judges nothing, so a bad message is shown as far as it goes. `decode` is the judge.
 */
import { EID_BYTES, isEmulated, parseChid } from '../../ism/index.ts';
import { dmbeSizeBytes } from './accept-confirm.ts';
import { ipv6Text, printable, viewOf } from './bytes.ts';
import { declineName } from './decline-codes.ts';
import { osName, RELEASE_V21 } from './first-contact.ts';
import { CLC_TYPES, eyecatcherName, HEADER_BYTES, TRAILER_BYTES } from './header.ts';
import { decodeOffer } from './offer.ts';

export interface ClcField {
  readonly offset: number;
  readonly length: number;
  readonly field: string;
  readonly hex: string;
  readonly meaning: string;
}

type Meaning = (bytes: Buffer, offset: number) => string;
type Layout = readonly (readonly [length: number, field: string, meaning?: Meaning])[];

/** First contact, out of sync. */
const FLAG = 0x08;
const MODES = ['SMC-R', 'SMC-D', 'none', 'SMC-R and SMC-D'];
const mode = (bits: number) => MODES[bits & 3];

const number: Meaning = (bytes) => String(bytes.readUIntBE(0, bytes.length));
const eyecatcher: Meaning = (bytes) => eyecatcherName(bytes) ?? 'no eyecatcher';
const text: Meaning = (bytes) => `"${printable(bytes.toString('latin1'))}"`;
const eid: Meaning = (bytes, offset) => (bytes.every((byte) => byte === 0) ? 'all zero' : text(bytes, offset));
const chid: Meaning = (bytes) => (isEmulated(parseChid(bytes.readUInt16BE())) ? 'emulated ISM' : '');
const diagnosis: Meaning = (bytes) => declineName(bytes.readUInt32BE()) ?? '';
const osType: Meaning = (bytes) => osName(high(bytes));
/** Where an offset leads that is counted from two bytes behind itself, as both of the Proposal are. */
const pointer =
  (part: string): Meaning =>
  (bytes, offset) => {
    const value = bytes.readUInt16BE();
    return value === 0 ? '0' : `${value} -> ${part} at ${offset + 2 + value}`;
  };

function high(bytes: Buffer): number {
  return bytes.readUInt8() >> 4;
}

const HEADER: Layout = [
  [4, 'eyecatcher', (bytes) => (eyecatcherName(bytes) ? `${eyecatcherName(bytes)} (EBCDIC)` : 'no eyecatcher')],
  [1, 'type', (bytes) => CLC_TYPES[bytes.readUInt8()]?.toUpperCase() ?? 'unknown'],
  [2, 'length', number],
];

const BASE: Layout = [
  [1, 'version:4 typev2:2 typev1:2', ([b = 0]) => `version ${b >> 4}, v2 ${mode(b >> 2)}, v1 ${mode(b)}`],
  [8, 'id_for_peer'],
  [16, 'ib gid'],
  [6, 'ib mac'],
  [2, 'iparea_offset', number],
];
const SMCD_PART: Layout = [
  [8, 'ism gid (v1 / native)'],
  [2, 'ism chid'],
  [2, 'v2_ext_offset', pointer('v2 extension')],
  [3, 'vendor_oui'],
  [5, 'vendor_exp_options'],
  [20, 'reserved'],
];
const PREFIX_PART: Layout = [
  [4, 'outgoing_subnet', (bytes) => bytes.join('.')],
  [1, 'prefix_len', number],
  [2, 'reserved'],
  [1, 'ipv6_prefixes_cnt', number],
];
const V2_EXTENSION: Layout = [
  [1, 'eid_cnt', number],
  [1, 'ism_gid_cnt', number],
  [1, 'reserved'],
  [1, 'release:4 rsvd:3 seid:1', ([b = 0]) => `release ${b >> 4}, SEID ${b & 1 ? 'valid' : 'not used'}`],
  [2, 'reserved'],
  [2, 'smcd_v2_ext_offset', pointer('SMC-Dv2 extension')],
  [16, 'roce gid'],
  [1, 'max_conns'],
  [1, 'max_links'],
  [2, 'feature_mask'],
  [12, 'reserved'],
];
const SMCD_V2_EXTENSION: Layout = [
  [EID_BYTES, 'system_eid', eid],
  [16, 'reserved'],
];

const ACCEPT_CONFIRM: Layout = [
  [1, 'version:4 fc:1 rsvd:1 type:2', ([b = 0]) => `version ${b >> 4}, first contact ${b & FLAG ? 1 : 0}, ${mode(b)}`],
];
const DMB: Layout = [
  [8, 'gid'],
  [8, 'dmb token'],
  [1, 'dmbe_idx'],
  [1, 'dmbe_size:4 rsvd:4', (bytes) => `${high(bytes)} -> ${dmbeSizeBytes(high(bytes))} bytes`],
  [2, 'reserved'],
  [4, 'linkid'],
];
const ACCEPT_CONFIRM_V1: Layout = [[12, 'reserved']];
const ACCEPT_CONFIRM_V2: Layout = [
  [2, 'chid', chid],
  [EID_BYTES, 'negotiated eid', eid],
  [8, 'gid_ext'],
];
const FIRST_CONTACT: Layout = [
  [1, 'v2_direct:1 rsvd:7'],
  [1, 'os_type:4 release:4', (bytes, offset) => `${osType(bytes, offset)}, release ${bytes.readUInt8() & 0xf}`],
  [2, 'reserved'],
  [32, 'hostname', text],
];
const FIRST_CONTACT_V21: Layout = [
  [2, 'reserved (SMC-D)'],
  [2, 'feature_mask'],
  [4, 'vendor_exp_options'],
  [8, 'reserved'],
];

const DECLINE: Layout = [
  [1, 'version:4 sync:2 rsvd:2', ([b = 0]) => `version ${b >> 4}, out of sync ${b & FLAG ? 1 : 0}`],
  [8, 'id_for_peer'],
  [4, 'peer_diagnosis', diagnosis],
  [1, 'os_type:4 rsvd:4', osType],
  [3, 'reserved'],
];

/** @param bytes a message or what should be one; also too few or too many. */
export function listClc(bytes: Uint8Array): ClcField[] {
  const lister = new Lister(viewOf(bytes));
  lister.list();
  return lister.fields;
}

class Lister {
  readonly fields: ClcField[] = [];
  readonly #view: Buffer;
  /** Fields before here; behind it the trailer. */
  #limit: number;
  #offset = 0;

  constructor(view: Buffer) {
    this.#view = view;
    this.#limit = view.length;
  }

  list(): void {
    const [, typeByte = 0, length = 0] = this.#take(HEADER);
    const type = CLC_TYPES[typeByte];
    const isWhole = length >= HEADER_BYTES + TRAILER_BYTES && length <= this.#view.length;
    if (isWhole) this.#limit = length - TRAILER_BYTES;
    if (type === 'proposal') this.#listProposal();
    else if (type === 'decline') this.#listDecline();
    else if (type !== undefined) this.#listAcceptConfirm();
    this.#takeRest(type === undefined ? 'unknown' : 'trailing');
    if (!isWhole) return;
    this.#limit = length;
    this.#take([[TRAILER_BYTES, 'trailer', eyecatcher]]);
    this.#limit = this.#view.length;
    this.#takeRest('behind the message');
  }

  #listProposal(): void {
    const [flags = 0, , , , iparea] = this.#take(BASE);
    const version = flags >> 4;
    const [offerV1, offerV2] = [decodeOffer(flags & 3), decodeOffer((flags >> 2) & 3)];
    if (version > 1 || iparea !== 0) this.#take(SMCD_PART);
    if (offerV1 !== null) {
      const [, , , prefixes = 0] = this.#take(PREFIX_PART);
      for (let i = 0; i < prefixes; i++) {
        this.#take([
          [16, `ipv6 prefix ${i}`, ipv6Text],
          [1, `ipv6 prefix_len ${i}`, number],
        ]);
      }
    }
    if (version < 2 || offerV2 === null) return;
    const [eids = 0, gids = 0] = this.#take(V2_EXTENSION);
    for (let i = 0; i < eids; i++) this.#take([[EID_BYTES, `ueid ${i}`, text]]);
    if (offerV2 === 'R') return;
    this.#take(SMCD_V2_EXTENSION);
    for (let i = 0; i < gids; i++) {
      this.#take([
        [8, `gid ${i}`],
        [2, `chid ${i}`, chid],
      ]);
    }
  }

  #listAcceptConfirm(): void {
    const [flags = 0] = this.#take(ACCEPT_CONFIRM);
    if ((flags & 3) !== 1) {
      this.#takeRest('SMC-R');
      return;
    }
    this.#take(DMB);
    if (flags >> 4 < 2) {
      this.#take(ACCEPT_CONFIRM_V1);
      return;
    }
    this.#take(ACCEPT_CONFIRM_V2);
    if ((flags & FLAG) === 0 || this.#limit === this.#offset) return;
    const [, osRelease = 0] = this.#take(FIRST_CONTACT);
    if ((osRelease & 0xf) >= RELEASE_V21 && this.#limit > this.#offset) this.#take(FIRST_CONTACT_V21);
  }

  #listDecline(): void {
    const [flags = 0] = this.#take(DECLINE);
    if (flags >> 4 < 2) return;
    for (let i = 0; i < 4; i++) this.#take([[4, `peer_diagnosis_v2 ${i}`, diagnosis]]);
  }

  /** Lists what is there of these fields. Returns the numbers in those of one or two bytes, else undefined. */
  #take(layout: Layout): (number | undefined)[] {
    return layout.map(([length, field, meaning]) => {
      const bytes = this.#view.subarray(this.#offset, Math.min(this.#offset + length, this.#limit));
      if (bytes.length === 0) return undefined;
      const isCut = bytes.length < length;
      this.#add(field, bytes, isCut ? `cut short: ${bytes.length} of ${length} bytes` : meaning?.(bytes, this.#offset));
      return !isCut && length <= 2 ? bytes.readUIntBE(0, length) : undefined;
    });
  }

  #takeRest(field: string): void {
    const bytes = this.#view.subarray(this.#offset, this.#limit);
    if (bytes.length > 0) this.#add(field, bytes);
  }

  #add(field: string, bytes: Buffer, meaning = ''): void {
    this.fields.push({ offset: this.#offset, length: bytes.length, field, hex: bytes.toString('hex'), meaning });
    this.#offset += bytes.length;
  }
}
