/**
 * The GID/CHID list at the end of a Proposal: devices as 10-byte entries, 8 GID and 2 CHID, big-endian. An emulated device has
 * a GID of 128 bits and takes two entries with the same CHID, first half first.
 *
 * Source: net/smc/smc_clc.h, smc_clc.c.
 */
import { type Chid, type Gid, gidToBytes, isEmulated, parseChid } from '../../ism/index.ts';
import { GID_HALF_BYTES, gid64, gidOfHalves, hex } from './bytes.ts';

const GID = 0;
const CHID = 8;
export const LIST_ENTRY_BYTES = 10;
export const MAX_LIST_ENTRIES = 8;

export interface IsmDevice {
  /** Only devices with an emulated CHID have more than 64 bits of it. */
  readonly gid: Gid;
  readonly chid: Chid;
}

/** Skips an emulated entry without a second half: the last one, or one followed by another CHID. */
export function decodeDeviceList(bytes: Buffer): IsmDevice[] {
  const chidAt = (entry: number) => parseChid(bytes.readUInt16BE(entry + CHID));
  const devices: IsmDevice[] = [];
  for (let entry = 0; entry < bytes.length; entry += LIST_ENTRY_BYTES) {
    const chid = chidAt(entry);
    if (!isEmulated(chid)) {
      devices.push({ gid: gidOfHalves(bytes, entry + GID, null), chid });
      continue;
    }
    const second = entry + LIST_ENTRY_BYTES;
    if (second === bytes.length || chidAt(second) !== chid) continue;
    devices.push({ gid: gidOfHalves(bytes, entry + GID, second + GID), chid });
    entry = second;
  }
  return devices;
}

export function encodeDeviceList(devices: readonly IsmDevice[]): Buffer {
  const bytes = Buffer.allocUnsafe(entriesOf(devices) * LIST_ENTRY_BYTES);
  let at = 0;
  for (const { gid, chid } of devices) {
    const halves = isEmulated(chid) ? gidToBytes(gid) : gid64(gid);
    for (let half = 0; half < halves.length; half += GID_HALF_BYTES) {
      halves.copy(bytes, at + GID, half, half + GID_HALF_BYTES);
      bytes.writeUInt16BE(chid, at + CHID);
      at += LIST_ENTRY_BYTES;
    }
  }
  return bytes;
}

/** How many entries they take. */
export function entriesOf(devices: readonly IsmDevice[]): number {
  let entries = 0;
  for (const { chid } of devices) entries += isEmulated(chid) ? 2 : 1;
  return entries;
}

export function deviceText({ gid, chid }: IsmDevice): string {
  return `${gid} CHID ${hex(chid, 4)}`;
}
