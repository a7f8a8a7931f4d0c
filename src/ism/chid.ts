declare const brand: unique symbol;

/**
 * CHID, in Linux fabric id: which fabric a device is on, 16 bits. Devices of different CHIDs can never talk, those of
 * equal ones may; only `Device.queryRemoteGid` is a reliable yes.
 * 0 none, 0x0001-0xFEFF hardware, 0xFF00-0xFFFE virtual, 0xFFFF loopback (smc_ism.h, dibs.h).
 */
export type Chid = number & { readonly [brand]: 'Chid' };

export const CHID_LOOPBACK = 0xffff as Chid;
const FIRST_EMULATED = 0xff00;
/** 0xFF00 to 0xFFFE: what a host's fabric may choose from. */
const VIRTUAL_CHIDS = CHID_LOOPBACK - FIRST_EMULATED;

/** @param value any integer; taken into the range of virtual CHIDs. */
export function virtualChid(value: number): Chid {
  return (FIRST_EMULATED + (value % VIRTUAL_CHIDS)) as Chid;
}

export function parseChid(value: number): Chid {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff) throw new RangeError(`not a CHID: ${value}`);
  return value as Chid;
}

/** Emulated devices have GIDs of 128 bits, hardware ones of 64. */
export function isEmulated(chid: Chid): boolean {
  return chid >= FIRST_EMULATED;
}
