/** Diagnosis codes by the names of Linux (SMC_CLC_DECL_*). Other systems have codes of their own. */
export const SMC_CLC_DECL = {
  /** No memory or buffer of any size, or attaching failed. */
  MEM: 0x01010000,
  /** SMC-R: confirm link timed out. */
  TIMEOUT_CL: 0x02010000,
  /** SMC-R: add link timed out. */
  TIMEOUT_AL: 0x02020000,
  /** Configuration: own IP prefix not found. */
  CNFERR: 0x03000000,
  /** The peer doesn't speak SMC, or offers nothing usable. */
  PEERNOSMC: 0x03010000,
  /** IPsec on the connection. */
  IPSEC: 0x03020000,
  /** No device at all. */
  NOSMCDEV: 0x03030000,
  /** No SMC-D device; also when no EID is common. */
  NOSMCDDEV: 0x03030001,
  /** No SMC-R device. */
  NOSMCRDEV: 0x03030002,
  /** Own devices can't do v2. */
  NOISM2SUPP: 0x03030003,
  /** No v2 extension in the Proposal. */
  NOV2EXT: 0x03030004,
  /** No SMC-D v2 extension in the Proposal. */
  NOV2DEXT: 0x03030005,
  /** No SEID in the Proposal. */
  NOSEID: 0x03030006,
  /** No own device with a proposed CHID reaches the peer. */
  NOSMCD2DEV: 0x03030007,
  /** No EID in the Proposal. */
  NOUEID: 0x03030008,
  /** The release of the Confirm is not the negotiated one. */
  RELEASEERR: 0x03030009,
  /** SMC-R: maximum of connections out of range or changed. */
  MAXCONNERR: 0x0303000a,
  /** SMC-R: maximum of links out of range or changed. */
  MAXLINKERR: 0x0303000b,
  /** The Accept names what was not offered. */
  MODEUNSUPP: 0x03040000,
  /** SMC-R: bad eyecatcher of an RMBE. */
  RMBE_EC: 0x03050000,
  /** Socket option that SMC can't do. */
  OPTUNSUPP: 0x03060000,
  /** v1: other IP subnet. */
  DIFFPREFIX: 0x03070000,
  /** VLAN id of the interface not found. */
  GETVLANERR: 0x03080000,
  /** VLAN id can't be registered on the device. */
  ISMVLANERR: 0x03090000,
  /** SMC-R: no active link. */
  NOACTLINK: 0x030a0000,
  /** SMC-R: no link of the server's. */
  NOSRVLINK: 0x030b0000,
  /** Version mismatch. */
  VERSMISMAT: 0x030c0000,
  /** The device has no DMB left. */
  MAX_DMB: 0x030d0000,
  /** SMC-R: no route. */
  NOROUTE: 0x030e0000,
  /** SMC-R: no indirect route. */
  NOINDIRECT: 0x030f0000,
  /** The server joined a link group that the client doesn't have. */
  SYNCERR: 0x04000000,
  /** Local note, not sent: the peer declined. */
  PEERDECL: 0x05000000,
  /** Internal error. */
  INTERR: 0x09990000,
  /** SMC-R: rtoken handling failed. */
  ERR_RTOK: 0x09990001,
  /** SMC-R: a link could not be made ready. */
  ERR_RDYLNK: 0x09990002,
  /** SMC-R: a buffer could not be registered. */
  ERR_REGBUF: 0x09990003,
} as const;

/** The name without SMC_CLC_DECL_, undefined for a code that Linux doesn't have. */
export function declineName(code: number): string | undefined {
  return Object.entries(SMC_CLC_DECL).find(([, value]) => value === code)?.[0];
}
