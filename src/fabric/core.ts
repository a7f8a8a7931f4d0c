/**
 * What the fabric knows and decides, without sockets: messages of partitions in, calls of FabricIo out.
 *
 * A claim waits until another one of the same connection comes. Then both ends are asked to show their sockets, which are looked
 * at together and closed: nothing is believed of a socket that was not held at that moment.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import { type Chid, type Gid, randomGid, virtualChid } from '../ism/index.ts';
import type { PendingChallenge, Verdict } from './challenge.ts';
import { changeEids, type EidOutcome, type EidTable, eidsMessage } from './eids.ts';
import { Bucket, type Credentials, DEFAULT_LIMITS, type FabricLimits, userOf } from './limits.ts';
import {
  areTwoEnds,
  checkShown,
  clientKey,
  connectionKey,
  endOf,
  isSelfConnected,
  mayBeTwoEnds,
  type Shown,
} from './match.ts';
import {
  type Decline,
  type FabricMessage,
  isOfVersion,
  type MessageByName,
  PROTOCOL_VERSION_MAX,
  PROTOCOL_VERSION_MIN,
  REFUSALS,
  type Refusal,
} from './protocol.ts';

export interface FabricIo {
  /** Descriptors go over to the shell, which closes them once they are sent. */
  send(partition: PartitionId, message: FabricMessage, fds?: readonly number[]): void;
  hangUp(partition: PartitionId): void;
  inspect(fd: number): Shown;
  /** Asks for proof by so many urgent bytes in each direction, and says in a moment what came of it. */
  challenge(one: number, other: number, rounds: number, done: (verdict: Verdict) => void): PendingChallenge;
  /** Closes what somebody of this user has sent, and calls back when that is done. Never blocks. */
  close(user: User['name'], fd: number, closed: () => void): void;
  /** Two ends of a channel and two pipes, as they go to the one and to the other. Throws when there are no descriptors left. */
  createPair(): { one: PairEnds; other: PairEnds };
  /** Stores the table for the next fabric here. Throws when that fails. */
  saveEids(table: EidTable): void;
  /** Asks to call `expired` later. */
  after(delayMs: number, expired: () => void): { cancel(): void };
  now(): number;
}

/** What goes to one of the two. */
export type PairEnds = readonly [channelFd: number, wakeFd: number, ringFd: number];

/** Given by the shell: one per connection to the fabric. */
export type PartitionId = number;

interface Partition {
  readonly id: PartitionId;
  readonly gid: Gid;
  readonly pid: number;
  readonly uid: number;
  readonly user: User;
  readonly thread: number;
  readonly program: string;
  /** Of the protocol, as agreed. */
  readonly version: number;
  /** Whoever knows its GID may be introduced to it. */
  isReachable: boolean;
  readonly claims: Map<number, Claim>;
  /** Sockets that it was asked for and has not shown. */
  asked: number;
  /** By peer: the number of the pair. */
  readonly pairs: Map<Gid, bigint>;
}

interface Claim {
  readonly partition: Partition;
  readonly announced: MessageByName<'ANNOUNCE'>;
  readonly key: string;
  /** What both ends call the client. */
  readonly client: string;
  /** The proof under way. */
  proof: Proof | null;
  /** Those that were found not to be its other end. */
  readonly refuted: WeakMap<Claim, Refutation>;
  /** How often others have claimed to have its other end, and were found not to: by user. */
  readonly falsely: Map<User, number>;
  /** How often it was asked for proof by urgent bytes, to no avail. */
  tries: number;
  /**
   * The two that urgent bytes were sent at to no avail have one number. With anybody else there is no asking any more, since nobody but
   * the true other end knows whether its reader has read past those bytes. 0 = none were sent.
   */
  touched: number;
  /** Not before this time again. */
  notBefore: number;
}

interface Refutation {
  readonly times: number;
  /** When the two may be asked once more. */
  readonly until: number;
}

interface Proof {
  readonly claims: readonly [Claim, Claim];
  readonly shown: Map<Claim, number>;
  /** What it waits for: that both show, and then what comes of the challenge. */
  awaits: { cancel(): void } | PendingChallenge;
}

interface User {
  /** As `userOf` says. What nobody is known to be counts as one, and is matched with nobody. */
  readonly name: string | null;
  partitions: number;
  claims: number;
  readonly connections: Bucket;
  readonly announcements: Bucket;
  /** Sockets of this user that are asked for or held. */
  showing: number;
  /** Proofs that wait until fewer are. */
  readonly waiting: (() => void)[];
}

/** How long a partition may take to show a socket. */
const SHOW_TIMEOUT_MS = 2000;
/** Urgent bytes in each direction, by which a stranger is found out. */
const ROUNDS_OF_ONE_USER = 3;
const ROUNDS_OF_TWO_USERS = 8;
/**
 * Claims of one user to one end of a connection: of those that are no lie one stands, and some that are over may not have been
 * withdrawn yet. And claims that call the client the same, which may be connected to several servers. So that nobody's search takes long.
 */
const MOST_OF_ONE_END = 8;
const MOST_OF_ONE_CLIENT = 64;
/** How often a claim is held against those of one other user that are false: each can take the time in which a socket is to be shown. */
const MOST_FALSE_CLAIMS = 2;
/** How often a claim is asked for proof by urgent bytes: at other moments, or with others that have the same names. */
const MOST_TRIES = 6;
const FIRST_RETRY_MS = 100;
/** How often two claims are asked for bytes that are not seen: a stream at full speed may pass all of them unseen by its reader. */
const MOST_REFUTATIONS = 5;
/** For an end that cannot be proven to find one of its own network namespace. */
const NAMES_MS = 5000;
/** Until the second time; then twice as long, and so on. */
const REFUTED_MS = 4000;

function areOfOneUser(one: Claim, other: Claim): boolean {
  return one.partition.user === other.partition.user;
}

/** Whether the users of two claims have troubled each other's enough. Those of one user are its own affair. */
function isPassedOver(one: Claim, other: Claim): boolean {
  const isTooOften = (count = 0) => count >= MOST_FALSE_CLAIMS;
  return (
    !areOfOneUser(one, other) &&
    (isTooOften(one.falsely.get(other.partition.user)) || isTooOften(other.falsely.get(one.partition.user)))
  );
}

function countOf(user: User, claims: Iterable<Claim>): number {
  let count = 0;
  for (const { partition } of claims) if (partition.user === user) count++;
  return count;
}

function countFalse(claim: Claim, { partition }: Claim): void {
  claim.falsely.set(partition.user, (claim.falsely.get(partition.user) ?? 0) + 1);
}

export class FabricCore {
  readonly incarnation = randomBytes(8).readBigUInt64LE();
  readonly chid: Chid = virtualChid(Number(this.incarnation % 0x1_0000n));
  readonly #io: FabricIo;
  readonly #limits: FabricLimits;
  readonly #partitions = new Map<PartitionId, Partition>();
  readonly #byGid = new Map<Gid, Partition>();
  readonly #users = new Map<string | null, User>();
  /** By connection key: the claims for either end. */
  readonly #claims = new Map<string, [Claim[], Claim[]]>();
  /** By their `client`. */
  readonly #byClient = new Map<string, Set<Claim>>();
  readonly counters = { announced: 0, shown: 0, challenged: 0, matched: 0, declined: 0, refused: 0, pairs: 0 };
  #eids: EidTable;
  #touch = 0;
  #match = 0n;

  constructor(io: FabricIo, eids: EidTable, limits: Partial<FabricLimits> = {}) {
    this.#io = io;
    this.#eids = eids;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
  }

  get partitionCount(): number {
    return this.#partitions.size;
  }

  /** Whether one more connection of this user is let in. */
  admits(credentials: Credentials): boolean {
    return this.#user(userOf(credentials)).connections.take(this.#io.now());
  }

  /** First message of a connection. `credentials` come from the kernel. */
  hello(id: PartitionId, credentials: Credentials, hello: MessageByName<'HELLO'>): void {
    const version = Math.min(hello.versionMax, PROTOCOL_VERSION_MAX);
    if (version < hello.versionMin || version < PROTOCOL_VERSION_MIN) {
      this.refuse(id, 1);
      return;
    }
    const user = this.#user(userOf(credentials));
    if (user.partitions >= this.#limits.partitionsPerUser) {
      this.refuse(id, 2);
      return;
    }
    user.partitions++;
    const partition: Partition = {
      id,
      gid: randomGid(),
      pid: credentials.pid,
      uid: credentials.uid,
      user,
      thread: hello.thread,
      program: hello.program.slice(0, 200),
      version,
      isReachable: false,
      claims: new Map(),
      asked: 0,
      pairs: new Map(),
    };
    this.#partitions.set(id, partition);
    this.#byGid.set(partition.gid, partition);
    const { gid, pid } = partition;
    this.#io.send(id, { type: 'WELCOME', version, gid, chid: this.chid, incarnation: this.incarnation, pid });
    if (isOfVersion('EIDS', version)) this.showEids(id);
  }

  /** Kept for good: who comes back finds the same bucket. */
  #user(name: string | null): User {
    let user = this.#users.get(name);
    if (user === undefined) {
      const limits = this.#limits;
      const now = this.#io.now();
      const connections = new Bucket(limits.connectionsPerSecond, limits.connectionBurst, now);
      const announcements = new Bucket(limits.announcementsPerSecond, limits.announcementBurst, now);
      user = { name, partitions: 0, claims: 0, connections, announcements, showing: 0, waiting: [] };
      this.#users.set(name, user);
    }
    return user;
  }

  /** The last message; then the partition is hung up on. */
  refuse(id: PartitionId, reason: Refusal): void {
    this.counters.refused++;
    this.#io.send(id, { type: 'REFUSED', reason, text: REFUSALS[reason] });
    this.#io.hangUp(id);
    this.left(id);
  }

  /** Of the protocol, as agreed; 1 before that. */
  versionOf(id: PartitionId): number {
    return this.#partitions.get(id)?.version ?? PROTOCOL_VERSION_MIN;
  }

  isKnown(id: PartitionId): boolean {
    return this.#partitions.has(id);
  }

  /**
   * A message of a partition that has said HELLO. The descriptor, if the message has one, is the core's; null also where it did not
   * come, since this process may have no more.
   */
  message(id: PartitionId, message: FabricMessage, fd: number | null): void {
    const partition = this.#partitions.get(id);
    if (partition === undefined) return;
    if (!isOfVersion(message.type, partition.version)) {
      this.refuse(id, 3);
      return;
    }
    switch (message.type) {
      case 'ANNOUNCE':
        this.#announce(partition, message);
        break;
      case 'WITHDRAW':
      case 'GONE': {
        const claim = partition.claims.get(message.claim);
        if (claim !== undefined) this.#drop(claim);
        break;
      }
      case 'SHOWN':
        if (fd !== null) this.#shown(partition, message.claim, fd);
        else this.#missed(partition, message.claim);
        break;
      case 'PING':
        this.#io.send(id, { type: 'PONG' });
        break;
      case 'PAIR_GONE':
        if (partition.pairs.get(message.peer) !== message.pair) break; // of an older one
        partition.pairs.delete(message.peer);
        this.#byGid.get(message.peer)?.pairs.delete(partition.gid);
        break;
      case 'REACHABLE':
        partition.isReachable = true;
        break;
      case 'REACH': {
        const reachable = this.#reach(partition, message.peer) ? 1 : 0;
        this.#io.send(id, { type: 'REACHED', peer: message.peer, reachable });
        break;
      }
      default:
        this.refuse(id, 3);
    }
  }

  /** The partition has hung up, or was hung up on. */
  left(id: PartitionId): void {
    const partition = this.#partitions.get(id);
    if (partition === undefined) return;
    this.#partitions.delete(id);
    this.#byGid.delete(partition.gid);
    for (const claim of [...partition.claims.values()]) this.#drop(claim);
    for (const gid of partition.pairs.keys()) this.#byGid.get(gid)?.pairs.delete(partition.gid);
    partition.user.partitions--;
  }

  // --- Claims ---

  #announce(partition: Partition, announced: MessageByName<'ANNOUNCE'>): void {
    this.counters.announced++;
    const old = partition.claims.get(announced.claim);
    if (old !== undefined) this.#drop(old);
    if (!partition.user.announcements.take(this.#io.now())) {
      this.#say(partition, announced.claim, 4);
    } else if (
      partition.claims.size >= this.#limits.claimsPerPartition ||
      partition.user.claims >= this.#limits.claimsPerUser
    ) {
      this.#say(partition, announced.claim, 5);
    } else if (partition.user.name === null) {
      this.#say(partition, announced.claim, 8); // whoever it is: two of them may be two users
    } else if (isSelfConnected(announced)) {
      this.#say(partition, announced.claim, 7);
    } else {
      const fresh = {
        proof: null,
        refuted: new WeakMap<Claim, Refutation>(),
        falsely: new Map<User, number>(),
        tries: 0,
        touched: 0,
        notBefore: 0,
      };
      const names = { key: connectionKey(announced), client: clientKey(announced) };
      this.#add({ partition, announced, ...names, ...fresh });
    }
  }

  #add(claim: Claim): void {
    const { key, announced, partition } = claim;
    const sides = this.#claims.get(key) ?? [[], []];
    const mine = sides[endOf(announced)];
    const twin = mine.find(
      (one) => one.announced.socketCookie === announced.socketCookie && one.partition !== partition,
    );
    if (twin !== undefined) {
      // One socket in two processes: bytes may go either way, so neither may move it.
      this.#decline(twin, 1);
      this.#say(partition, announced.claim, 1);
      return;
    }
    if (countOf(partition.user, mine) >= MOST_OF_ONE_END) {
      this.#say(partition, announced.claim, 5);
      return;
    }
    mine.push(claim);
    this.#claims.set(key, sides);
    partition.claims.set(announced.claim, claim);
    partition.user.claims++;
    const sameClient = this.#byClient.get(claim.client) ?? new Set();
    // Those that are more are found by their names alone.
    if (countOf(partition.user, sameClient) < MOST_OF_ONE_CLIENT)
      this.#byClient.set(claim.client, sameClient.add(claim));
    this.#tryToProve(claim);
  }

  /** Looks for a claim of the other end that is not in a proof already. */
  #tryToProve(claim: Claim): void {
    if (claim.proof !== null || !this.#stands(claim)) return;
    // Others do not wait for somebody whose sockets are all asked for, as long as there is another one to ask.
    const isFree = ({ partition }: Claim) => partition.user.showing < this.#limits.shownPerUser;
    const other = this.#otherEnd(claim, isFree) ?? this.#otherEnd(claim, () => true);
    if (other !== undefined) this.#prove(claim, other);
  }

  #otherEnd(claim: Claim, isWanted: (one: Claim) => boolean): Claim | undefined {
    const others = this.#claims.get(claim.key)?.[1 - endOf(claim.announced)] ?? [];
    const fits = (one: Claim) =>
      one.proof === null && one.partition !== claim.partition && !isPassedOver(claim, one) && isWanted(one);
    return others.find(fits) ?? this.#mayBeOtherEnd(claim, isWanted);
  }

  /** One in another network namespace, or behind address translation. */
  #mayBeOtherEnd(claim: Claim, isWanted: (one: Claim) => boolean): Claim | undefined {
    const { announced } = claim;
    const now = this.#io.now();
    if (claim.notBefore > now) return undefined;
    const mayBe = (one: Claim) =>
      one.announced.role !== announced.role &&
      one.partition !== claim.partition &&
      one.key !== claim.key &&
      one.proof === null &&
      one.notBefore <= now &&
      one.touched === claim.touched &&
      (claim.refuted.get(one)?.until ?? 0) <= now &&
      !isPassedOver(claim, one) &&
      mayBeTwoEnds(one.announced, announced) &&
      isWanted(one);
    // Not copied: a stranger may have claimed one name many times.
    for (const one of this.#byClient.get(claim.client) ?? []) if (mayBe(one)) return one;
    return undefined;
  }

  #stands(claim: Claim): boolean {
    return claim.partition.claims.get(claim.announced.claim) === claim;
  }

  /** Takes a claim out; what was shown for it is closed, and the other end may be tried with another claim. */
  #drop(claim: Claim): void {
    const { key, partition, announced } = claim;
    if (!this.#stands(claim)) return;
    partition.claims.delete(announced.claim);
    partition.user.claims--;
    const sameClient = this.#byClient.get(claim.client);
    sameClient?.delete(claim);
    if (sameClient?.size === 0) this.#byClient.delete(claim.client);
    const sides = this.#claims.get(key);
    if (sides !== undefined) {
      const mine = sides[endOf(announced)];
      mine.splice(mine.indexOf(claim), 1);
      if (sides[0].length + sides[1].length === 0) this.#claims.delete(key);
    }
    if (claim.proof !== null) this.#endProof(claim.proof);
  }

  #decline(claim: Claim, reason: Decline): void {
    if (!this.#stands(claim)) return;
    this.#drop(claim);
    this.#say(claim.partition, claim.announced.claim, reason);
  }

  #say(partition: Partition, claim: number, reason: Decline): void {
    this.counters.declined++;
    this.#io.send(partition.id, { type: 'DECLINED', claim, reason });
  }

  // --- Proofs ---

  #prove(one: Claim, other: Claim): void {
    const users = [...new Set([one.partition.user, other.partition.user])];
    const busy = users.find((user) => user.showing >= this.#limits.shownPerUser);
    if (busy !== undefined) {
      busy.waiting.push(() => this.#tryToProve(one));
      return;
    }
    const proof: Proof = {
      claims: [one, other],
      shown: new Map(),
      awaits: this.#io.after(SHOW_TIMEOUT_MS, () => this.#showTimedOut(proof)),
    };
    for (const claim of proof.claims) {
      claim.proof = proof;
      claim.partition.user.showing++;
      claim.partition.asked++;
      this.#io.send(claim.partition.id, { type: 'SHOW', claim: claim.announced.claim });
    }
  }

  /** Who did not show is not believed any more. */
  #showTimedOut(proof: Proof): void {
    const [one, other] = proof.claims;
    if (!proof.shown.has(one)) countFalse(other, one);
    if (!proof.shown.has(other)) countFalse(one, other);
    for (const claim of proof.claims) if (!proof.shown.has(claim)) this.#decline(claim, 2);
    this.#endProof(proof);
  }

  #shown(partition: Partition, number: number, fd: number): void {
    const claim = partition.claims.get(number);
    const proof = claim?.proof;
    if (claim === undefined || !proof || proof.shown.has(claim)) {
      // Too late, or not asked for: who does that has one connection for each.
      this.#io.close(partition.user.name, fd, () => this.#io.send(partition.id, { type: 'RELEASED', claim: number }));
      if (partition.asked === 0) this.refuse(partition.id, 3);
      else partition.asked--;
      return;
    }
    this.counters.shown++;
    partition.asked--;
    proof.shown.set(claim, fd);
    if (proof.shown.size === 2) this.#decide(proof);
  }

  /** What was shown could not be taken. Another user's end waits on: for all we know it has another one. */
  #missed(partition: Partition, number: number): void {
    if (partition.asked === 0) {
      this.refuse(partition.id, 3);
      return;
    }
    partition.asked--;
    const claim = partition.claims.get(number);
    const proof = claim?.proof;
    if (!proof) return;
    const declined = proof.claims.filter((one) => one === claim || one.partition.user === partition.user);
    this.#endProof(proof, () => {
      for (const one of declined) this.#decline(one, 6);
    });
  }

  #decide(proof: Proof): void {
    const [one, other] = proof.claims;
    const shown = proof.claims.map((claim) => this.#io.inspect(proof.shown.get(claim) as number));
    const faults = proof.claims.map((claim, i) => checkShown(claim.announced, shown[i] ?? null));
    if (faults[0] !== null) countFalse(other, one);
    if (faults[1] !== null) countFalse(one, other);
    if (faults.some((fault) => fault !== null)) {
      this.#endProof(proof, () => {
        for (const [i, fault] of faults.entries()) if (fault !== null) this.#decline(proof.claims[i] as Claim, fault);
      });
    } else if (areTwoEnds(one.announced, other.announced)) {
      this.#endProof(proof, () => this.#matched(one, other));
    } else if (one.key === other.key) {
      this.#endProof(proof, () => {
        for (const claim of proof.claims) this.#decline(claim, 2);
      });
    } else if (shown.some((end) => end?.urgentInline)) {
      const inline = proof.claims.filter((_, i) => shown[i]?.urgentInline);
      this.#endProof(proof, () => {
        this.#refuted(one, other);
        // Which nothing can be proven of. Another user's claim alone does not void it.
        if (areOfOneUser(one, other)) for (const claim of inline) this.#decline(claim, 9);
      });
    } else {
      this.#challenge(proof);
    }
  }

  #challenge(proof: Proof): void {
    const [one, other] = proof.claims;
    const [fdOne, fdOther] = proof.claims.map((claim) => proof.shown.get(claim) as number) as [number, number];
    const isOneUser = areOfOneUser(one, other);
    const rounds = isOneUser ? ROUNDS_OF_ONE_USER : ROUNDS_OF_TWO_USERS;
    proof.awaits.cancel();
    const pending = this.#io.challenge(fdOne, fdOther, rounds, (verdict) => {
      this.counters.challenged++;
      this.#endProof(proof, () => {
        if (verdict === 'proven') this.#matched(one, other);
        else if (verdict === 'refuted') this.#refuted(one, other);
        else if (pending.hasSent && !isOneUser) this.#giveUp(one, other);
        else if (verdict === 'unseen') this.#unseen(one, other);
        else this.#askLater(one, other);
      });
    });
    proof.awaits = pending;
  }

  /** Of one user. As long as both stand they are asked again. */
  #unseen(one: Claim, other: Claim): void {
    const before = one.refuted.get(other)?.times ?? 0;
    if (before + 1 < MOST_REFUTATIONS) this.#refuted(one, other, REFUTED_MS * 2 ** before);
    else for (const claim of [one, other]) this.#decline(claim, 9);
  }

  /** Each may have another end. @param delayMs when the two may be asked once more */
  #refuted(one: Claim, other: Claim, delayMs = Number.POSITIVE_INFINITY): void {
    const times = (one.refuted.get(other)?.times ?? 0) + 1;
    for (const [claim, peer] of [
      [one, other],
      [other, one],
    ] as const) {
      claim.refuted.set(peer, { times, until: this.#io.now() + delayMs });
      countFalse(claim, peer);
      if (times === 1 && ++claim.tries >= MOST_TRIES) this.#decline(claim, 9);
    }
    if (Number.isFinite(delayMs)) this.#io.after(delayMs, () => this.#tryToProve(one));
  }

  /**
   * Of two users: a stranger that has made its counters fit would have a second byte sent. The one of the two that is honest waits for
   * its other end to be found by its names.
   */
  #giveUp(one: Claim, other: Claim): void {
    this.#refuted(one, other);
    this.#io.after(NAMES_MS, () => {
      for (const claim of [one, other]) if (claim.proof === null) this.#decline(claim, 9);
    });
  }

  /** A reader that is stopped now may read then. */
  #askLater(one: Claim, other: Claim): void {
    for (const claim of [one, other]) {
      if (++claim.tries >= MOST_TRIES) {
        this.#decline(claim, 9);
        continue;
      }
      const delayMs = FIRST_RETRY_MS * 2 ** claim.tries;
      claim.notBefore = this.#io.now() + delayMs;
      this.#io.after(delayMs, () => this.#tryToProve(claim));
    }
  }

  /**
   * Closes what was shown; a descriptor that is kept holds back a FIN. The outcome is told when all are closed; claims that still
   * stand after it are tried again.
   */
  #endProof(proof: Proof, outcome: () => void = () => {}): void {
    if (!proof.claims.some((claim) => claim.proof === proof)) return;
    const { awaits, claims } = proof;
    awaits.cancel();
    // However it ends.
    if ('hasSent' in awaits && awaits.hasSent && claims[0].touched === 0)
      claims[0].touched = claims[1].touched = ++this.#touch;
    for (const claim of claims) claim.proof = null;
    let open = proof.shown.size;
    const closed = () => {
      if (--open > 0) return;
      for (const claim of proof.claims) this.#release(claim.partition.user);
      outcome();
      for (const claim of proof.claims) {
        if (!this.#stands(claim)) continue;
        if (proof.shown.has(claim))
          this.#io.send(claim.partition.id, { type: 'RELEASED', claim: claim.announced.claim });
        this.#tryToProve(claim);
      }
    };
    if (open === 0) {
      open = 1;
      closed();
    } else {
      for (const [{ partition }, fd] of proof.shown) this.#io.close(partition.user.name, fd, closed);
    }
  }

  #release(user: User): void {
    user.showing--;
    // Not just one: the claims of some that wait have gone.
    while (user.showing < this.#limits.shownPerUser && user.waiting.length > 0) user.waiting.shift()?.();
  }

  #matched(one: Claim, other: Claim): void {
    if (!this.#stands(one) || !this.#stands(other)) return;
    if (!this.#introduce(one.partition, other.partition)) {
      this.#decline(one, 6);
      this.#decline(other, 6);
      return;
    }
    this.counters.matched++;
    const match = ++this.#match;
    // Both may say that they connected (simultaneous open) or that they were accepted (a socket made from a descriptor).
    const oneIsClient =
      one.announced.role !== other.announced.role ? one.announced.role === 0 : one.partition.gid < other.partition.gid;
    for (const [claim, peer, role] of [
      [one, other, oneIsClient ? 0 : 1],
      [other, one, oneIsClient ? 1 : 0],
    ] as const) {
      this.#drop(claim);
      const message = { claim: claim.announced.claim, peer: peer.partition.gid, match, role };
      this.#io.send(claim.partition.id, { type: 'MATCHED', ...message });
    }
  }

  /** Whether the two are a pair now. Who asks in vain does not learn why: a GID that is guessed says nothing of others. */
  #reach(asker: Partition, gid: Gid): boolean {
    if (!asker.user.announcements.take(this.#io.now())) return false;
    const peer = this.#byGid.get(gid);
    if (peer === undefined || peer === asker || !peer.isReachable) return false;
    if (asker.user.name === null || peer.user.name === null) return false; // whoever it is, as in #announce
    return this.#introduce(asker, peer);
  }

  /** False when there are no descriptors left. */
  #introduce(one: Partition, other: Partition): boolean {
    if (one.pairs.has(other.gid)) return true;
    let ends: ReturnType<FabricIo['createPair']>;
    try {
      ends = this.#io.createPair();
    } catch {
      return false;
    }
    const pair = BigInt(++this.counters.pairs);
    one.pairs.set(other.gid, pair);
    other.pairs.set(one.gid, pair);
    this.#io.send(one.id, { type: 'INTRODUCE', peer: other.gid, pair, pid: other.pid, uid: other.uid }, ends.one);
    this.#io.send(other.id, { type: 'INTRODUCE', peer: one.gid, pair, pid: one.pid, uid: one.uid }, ends.other);
    return true;
  }

  // --- Enterprise ids ---

  /** To a partition, or to a connection that has not said HELLO. */
  showEids(id: PartitionId): void {
    this.#io.send(id, eidsMessage(this.#eids));
  }

  /** Who may do so is the shell's affair. All partitions know before the answer is out. */
  changeEids(id: PartitionId, { change, ueid }: MessageByName<'EID_CHANGE'>): void {
    const { table, error, text } = this.#stored(changeEids(this.#eids, change, ueid));
    if (table !== this.#eids) {
      this.#eids = table;
      for (const { id, version } of this.#partitions.values()) if (isOfVersion('EIDS', version)) this.showEids(id);
    }
    this.#io.send(id, { type: 'EID_CHANGED', error, text });
  }

  /** A table that cannot be stored does not come into force. */
  #stored(outcome: EidOutcome): EidOutcome {
    try {
      if (outcome.table !== this.#eids) this.#io.saveEids(outcome.table);
      return outcome;
    } catch (error) {
      const text = `the table cannot be stored: ${(error as Error).message}`;
      return { table: this.#eids, error: constants.errno.EIO, text };
    }
  }

  // --- For people ---

  status(): Record<string, unknown> {
    return {
      incarnation: `0x${this.incarnation.toString(16)}`,
      chid: this.chid,
      counters: this.counters,
      limits: this.#limits,
      eids: this.#eids,
      claims: [...this.#claims.values()].reduce((sum, [left, right]) => sum + left.length + right.length, 0),
      partitions: [...this.#partitions.values()].map(({ gid, pid, uid, user, thread, program, claims, pairs }) => ({
        gid,
        pid,
        uid,
        user: user.name,
        thread,
        program,
        claims: claims.size,
        pairs: pairs.size,
      })),
    };
  }
}
