declare const brand: unique symbol;

/**
 * EID: which hosts may use SMC with each other, 32 bytes ASCII on the wire, blank padded. Here without the padding.
 * A UEID is chosen by people, the SEID by the machine (smc_clc.h; smc-tools ueid.c).
 */
export type Eid = string & { readonly [brand]: 'Eid' };

export const EID_BYTES = 32;
export const MAX_UEIDS = 4;

/** What all of Isthmus has in common unless a person chose other UEIDs. */
export const DEFAULT_UEID = 'ISTHMUS' as Eid;

/** 1 to 32 of A-Z, 0-9, '.' and '-', the first one a letter or digit, no '..'. Throws TypeError. */
export function parseUeid(text: string): Eid {
  if (!/^[A-Z0-9][A-Z0-9.-]{0,31}$/.test(text) || text.includes('..')) throw new TypeError(`not a UEID: ${text}`);
  return text as Eid;
}

/**
 * The SEID of a machine, from the text of its /proc/cpuinfo; null for anything but an s390, which alone has one.
 *
 *     off+len  field         value
 *       0+24   prefix        IBM-SYSZ-ISMSEID00000000
 *      24+4    serial        low 16 bits of the CPU identification, upper-case hex
 *      28+4    machine type  upper-case hex
 *
 * ASCII (drivers/s390/net/ism_drv.c; the line of cpuinfo: arch/s390/kernel/processor.c). CPUs of one machine, and its partitions,
 * differ in the bits above only.
 */
export function seidOfCpuinfo(cpuinfo: string): Eid | null {
  const cpu =
    /^processor \d+: version = [0-9A-F]{2}, +identification = [0-9A-F]{2}([0-9A-F]{4}), +machine = ([0-9A-F]{4})$/m;
  const match = cpu.exec(cpuinfo);
  return match === null ? null : (`IBM-SYSZ-ISMSEID00000000${match[1]}${match[2]}` as Eid);
}

export function eidToBytes(eid: Eid): Buffer {
  return Buffer.from(eid.padEnd(EID_BYTES, ' '), 'latin1');
}

/** @param bytes 32 bytes; kept as they are but for the padding, since a peer's EID is only ever compared. */
export function eidFromBytes(bytes: Uint8Array): Eid {
  let end = bytes.length;
  while (bytes[end - 1] === 0x20) end--;
  const view = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return view.toString('latin1', 0, end) as Eid;
}
