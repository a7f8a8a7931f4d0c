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
  MEM: [
    SMC_CLC_DECL.MEM,
    'there is no memory for a buffer',
    'raise the memory limit of the program (`ulimit -v`) or its cgroup (memory.max), or set ISTHMUS_DMB_BYTES=16384; `isthmus doctor` tries it',
  ],
  PEERNOSMC: [
    SMC_CLC_DECL.PEERNOSMC,
    'the other end has not announced this connection',
    'run the other program under `isthmus run`, as the same user, and not with the policy off; `isthmus chk HOST:PORT` finds out what of it is missing',
  ],
  NOSMCDEV: [
    SMC_CLC_DECL.NOSMCDEV,
    'there is no ISM device',
    'the other end needs one, as every program with Isthmus has; `smcd device` lists those of a Linux kernel',
  ],
  NOSMCDDEV: [
    SMC_CLC_DECL.NOSMCDDEV,
    'no device and enterprise id fit to what the other end offers',
    'run the same version of Isthmus at both ends (`isthmus --version`), with one fabric: it keeps the enterprise ids',
  ],
  NOSMCRDEV: [
    SMC_CLC_DECL.NOSMCRDEV,
    'the other end offers SMC-R only, which needs RDMA hardware',
    'a device of SMC-D is needed at the other end',
  ],
  NOISM2SUPP: [
    SMC_CLC_DECL.NOISM2SUPP,
    'there is no ISM device for SMC-D version 2',
    'a device of version 2 is needed at the other end',
  ],
  NOV2DEXT: [
    SMC_CLC_DECL.NOV2DEXT,
    'the proposal has no SMC-D version 2 part',
    'a device of SMC-D version 2 is needed at the other end',
  ],
  NOSMCD2DEV: [
    SMC_CLC_DECL.NOSMCD2DEV,
    'no device reaches the other end',
    'both ends must use the same fabric: `isthmus chk HOST:PORT` names those that they use',
  ],
  NOUEID: [
    SMC_CLC_DECL.NOUEID,
    'there is no enterprise id (UEID) to agree on',
    '`isthmus ueid show` lists those of this host; `isthmus ueid add ISTHMUS` brings the built-in one back, for new connections',
  ],
  OPTUNSUPP: [
    SMC_CLC_DECL.OPTUNSUPP,
    'the other end cannot or does not want to move this connection',
    '`isthmus chk HOST:PORT` shows its own reason, `isthmus ss -d` too where the other program runs',
  ],
  RELEASEERR: [
    SMC_CLC_DECL.RELEASEERR,
    'the release changed during the handshake',
    'run the same version of Isthmus at both ends: `isthmus --version`',
  ],
  MODEUNSUPP: [
    SMC_CLC_DECL.MODEUNSUPP,
    'the other end chose what was not offered',
    'run the same version of Isthmus at both ends: `isthmus --version`',
  ],
  DIFFPREFIX: [
    SMC_CLC_DECL.DIFFPREFIX,
    'SMC of version 1 needs both ends in one IP subnet',
    'enable version 2 at the other end',
  ],
  MAX_DMB: [
    SMC_CLC_DECL.MAX_DMB,
    'all buffers for this peer are in use',
    'close connections, or spread them over more processes: `isthmus ss --smcd` lists those that have moved',
  ],
  SYNCERR: [
    SMC_CLC_DECL.SYNCERR,
    'the two ends disagree about their link group',
    'it will be made anew with the next connection',
  ],
  INTERR: [SMC_CLC_DECL.INTERR, 'an internal error', 'please report it'],

  // Our own.
  OFF: [0x49530001, 'the policy is off', 'start the program with ISTHMUS_POLICY=lazy or eager'],
  NOTLOCAL: [
    0x49530002,
    'the peer address is not of this host',
    'if it is that of a container here: start both programs with ISTHMUS_FABRIC=PATH, one socket that both can reach',
  ],
  YOUNG: [
    0x49530003,
    'too few bytes and too little time have passed for the policy lazy',
    'it moves by itself later; start the program with ISTHMUS_POLICY=eager to have it move at once',
  ],
  PLATFORM: [0x49530004, 'shared memory needs Linux', 'run both programs on 64-bit little-endian Linux 5.14 or later'],
  FFI: [
    0x49530005,
    'the system cannot be called: the optional package koffi is missing or unfit',
    '`npm install koffi` where isthmus is installed, then `isthmus doctor`',
  ],
  SYSTEM: [
    0x49530006,
    'the system refuses a call that is needed',
    '`isthmus doctor` names the call, if it is refused to all programs; a limit (`ulimit -a`) or a filter of a container (seccomp) is in its way; access store needs /proc',
  ],
  INTERNALS: [
    0x49530007,
    'this version of Node.js is not known to work',
    'upgrade isthmus, or use a release of Node.js it was tested with: 20, 22, 24 or 26; `isthmus doctor` tests the one that runs it',
  ],
  NOFABRIC: [
    0x49530008,
    'there is no fabric and none can be started',
    '`isthmus doctor` tries to start one, and says what is in the way',
  ],
  UNTRUSTED: [
    0x49530009,
    'the fabric belongs to somebody else',
    '`isthmus doctor` names what stands in its place: have it removed, or name another place with ISTHMUS_FABRIC',
  ],
  FABRICLOST: [0x4953000a, 'the fabric has gone', 'nothing: it is started anew when it is needed'],
  FABRICBUSY: [
    0x4953000b,
    'the fabric has reached a limit of this user',
    '`isthmus fabric status` shows which programs use it and what they have announced: once it is less, new connections move',
  ],
  FABRICSILENT: [
    0x4953000e,
    'the fabric does not answer',
    '`isthmus doctor` names its process: continue it (`kill -CONT PID`) or end it, and another one takes its place',
  ],
  KERNEL: [
    0x4953000f,
    'the kernel cannot say which network namespace a socket is in',
    'Linux 5.14 or later is needed (SO_NETNS_COOKIE), `uname -r` says which this is',
  ],
  NOBYTE: [0x4953000c, 'no byte has passed yet', 'it is looked at when the first byte passes'],
  CHECKING: [0x4953000d, 'the two ends shake hands', 'a moment: the other end has 6 seconds to answer'],
  NOTTCP: [0x49530010, 'it is not a connected TCP socket', ''],
  HALFCLOSED: [0x49530011, 'one of its directions has ended', ''],
  TLS: [
    0x49530012,
    'TLS reads and writes it below JavaScript',
    'TLS moves where the connection is not in-band, the client sets no `localAddress`, and Isthmus was loaded before it connected',
  ],
  HTTP2: [
    0x49530013,
    'HTTP/2 reads and writes it below JavaScript',
    'HTTP/2 moves where the client connects to an address, to localhost or to the name of this host',
  ],
  NATIVE: [0x49530014, 'something reads or writes it below JavaScript', ''],
  PASSEDON: [
    0x49530015,
    'another process has read or written it before',
    'pass sockets on before their first byte: `createServer({ pauseOnConnect: true })`',
  ],
  SHARED: [
    0x49530016,
    'two processes hold it',
    'have the one that does not use it close it, then call `accelerate`; `ss -tnp` lists both',
  ],
  GIVENAWAY: [
    0x49530017,
    'it was given to another process',
    'it moves there, once `attach` is called for it, if no byte had passed before',
  ],
  RESTORED: [0x49530018, 'it was moved back to TCP', '`accelerate` moves it again'],
  MISMATCH: [
    0x49530019,
    'the fabric was not shown in time the socket that was announced',
    'is this program stopped, or very busy? Further connections move, and this one when `accelerate` is called',
  ],
  LINGER: [0x4953001a, 'the socket has SO_LINGER set', 'do not set it: `destroy` and `resetAndDestroy` do without'],
  SELF: [
    0x4953001b,
    'the socket is connected to itself',
    'nobody listened at the port, which came to be its own: start the server before the client',
  ],
  UNKNOWNUSER: [
    0x4953001c,
    'the fabric does not know the user of this program (uid 65534)',
    'run program and fabric in one user namespace, and the program as a user of its own, not as nobody',
  ],
  RUNTIME: [
    0x4953001d,
    'this runtime is not Node.js',
    'Bun and Deno have a node:net of their own: run the program with Node.js',
  ],
  OVERRIDDEN: [
    0x4953001e,
    'the program has put its own methods on it, which would be passed over',
    'those that are put on `net.Socket.prototype` are called: put them there',
  ],
  UNPROVEN: [
    0x4953001f,
    'the fabric could not prove which socket is the other end',
    'a program that does not read cannot be asked: once it does, `accelerate` tries again, and further connections move; nor one that has set SO_OOBINLINE; a proxy in between makes two connections of one',
  ],
  PAIRLOST: [
    0x49530020,
    'the other partition has gone',
    'further connections move; this one when `accelerate` is called at both ends',
  ],
  TIMEOUT: [
    0x49530021,
    'the other end did not answer in the handshake',
    'is it stopped, or very busy? Once it answers, further connections move, and this one when `accelerate` is called at both ends',
  ],
  PROTOCOL: [
    0x49530022,
    'the other end broke the protocol',
    'run the same version of Isthmus at both ends: `isthmus --version`',
  ],
  ENDED: [0x49530023, 'it ended before it could be moved', ''],
  DENIED: [0x49530030, 'a rule of the policy denies it', 'docs/settings.md tells how rules are read'],
  BADPOLICY: [
    0x49530031,
    'the policy has a mistake, and it is not known what it denies',
    'correct it; the file is looked at again with further connections',
  ],
  AGREED: [0x49530033, 'both ends have agreed, and no byte has passed since', 'it moves with its next bytes'],
  HANDSHAKES: [
    0x49530032,
    'too many handshakes are under way in this program',
    'nothing: its turn comes; ISTHMUS_MAX_HANDSHAKES allows more',
  ],
} as const satisfies Record<string, readonly [number, string, string]>;

export type ReasonName = keyof typeof ROWS;

export const REASONS = Object.fromEntries(
  Object.entries(ROWS).map(([name, [code, text, hint]]) => [name, Object.freeze({ code, name, text, hint })]),
) as { readonly [Name in ReasonName]: Reason };

const BY_CODE = new Map<number, Reason>(Object.values(REASONS).map((reason) => [reason.code, reason]));

/** A reason with what is known of its cause where it came up. */
export function withCause(reason: Reason, cause: string, hint = reason.hint): Reason {
  return { ...reason, text: `${reason.text}: ${cause}`, hint };
}

/** What helps where the limit of descriptors is in the way. */
export const MORE_DESCRIPTORS =
  'raise the limit of descriptors: `ulimit -n 4096` before the program starts, LimitNOFILE= in a unit of systemd';

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
