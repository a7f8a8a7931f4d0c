/**
 * The GID/CHID list at the end of a Proposal: devices as 10-byte entries, 8 GID and 2 CHID, big-endian. An emulated device has
 * a GID of 128 bits and takes two entries with the same CHID, first half first.
 *
 * Source: net/smc/smc_clc.h, smc_clc.c.
 */
import { type Chid, type Gid, gidToBytes, isEmulated, parseChid } from '../../ism/index.ts';
import { copyOf, GID_HALF_BYTES, gid64, gidOfHalves, hex } from './bytes.ts';

const GID = 0;
export const ENTRY_CHID = 8;
export const LIST_ENTRY_BYTES = 10;
export const MAX_LIST_ENTRIES = 8;

export interface IsmDevice {
  /** Only devices with an emulated CHID have more than 64 bits of it. */
  readonly gid: Gid;
  readonly chid: Chid;
}

/** Skips an emulated entry without a second half: the last one, or one followed by another CHID. */
export function decodeDeviceList(bytes: Buffer): IsmDevice[] {
  const gidAt = (entry: number) => copyOf(bytes, entry + GID, GID_HALF_BYTES);
  const chidAt = (entry: number) => parseChid(bytes.readUInt16BE(entry + ENTRY_CHID));
  const devices: IsmDevice[] = [];
  for (let entry = 0; entry < bytes.length; entry += LIST_ENTRY_BYTES) {
    const chid = chidAt(entry);
    if (!isEmulated(chid)) {
      devices.push({ gid: gidOfHalves(gidAt(entry)), chid });
      continue;
    }
    const second = entry + LIST_ENTRY_BYTES;
    if (second === bytes.length || chidAt(second) !== chid) continue;
    devices.push({ gid: gidOfHalves(gidAt(entry), gidAt(second)), chid });
    entry = second;
  }
  return devices;
}

export function encodeDeviceList(devices: readonly IsmDevice[]): Buffer {
  return Buffer.concat(devices.flatMap(encodeDevice));
}

function encodeDevice({ gid, chid }: IsmDevice): Buffer[] {
  if (!isEmulated(chid)) return [encodeEntry(gid64(gid), chid)];
  const bytes = gidToBytes(gid);
  return [bytes.subarray(0, GID_HALF_BYTES), bytes.subarray(GID_HALF_BYTES)].map((half) => encodeEntry(half, chid));
}

function encodeEntry(gidHalf: Buffer, chid: Chid): Buffer {
  const bytes = Buffer.alloc(LIST_ENTRY_BYTES);
  bytes.set(gidHalf, GID);
  bytes.writeUInt16BE(chid, ENTRY_CHID);
  return bytes;
}

export function deviceText({ gid, chid }: IsmDevice): string {
  return `${gid} CHID ${hex(chid, 4)}`;
}
