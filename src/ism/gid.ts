import { randomUUID } from 'node:crypto';

declare const brand: unique symbol;

/**
 * GID: who a device is. 128 bits, written as a UUID in lower case. Hardware ISM uses the first 64 bits and zeros.
 * On the wire 16 bytes in the order of the text: the first half in `gid`, the second in `gid_ext` (smc_clc.h).
 */
export type Gid = string & { readonly [brand]: 'Gid' };

export const GID_BYTES = 16;

export function randomGid(): Gid {
  return randomUUID() as Gid;
}

/** Throws TypeError for anything but the text form. */
export function parseGid(text: string): Gid {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text)) throw new TypeError(`not a GID: ${text}`);
  return text as Gid;
}

/** @param bytes 16 bytes, first half first. */
export function gidFromBytes(bytes: Uint8Array): Gid {
  if (bytes.length !== GID_BYTES) throw new TypeError(`a GID has ${GID_BYTES} bytes, not ${bytes.length}`);
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}` as Gid;
}

export function gidToBytes(gid: Gid): Buffer {
  const hex = gid.slice(0, 8) + gid.slice(9, 13) + gid.slice(14, 18) + gid.slice(19, 23) + gid.slice(24);
  return Buffer.from(hex, 'hex');
}
