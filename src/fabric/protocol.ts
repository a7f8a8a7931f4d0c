/**
 * The fabric protocol: every message with its fields, once. Codec (wire.ts), types and docs/fabric-protocol.md follow from it.
 *
 * A partition says in HELLO which versions it speaks; the fabric picks one and says so in WELCOME, or refuses. Version 2 brought
 * enterprise ids (EID) and introductions by GID (REACH), version 3 packets of several messages.
 */
import {
  decodeFields,
  encodeFields,
  FabricWireError,
  HEADER_BYTES,
  type MessageOf,
  type MessageSchema,
  Reader,
} from './wire.ts';

export const PROTOCOL_VERSION_MIN = 1;
export const PROTOCOL_VERSION_MAX = 3;

/** So that one packet keeps its receiver from others for a moment only. */
const MESSAGES_PER_PACKET = 64;

export const MESSAGES = {
  HELLO: {
    code: 1,
    from: 'partition',
    descriptors: 1,
    fields: { versionMin: 'u16', versionMax: 'u16', thread: 'u32', program: 'text' },
    text: 'First message of a partition. The descriptor is one end of an AF_UNIX stream socket pair: the fabric writes a byte there whenever it has sent something.',
  },
  ANNOUNCE: {
    code: 2,
    from: 'partition',
    descriptors: 0,
    fields: {
      claim: 'u32',
      role: 'u8',
      local: 'endpoint',
      peer: 'endpoint',
      netnsCookie: 'u64',
      socketCookie: 'u64',
    },
    text: "I hold one end of this TCP connection. `claim` is the partition's own number; `role` 0 = connected, 1 = accepted; the cookies are SO_NETNS_COOKIE and SO_COOKIE.",
  },
  WITHDRAW: {
    code: 3,
    from: 'partition',
    descriptors: 0,
    fields: { claim: 'u32' },
    text: 'The claim is void. Not answered.',
  },
  SHOWN: {
    code: 4,
    from: 'partition',
    descriptors: 1,
    fields: { claim: 'u32' },
    text: 'Answer to SHOW: the socket itself. The fabric closes it within moments and says RELEASED, MATCHED or DECLINED when it has.',
  },
  GONE: {
    code: 5,
    from: 'partition',
    descriptors: 0,
    fields: { claim: 'u32' },
    text: 'Answer to SHOW: there is no such socket any more. The claim is void.',
  },
  PAIR_GONE: {
    code: 6,
    from: 'partition',
    descriptors: 0,
    fields: { peer: 'gid', pair: 'u64' },
    text: 'The pair of this number with this peer has ended: introduce the two anew when it is needed again. Of no meaning when they have been already.',
  },
  STATUS: {
    code: 7,
    from: 'partition',
    descriptors: 0,
    fields: {},
    text: 'Asks for STATUS_REPLY. May be sent without HELLO, by root and by the user of the fabric. Not answered while an answer is under way.',
  },
  PING: {
    code: 8,
    from: 'partition',
    descriptors: 0,
    fields: {},
    text: 'Is the fabric alive? Answered by PONG.',
  },
  REACHABLE: {
    code: 9,
    from: 'partition',
    since: 2,
    descriptors: 0,
    fields: {},
    text: 'Whoever knows my GID may be introduced to me, from now on. Not answered.',
  },
  REACH: {
    code: 10,
    from: 'partition',
    since: 2,
    descriptors: 0,
    fields: { peer: 'gid' },
    text: 'Introduce me to the partition of this GID. Answered by REACHED.',
  },
  EID_SHOW: {
    code: 11,
    from: 'partition',
    since: 2,
    descriptors: 0,
    fields: {},
    text: 'Asks for EIDS. May be sent without HELLO, by everybody.',
  },
  EID_CHANGE: {
    code: 12,
    from: 'partition',
    since: 2,
    descriptors: 0,
    fields: { change: 'u8', ueid: 'text' },
    text: 'Changes the enterprise ids of this fabric. `change`: see EID_CHANGES; `ueid` is of meaning to the first two. May be sent without HELLO, by root and by the user of the fabric. Answered by EID_CHANGED.',
  },
  WELCOME: {
    code: 16,
    from: 'fabric',
    descriptors: 0,
    fields: { version: 'u16', gid: 'gid', chid: 'u16', incarnation: 'u64', pid: 'u32' },
    text: "Answer to HELLO: who the partition is from now on. GID and CHID are good for this incarnation of the fabric only. `pid` is the partition's process as the fabric sees it: a peer with the same one is a thread of the same process, unless it is 0: the fabric cannot see processes of another pid namespace.",
  },
  REFUSED: {
    code: 17,
    from: 'fabric',
    descriptors: 0,
    fields: { reason: 'u16', text: 'text' },
    text: 'Answer to HELLO, or the last message before the fabric hangs up on a partition. `reason`: see REFUSALS.',
  },
  SHOW: {
    code: 18,
    from: 'fabric',
    descriptors: 0,
    fields: { claim: 'u32' },
    text: 'Another announcement fits: show the socket now.',
  },
  RELEASED: {
    code: 19,
    from: 'fabric',
    descriptors: 0,
    fields: { claim: 'u32' },
    text: 'What was shown is closed, nothing came of it, the claim stands.',
  },
  INTRODUCE: {
    code: 20,
    from: 'fabric',
    descriptors: 3,
    fields: { peer: 'gid', pair: 'u64', pid: 'u32', uid: 'u32' },
    text: "A pair: one end of the pair channel (SOCK_SEQPACKET), the read end of the pipe that wakes the receiver of this message, the write end of the pipe that wakes its peer. `pair` is its number, the same for both; `pid` and `uid` are the peer's, as the fabric sees them.",
  },
  MATCHED: {
    code: 21,
    from: 'fabric',
    descriptors: 0,
    fields: { claim: 'u32', peer: 'gid', match: 'u64', role: 'u8' },
    text: 'Proven: this claim and one of `peer` are the two ends of one connection, known to both as `match`. `role` is what to be in the handshake: 0 = client, 1 = server.',
  },
  DECLINED: {
    code: 22,
    from: 'fabric',
    descriptors: 0,
    fields: { claim: 'u32', reason: 'u16' },
    text: 'The claim is void. `reason`: see DECLINES.',
  },
  STATUS_REPLY: {
    code: 23,
    from: 'fabric',
    descriptors: 0,
    fields: { more: 'u8', json: 'text' },
    text: 'A part of the state of the fabric as JSON; see `isthmus fabric status --json`. ASCII only, cut anywhere: the parts are joined before they are read. `more` 1 = another part follows, 0 = the last one.',
  },
  PONG: { code: 24, from: 'fabric', descriptors: 0, fields: {}, text: 'Answer to PING.' },
  EIDS: {
    code: 25,
    from: 'fabric',
    since: 2,
    descriptors: 0,
    fields: { ueids: 'text', seid: 'text', seidEnabled: 'u8' },
    text: 'The enterprise ids, for handshakes that begin from now on: follows WELCOME, answers EID_SHOW, and comes to all partitions after every change. `ueids`: up to four, a blank between two; `seid`: that of the machine, empty where it has none; `seidEnabled` 1 = may be used, 0 = not.',
  },
  EID_CHANGED: {
    code: 26,
    from: 'fabric',
    since: 2,
    descriptors: 0,
    fields: { error: 'u16', text: 'text' },
    text: 'Answer to EID_CHANGE. `error` 0 = done, else the errno of Linux that says why not, and `text` in words: EINVAL, EEXIST, ERANGE, ENOENT; EOPNOTSUPP: there is no SEID; EIO: the table cannot be stored. EAGAIN: done, and the SEID was enabled with it, since no UEID is left.',
  },
  REACHED: {
    code: 27,
    from: 'fabric',
    since: 2,
    descriptors: 0,
    fields: { peer: 'gid', reachable: 'u8' },
    text: 'Answer to REACH. `reachable` 1 = the two are a pair: INTRODUCE went out before, if they were none; 0 = they are not introduced.',
  },
} as const satisfies Record<string, MessageSchema>;

export type MessageName = keyof typeof MESSAGES;
export type FabricMessage = { [Name in MessageName]: MessageOf<Name, (typeof MESSAGES)[Name]> }[MessageName];
export type MessageByName<Name extends MessageName> = MessageOf<Name, (typeof MESSAGES)[Name]>;

/** Whether a message belongs to a version of the protocol. */
export function isOfVersion(name: MessageName, version: number): boolean {
  const schema: MessageSchema = MESSAGES[name];
  return (schema.since ?? 1) <= version;
}

/** Why the fabric hangs up on a partition. */
export const REFUSALS = {
  1: 'no common protocol version',
  2: 'too many partitions of this user',
  3: 'a message that breaks the protocol',
  4: 'not allowed',
  5: 'the fabric has no descriptors left for a new partition',
} as const;
export type Refusal = keyof typeof REFUSALS;

/** Why a claim comes to nothing. */
export const DECLINES = {
  1: 'two processes hold this socket',
  2: 'what was shown is not what was announced',
  3: 'the socket has SO_LINGER set',
  4: 'too many announcements of this user',
  5: 'too many claims of this partition, or of its user',
  6: 'the fabric has no descriptors left for it',
  7: 'the socket is connected to itself',
  8: 'the user of this partition is not known to the fabric',
  9: 'it could not be proven which socket is the other end',
} as const;
export type Decline = keyof typeof DECLINES;

/** What EID_CHANGE asks for. */
export const EID_CHANGES = {
  1: 'add this UEID',
  2: 'delete this UEID',
  3: 'delete all UEIDs',
  4: 'enable the SEID',
  5: 'disable the SEID',
} as const;
export type EidChange = keyof typeof EID_CHANGES;

const BY_CODE = new Map<number, MessageName>(
  Object.entries(MESSAGES).map(([name, schema]) => [schema.code, name as MessageName]),
);

export function encodeMessage(message: FabricMessage): Buffer {
  return encodeFields(MESSAGES[message.type], message);
}

/** Of a version of the protocol. */
export function messagesPerPacket(version: number): number {
  return version >= 3 ? MESSAGES_PER_PACKET : 1;
}

/** One of those that came in a packet. */
export interface Delivery {
  readonly message: FabricMessage;
  /** None, also where there were some that did not fit into this process. */
  readonly fds: readonly number[];
}

/**
 * @param fds that came with the packet; null: they did not fit into this process
 * @param most messages of one packet
 * Throws FabricWireError for anything but whole messages of that sender with their descriptors, which stay the caller's then.
 */
export function decodePacket(
  packet: Buffer,
  fds: readonly number[] | null,
  from: 'partition' | 'fabric',
  most: number,
): Delivery[] {
  const deliveries: Delivery[] = [];
  const reader = new Reader(packet);
  let taken = 0;
  do {
    if (deliveries.length === most) throw new FabricWireError(`more than ${most} messages in a packet`);
    const name = BY_CODE.get(packet.readUInt8(reader.skip(HEADER_BYTES)));
    if (name === undefined) throw new FabricWireError('no known message');
    const schema: MessageSchema = MESSAGES[name];
    if (schema.from !== from) throw new FabricWireError(`${name} from a ${from}`);
    const own = fds?.slice(taken, taken + schema.descriptors) ?? [];
    taken += schema.descriptors;
    if (fds !== null && own.length < schema.descriptors) throw new FabricWireError(`${name} without its descriptors`);
    deliveries.push({ message: decodeFields(name, schema, reader) as unknown as FabricMessage, fds: own });
  } while (!reader.atEnd);
  if (fds === null && taken === 0) throw new FabricWireError('descriptors that no message takes');
  if (fds !== null && taken !== fds.length) throw new FabricWireError(`${fds.length} descriptors instead of ${taken}`);
  return deliveries;
}

/** A packet of one message. */
export function decodeMessage(packet: Buffer, fds: readonly number[], from: 'partition' | 'fabric'): FabricMessage {
  const [delivery] = decodePacket(packet, fds, from, 1);
  return (delivery as Delivery).message;
}
