/** Diagnosis codes by the names of Linux (SMC_CLC_DECL_*), each with what it says. Other systems have codes of their own. */
const ROWS = {
  MEM: [0x01010000, 'No memory or buffer of any size, or attaching failed.'],
  TIMEOUT_CL: [0x02010000, 'SMC-R: confirm link timed out.'],
  TIMEOUT_AL: [0x02020000, 'SMC-R: add link timed out.'],
  CNFERR: [0x03000000, 'Configuration: own IP prefix not found.'],
  PEERNOSMC: [0x03010000, "The peer doesn't speak SMC, or offers nothing usable."],
  IPSEC: [0x03020000, 'IPsec on the connection.'],
  NOSMCDEV: [0x03030000, 'No device at all.'],
  NOSMCDDEV: [0x03030001, 'No SMC-D device; also when no EID is common.'],
  NOSMCRDEV: [0x03030002, 'No SMC-R device.'],
  NOISM2SUPP: [0x03030003, "Own devices can't do v2."],
  NOV2EXT: [0x03030004, 'No v2 extension in the Proposal.'],
  NOV2DEXT: [0x03030005, 'No SMC-D v2 extension in the Proposal.'],
  NOSEID: [0x03030006, 'No SEID in the Proposal.'],
  NOSMCD2DEV: [0x03030007, 'No own device with a proposed CHID reaches the peer.'],
  NOUEID: [0x03030008, 'No EID in the Proposal.'],
  RELEASEERR: [0x03030009, 'The release of the Confirm is not the negotiated one.'],
  MAXCONNERR: [0x0303000a, 'SMC-R: maximum of connections out of range or changed.'],
  MAXLINKERR: [0x0303000b, 'SMC-R: maximum of links out of range or changed.'],
  MODEUNSUPP: [0x03040000, 'The Accept names what was not offered.'],
  RMBE_EC: [0x03050000, 'SMC-R: bad eyecatcher of an RMBE.'],
  OPTUNSUPP: [0x03060000, "Socket option that SMC can't do."],
  DIFFPREFIX: [0x03070000, 'v1: other IP subnet.'],
  GETVLANERR: [0x03080000, 'VLAN id of the interface not found.'],
  ISMVLANERR: [0x03090000, "VLAN id can't be registered on the device."],
  NOACTLINK: [0x030a0000, 'SMC-R: no active link.'],
  NOSRVLINK: [0x030b0000, "SMC-R: no link of the server's."],
  VERSMISMAT: [0x030c0000, 'Version mismatch.'],
  MAX_DMB: [0x030d0000, 'The device has no DMB left.'],
  NOROUTE: [0x030e0000, 'SMC-R: no route.'],
  NOINDIRECT: [0x030f0000, 'SMC-R: no indirect route.'],
  SYNCERR: [0x04000000, "The server joined a link group that the client doesn't have."],
  PEERDECL: [0x05000000, 'Local note, not sent: the peer declined.'],
  INTERR: [0x09990000, 'Internal error.'],
  ERR_RTOK: [0x09990001, 'SMC-R: rtoken handling failed.'],
  ERR_RDYLNK: [0x09990002, 'SMC-R: a link could not be made ready.'],
  ERR_REGBUF: [0x09990003, 'SMC-R: a buffer could not be registered.'],
} as const satisfies Record<string, readonly [code: number, text: string]>;

export const SMC_CLC_DECL = Object.fromEntries(Object.entries(ROWS).map(([name, [code]]) => [name, code])) as {
  readonly [Name in keyof typeof ROWS]: (typeof ROWS)[Name][0];
};

/** Of a code: its name without SMC_CLC_DECL_ and a sentence; undefined for a code that Linux doesn't have. */
export function declineReason(code: number): { readonly name: string; readonly text: string } | undefined {
  const row = Object.entries(ROWS).find(([, [known]]) => known === code);
  return row && { name: row[0], text: row[1][1] };
}
