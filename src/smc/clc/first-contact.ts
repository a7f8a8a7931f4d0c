/**
 * First contact extension (FCE): how an end that starts a link group introduces itself, at the end of an Accept or Confirm
 * of version 2. The server's one decides release and features for the group.
 *
 * Source: net/smc/smc_clc.h; IBM "SMC Version 2" papers known through it. Big-endian. Reserved is 0.
 *
 *     offset | size | field                  | values                                                        | since
 *     0      | 1    | v2_direct              | bit 7, SMC-R only; rest reserved                              | v2
 *     1      | 1    | os_type, release       | bits 7-4: 1 z/OS, 2 Linux, 3 AIX; bits 3-0: 0 v2, 1 v2.1      | v2
 *     2      | 2    | reserved               |                                                               |
 *     4      | 32   | hostname               | ASCII, blank padded, no NUL                                   | v2
 *     36     | 1    | max_conns              | SMC-R only, else 0                                            | v2.1
 *     37     | 1    | max_links              | SMC-R only, else 0                                            | v2.1
 *     38     | 2    | feature_mask           | 0x0001 emulated ISM understood                                | v2.1
 *     40     | 4    | vendor_exp_options     | free for vendors                                              | v2.1
 *     44     | 8    | reserved               |                                                               |
 *
 * Which of the two it is, is said by the release; a peer may still send too few bytes for either.
 */
import { copyUnlessZero, type Draft, hex, nibbles, printable, put, zeros } from './bytes.ts';

const OS_RELEASE = 1;
const HOST_NAME = 4;
const HOST_NAME_BYTES = 32;
const FCE_BYTES = 36;
const MAX_CONNS = 36;
const MAX_LINKS = 37;
const FEATURE_MASK = 38;
const VENDOR_OPTIONS = 40;
const VENDOR_OPTIONS_BYTES = 4;
const FCE_V21_BYTES = 52;

/** The release that is called v2.1. */
export const RELEASE_V21 = 1;
/** Bit of a feature mask: GIDs of 128 bits are understood. */
export const FEATURE_EMULATED_ISM = 0x0001;

export const OS_LINUX = 2;
const OS_NAMES: readonly (string | undefined)[] = ['-', 'z/OS', 'Linux', 'AIX'];

export interface FirstContact {
  /** Four bits: 1 z/OS, 2 Linux, 3 AIX. */
  readonly os: number;
  /** Four bits: 0 v2, 1 v2.1. */
  readonly release: number;
  /** For people. At most 32 characters of ASCII, without the padding; empty when the peer's is not ASCII. */
  readonly hostName: string;
  /** Null for release 0; for others only when the peer left it out. */
  readonly v21: FirstContactV21 | null;
}

export interface FirstContactV21 {
  readonly featureMask: number;
  /** 4 bytes; absent: zero. */
  readonly vendorOptions?: Buffer;
  /** SMC-R only; absent: zero. */
  readonly maxConns?: number;
  readonly maxLinks?: number;
}

/** @param bytes from here to the trailer. Null when too few for an extension; what is too much is left alone. */
export function decodeFirstContact(bytes: Buffer): FirstContact | null {
  if (bytes.length < FCE_BYTES) return null;
  const osRelease = bytes.readUInt8(OS_RELEASE);
  const release = osRelease & 0xf;
  const name = bytes.toString('latin1', HOST_NAME, HOST_NAME + HOST_NAME_BYTES);
  return {
    os: osRelease >> 4,
    release,
    hostName: isAscii(name) ? name.replace(/ +$/, '') : '',
    v21: release >= RELEASE_V21 && bytes.length >= FCE_V21_BYTES ? decodeV21(bytes) : null,
  };
}

function decodeV21(bytes: Buffer): FirstContactV21 {
  const v21: Draft<FirstContactV21> = { featureMask: bytes.readUInt16BE(FEATURE_MASK) };
  const vendorOptions = copyUnlessZero(bytes, VENDOR_OPTIONS, VENDOR_OPTIONS_BYTES);
  const maxConns = bytes.readUInt8(MAX_CONNS);
  const maxLinks = bytes.readUInt8(MAX_LINKS);
  if (vendorOptions) v21.vendorOptions = vendorOptions;
  if (maxConns !== 0) v21.maxConns = maxConns;
  if (maxLinks !== 0) v21.maxLinks = maxLinks;
  return v21;
}

export function firstContactBytes(fce: FirstContact | null): number {
  if (fce === null) return 0;
  return fce.v21 === null ? FCE_BYTES : FCE_V21_BYTES;
}

export function encodeFirstContact(fce: FirstContact): Buffer {
  const { hostName, release, v21 } = fce;
  if (!isAscii(hostName) || hostName.length > HOST_NAME_BYTES) {
    throw new RangeError(`a host name has up to ${HOST_NAME_BYTES} ASCII characters: ${hostName}`);
  }
  if (v21 !== null && release < RELEASE_V21) throw new RangeError('release 0 has no v2.1 part');
  const bytes = zeros(firstContactBytes(fce));
  bytes.writeUInt8(nibbles('os_type, release', fce.os, release), OS_RELEASE);
  bytes.write(hostName.padEnd(HOST_NAME_BYTES), HOST_NAME, 'latin1');
  if (v21 !== null) {
    bytes.writeUInt8(v21.maxConns ?? 0, MAX_CONNS);
    bytes.writeUInt8(v21.maxLinks ?? 0, MAX_LINKS);
    bytes.writeUInt16BE(v21.featureMask, FEATURE_MASK);
    put(bytes, VENDOR_OPTIONS, VENDOR_OPTIONS_BYTES, 'vendor_exp_options', v21.vendorOptions);
  }
  return bytes;
}

export function describeFirstContact({ os, release, hostName, v21 }: FirstContact): string {
  const vendor = v21?.vendorOptions ? `, vendor ${v21.vendorOptions.toString('hex')}` : '';
  const features = v21 ? `, features 0x${hex(v21.featureMask, 4)}` : '';
  return `${osName(os)} "${printable(hostName)}", release ${release}${features}${vendor}`;
}

export function osName(os: number): string {
  return OS_NAMES[os] ?? `OS ${os}`;
}

function isAscii(text: string): boolean {
  return !/[^\0-\x7f]/.test(text);
}
