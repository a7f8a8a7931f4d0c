/**
 * Why a connection is what it is: a row for each reason. Codes up to 0x0999ffff are the decline codes of SMC (smc_clc.h) and
 * travel in Declines; those that begin with 0x4953 ("IS") are our own and are shown at home only.
 */
import { declineReason, SMC_CLC_DECL } from './clc/decline-codes.ts';

export interface Reason {
  readonly code: number;
  readonly name: string;
  /** One sentence. */
  readonly text: string;
  /** What to do about it; empty when there is nothing to do. */
  readonly hint: string;
}

const ROWS = {
  MOVED: [0, 'bytes go through shared memory', ''],

  // Codes of SMC.
  MEM: [SMC_CLC_DECL.MEM, 'there is no memory for a buffer', 'look at the memory limit of the process or its cgroup'],
  PEERNOSMC: [
    SMC_CLC_DECL.PEERNOSMC,
    'the other end has not announced this connection',
    'run the other program under `isthmus run`, as the same user, with koffi and the same fabric (`isthmus fabric status` at both ends), not with the policy off; under lazy it announces after some bytes or time',
  ],
  NOSMCDEV: [SMC_CLC_DECL.NOSMCDEV, 'there is no ISM device', ''],
  NOSMCDDEV: [
    SMC_CLC_DECL.NOSMCDDEV,
    'no device and enterprise id fit to what the other end offers',
    'run the same version of Isthmus at both ends',
  ],
  NOSMCRDEV: [
    SMC_CLC_DECL.NOSMCRDEV,
    'the other end offers SMC-R only, which needs RDMA hardware',
    'a device of SMC-D is needed at the other end',
  ],
  NOISM2SUPP: [SMC_CLC_DECL.NOISM2SUPP, 'there is no ISM device for SMC-D version 2', ''],
  NOV2DEXT: [SMC_CLC_DECL.NOV2DEXT, 'the proposal has no SMC-D version 2 part', ''],
  NOSMCD2DEV: [SMC_CLC_DECL.NOSMCD2DEV, 'no device reaches the other end', 'both ends must use the same fabric'],
  NOUEID: [
    SMC_CLC_DECL.NOUEID,
    'there is no enterprise id (UEID) to agree on',
    '`isthmus ueid show` lists those of this host; `isthmus ueid add ISTHMUS` brings the built-in one back, for new connections',
  ],
  OPTUNSUPP: [
    SMC_CLC_DECL.OPTUNSUPP,
    'the other end cannot or does not want to move this connection',
    'its own reason is shown where the other program runs: `isthmus ss`',
  ],
  RELEASEERR: [SMC_CLC_DECL.RELEASEERR, 'the release changed during the handshake', ''],
  MODEUNSUPP: [SMC_CLC_DECL.MODEUNSUPP, 'the other end chose what was not offered', ''],
  DIFFPREFIX: [
    SMC_CLC_DECL.DIFFPREFIX,
    'SMC of version 1 needs both ends in one IP subnet',
    'enable version 2 at the other end',
  ],
  MAX_DMB: [
    SMC_CLC_DECL.MAX_DMB,
    'all buffers for this peer are in use',
    'close connections, or spread them over more processes',
  ],
  SYNCERR: [
    SMC_CLC_DECL.SYNCERR,
    'the two ends disagree about their link group',
    'it will be made anew with the next connection',
  ],
  INTERR: [SMC_CLC_DECL.INTERR, 'an internal error', 'please report it'],

  // Our own.
  OFF: [0x49530001, 'the policy is off', 'set ISTHMUS_POLICY to lazy or eager'],
  NOTLOCAL: [0x49530002, 'the peer address is not of this host', ''],
  YOUNG: [
    0x49530003,
    'too few bytes and too little time have passed for the policy lazy',
    'set ISTHMUS_POLICY=eager, or ISTHMUS_LAZY_BYTES and ISTHMUS_LAZY_MS',
  ],
  PLATFORM: [0x49530004, 'shared memory needs Linux', ''],
  FFI: [0x49530005, 'the system cannot be called: the optional package koffi is missing or unfit', 'npm install koffi'],
  SYSTEM: [
    0x49530006,
    'the system refuses a call that is needed',
    'look at seccomp and descriptor limits of the process; access store needs /proc',
  ],
  INTERNALS: [
    0x49530007,
    'this version of Node.js is not known to work',
    'upgrade isthmus, or use a release of Node.js it was tested with',
  ],
  NOFABRIC: [
    0x49530008,
    'there is no fabric and none can be started',
    'run `isthmus fabric` in a terminal and look at what it says',
  ],
  UNTRUSTED: [0x49530009, 'the fabric belongs to somebody else', 'remove what stands at its path'],
  FABRICLOST: [0x4953000a, 'the fabric has gone', 'nothing: it is started anew when it is needed'],
  FABRICBUSY: [0x4953000b, 'the fabric has reached a limit of this user', 'look at `isthmus fabric status`'],
  FABRICSILENT: [0x4953000e, 'the fabric does not answer', 'is it stopped, or is the machine very busy?'],
  KERNEL: [
    0x4953000f,
    'the kernel cannot say which network namespace a socket is in',
    'Linux 5.14 or later is needed (SO_NETNS_COOKIE)',
  ],
  NOBYTE: [0x4953000c, 'no byte has passed yet', ''],
  CHECKING: [0x4953000d, 'being looked at', 'an idle connection moves with its next bytes'],
  NOTTCP: [0x49530010, 'it is not a connected TCP socket', ''],
  HALFCLOSED: [0x49530011, 'one of its directions has ended', ''],
  TLS: [0x49530012, 'TLS reads and writes it below JavaScript', ''],
  HTTP2: [0x49530013, 'HTTP/2 reads and writes it below JavaScript', ''],
  NATIVE: [0x49530014, 'something reads or writes it below JavaScript', ''],
  PASSEDON: [0x49530015, 'another process has read or written it before', ''],
  SHARED: [0x49530016, 'two processes hold it', ''],
  GIVENAWAY: [0x49530017, 'it was given to another process', ''],
  RESTORED: [0x49530018, 'it was moved back to TCP', ''],
  MISMATCH: [0x49530019, 'the fabric found another socket than was announced', ''],
  LINGER: [0x4953001a, 'the socket has SO_LINGER set', ''],
  SELF: [0x4953001b, 'the socket is connected to itself', ''],
  UNKNOWNUSER: [
    0x4953001c,
    'the fabric does not know the user of this program (uid 65534)',
    'run program and fabric in one user namespace, and the program not as nobody',
  ],
  RUNTIME: [
    0x4953001d,
    'this runtime is not Node.js',
    'Bun and Deno have a node:net of their own: run the program with Node.js',
  ],
  OVERRIDDEN: [0x4953001e, 'the program has put its own methods on it, which would be passed over', ''],
  UNPROVEN: [
    0x4953001f,
    'the fabric could not prove which socket is the other end',
    'a stopped reader cannot be asked: try again while bytes pass; a proxy in between makes two connections of one',
  ],
  PAIRLOST: [0x49530020, 'the other partition has gone', ''],
  TIMEOUT: [0x49530021, 'the other end did not answer in the handshake', 'is it stopped, or very busy?'],
  PROTOCOL: [0x49530022, 'the other end broke the protocol', 'both ends should run the same version'],
  ENDED: [0x49530023, 'it ended before it could be moved', ''],
} as const satisfies Record<string, readonly [number, string, string]>;

export type ReasonName = keyof typeof ROWS;

export const REASONS = Object.fromEntries(
  Object.entries(ROWS).map(([name, [code, text, hint]]) => [name, Object.freeze({ code, name, text, hint })]),
) as { readonly [Name in ReasonName]: Reason };

const BY_CODE = new Map<number, Reason>(Object.values(REASONS).map((reason) => [reason.code, reason]));

/** The row of a code that a peer sent; one that has none comes as Linux calls it, or in hex. */
export function reasonOfCode(code: number): Reason {
  const row = BY_CODE.get(code);
  if (row !== undefined) return row;
  const hex = `0x${code.toString(16).padStart(8, '0')}`;
  const { name, text } = declineReason(code) ?? { name: hex, text: hex };
  return { code, name, text: `the other end declined: ${text}`, hint: '' };
}

/** What a Decline says of a reason: its own code if SMC has it, else that this socket cannot be had. */
export function declineCode(reason: Reason): number {
  return reason.code >>> 16 === 0x4953 ? REASONS.OPTUNSUPP.code : reason.code;
}
