/**
 * A partition's connection to the fabric. What is said in one turn goes out at its end, in one packet. Nobody waits for the fabric: when it
 * does not take what is said, saying more becomes an error.
 */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Chid, type Eid, type Gid, IsthmusError, parseChid } from '../ism/index.ts';
import { setImmediate } from '../os/event-loop.ts';
import {
  closeFd,
  connectPackets,
  type Doorbell,
  errorCode,
  OsUnavailableError,
  openDoorbell,
  type Packet,
  peerCredentials,
  receivePacket,
  sendPacket,
  streamSocketPair,
} from '../os/index.ts';
import { defaultEids, type EidTable, tableOf } from './eids.ts';
import { OVERFLOW_UID } from './limits.ts';
import { DistrustError, distrustPath, distrustPeer, type FabricPlace, fabricPlaces } from './locate.ts';
import {
  type Delivery,
  decodePacket,
  encodeMessage,
  type FabricMessage,
  isOfVersion,
  type MessageByName,
  messagesPerPacket,
  PROTOCOL_VERSION_MAX,
  PROTOCOL_VERSION_MIN,
} from './protocol.ts';
import { FabricWireError } from './wire.ts';

/** No fabric: why is in `kind`. */
export class FabricUnavailable extends IsthmusError {
  readonly kind: 'none' | 'untrusted' | 'full' | 'refused' | 'foreign' | 'silent' | 'nobody';
  /** What helps here; null: nothing special. */
  readonly hint: string | null;

  constructor(kind: FabricUnavailable['kind'], message: string, hint: string | null = null, cause?: unknown) {
    super('ERR_ISTHMUS_FABRIC', 'system', message, { cause });
    this.name = 'FabricUnavailable';
    this.kind = kind;
    this.hint = hint;
  }
}

export interface FabricListener {
  /** Descriptors are the listener's: channel, read end, write end; null: this process may have no more. */
  introduced(message: MessageByName<'INTRODUCE'>, fds: readonly [number, number, number] | null): void;
  show(claim: number): void;
  released(claim: number): void;
  matched(message: MessageByName<'MATCHED'>): void;
  declined(claim: number, reason: number): void;
  /** The enterprise ids have changed; handshakes that begin from now on use these. @param seid null: none, or not enabled */
  eids(ueids: readonly Eid[], seid: Eid | null): void;
  /** The fabric does not answer any more; or has answered. */
  silent(isSilent: boolean): void;
  /** The fabric is gone, or broke its protocol. The last call. */
  lost(cause: string): void;
}

export interface FabricIdentity {
  /** Of the protocol, as agreed. */
  readonly version: number;
  readonly gid: Gid;
  readonly chid: Chid;
  readonly incarnation: bigint;
  /** Our process as the fabric sees it. */
  readonly pid: number;
  readonly place: FabricPlace;
  /** The fabric's process as we see it; 0 when it is of another pid namespace. */
  readonly fabricPid: number;
}

/** Pids as the fabric sees them. 0 is one that it cannot see, of another pid namespace: it equals nobody's. */
export function isSameProcess(one: number, other: number): boolean {
  return one === other && one !== 0;
}

/** How long to try in all: a fabric that is being started needs a moment. */
const CONNECT_TIMEOUT_MS = 5000;
const RETRY_MS = 15;
/** For a place in its queue, which others want, too. */
const RETRY_FULL_MS = 2;
/** One that was started and is not there after so long has failed: once more. */
const RESTART_MS = 1500;
/** How long to wait for the WELCOME of one that took the connection. */
const WELCOME_TIMEOUT_MS = 1500;
/** A fabric that does not answer for so long is said to be silent. */
const SILENCE_MS = 1000;
/** What waits to be taken by a fabric that is slow: more than a storm of connections says until it is looked at. */
const MAX_WAITING = 4096;
const TAKE_MS = 5;
/** Between looks for the answer of a fabric that has no doorbell of ours. */
const LOOK_MS = 5;

/** Finds, if need be starts, and joins a fabric. Rejects with FabricUnavailable. */
export function joinFabric(
  about: { readonly thread: number; readonly program: string },
  listener: FabricListener,
  env: NodeJS.ProcessEnv = process.env,
): Promise<FabricClient> {
  return withFabric(env, (fd, place) => FabricClient.join(fd, place, about, listener));
}

/**
 * Finds, and if need be starts, a fabric. Rejects with FabricUnavailable.
 * @param use takes over the descriptor; resolves to null when the fabric hung up without a word: it was about to end, so another
 * one is looked for
 */
export async function withFabric<Result>(
  env: NodeJS.ProcessEnv,
  use: (fd: number, place: FabricPlace) => Promise<Result | null>,
): Promise<Result> {
  const end = performance.now() + CONNECT_TIMEOUT_MS;
  let startedAt = Number.NEGATIVE_INFINITY;
  for (;;) {
    let found: Found | null;
    try {
      found = findFabric(env);
    } catch (error) {
      const isFull = error instanceof FabricUnavailable && error.kind === 'full';
      if (!isFull || performance.now() > end) throw error;
      await pause(RETRY_FULL_MS);
      continue;
    }
    if (found !== null) {
      const result = await use(found.fd, found.place);
      if (result !== null) return result;
    } else if (performance.now() - startedAt > RESTART_MS && (await start(env))) {
      startedAt = performance.now();
    }
    if (performance.now() > end) throw new FabricUnavailable('none', 'no fabric came up');
    await pause(RETRY_MS);
  }
}

const pause = (forMs: number) => new Promise((resolve) => setTimeout(resolve, forMs).unref());

/** False while another one holds the lock: it runs, is being started, or is just dying. */
async function start(env: NodeJS.ProcessEnv): Promise<boolean> {
  const own = fabricPlaces(env).find(({ kind }) => kind === 'own');
  if (own === undefined)
    throw new FabricUnavailable(
      'none',
      `no fabric answers at ${env.ISTHMUS_FABRIC} (ISTHMUS_FABRIC)`,
      `start it there (\`isthmus fabric --socket ${env.ISTHMUS_FABRIC}\`), or unset ISTHMUS_FABRIC`,
    );
  if (process.getuid?.() === OVERFLOW_UID)
    throw new FabricUnavailable(
      'nobody',
      `uid ${OVERFLOW_UID} stands for whoever is not known, and has no fabric of its own`,
    );
  try {
    const { startFabric } = await import('./start.ts'); // brings node:child_process, seldom needed
    return startFabric(own, env);
  } catch (error) {
    const { message } = error as Error;
    if (error instanceof DistrustError) throw new FabricUnavailable('untrusted', message, error.hint);
    const hint = `see that ${dirname(own.socket)} can be made and written, or set ISTHMUS_FABRIC`;
    throw new FabricUnavailable('none', `no fabric can be started: ${message}`, hint, error);
  }
}

interface Found {
  readonly fd: number;
  readonly place: FabricPlace;
}

/**
 * The first place where somebody listens. Throws FabricUnavailable when what is there cannot be trusted, or when so many want in
 * that there is no place in its queue.
 */
export function findFabric(env: NodeJS.ProcessEnv): Found | null {
  for (const place of fabricPlaces(env)) {
    let fd: number;
    try {
      fd = connectPackets(place.socket);
    } catch (error) {
      if (error instanceof OsUnavailableError) throw new FabricUnavailable('none', error.message, null, error);
      const code = errorCode(error);
      if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR') continue;
      if (code === 'EAGAIN')
        throw new FabricUnavailable(
          'full',
          `nothing gets into the queue of ${place.socket}`,
          `\`ss -xp\` lists who connects to it all the time; or it is stopped`,
          error,
        );
      throw new FabricUnavailable(
        'none',
        `${place.socket} cannot be reached: ${code ?? (error as Error).message}`,
        code === 'EACCES' ? `\`ls -ld ${place.socket}\` says who may` : null,
        error,
      );
    }
    const distrust = distrustPath(place) ?? distrustPeer(place, fd);
    if (distrust === null) return { fd, place };
    closeFd(fd);
    // Else it has ended just now, and its socket is gone.
    if (existsSync(place.socket)) throw new FabricUnavailable('untrusted', distrust.message, distrust.hint);
  }
  return null;
}

export class FabricClient {
  readonly identity: FabricIdentity;
  readonly #fd: number;
  readonly #doorbell: Doorbell;
  readonly #listener: FabricListener;
  /** By peer: who waits for REACHED. */
  readonly #reaching = new Map<Gid, ((isPair: boolean) => void)[]>();
  #eids: EidTable;
  /** In their order; of an answer to SHOW what is shown is asked for when it goes out. */
  readonly #waiting: (() => Delivery)[] = [];
  #flushing = false;
  #closed = false;
  #pinged = false;
  #silence: NodeJS.Timeout | undefined;

  private constructor(
    fd: number,
    doorbell: Doorbell,
    identity: FabricIdentity,
    eids: EidTable,
    listener: FabricListener,
  ) {
    this.#fd = fd;
    this.#doorbell = doorbell;
    this.identity = identity;
    this.#eids = eids;
    this.#listener = listener;
  }

  /** For handshakes that begin now. */
  get ueids(): readonly Eid[] {
    return this.#eids.ueids;
  }

  /** Null: the machine has none, or it is not enabled. */
  get seid(): Eid | null {
    return this.#eids.seidEnabled ? this.#eids.seid : null;
  }

  /** Takes over the descriptor. Null when the fabric hung up without a word. Rejects with FabricUnavailable. */
  static join(
    fd: number,
    place: FabricPlace,
    about: { readonly thread: number; readonly program: string },
    listener: FabricListener,
  ): Promise<FabricClient | null> {
    return new Promise((resolve, reject) => {
      let mine: number;
      let theirs: number;
      try {
        [mine, theirs] = streamSocketPair();
      } catch (error) {
        closeFd(fd);
        reject(error);
        return;
      }
      let client: FabricClient | undefined;
      const { pid: fabricPid } = peerCredentials(fd);
      let hasGivenUp = false;
      const giveUp = () => {
        hasGivenUp = true;
        clearTimeout(timer);
        doorbell.close();
        closeFd(fd);
      };
      const fail = (kind: FabricUnavailable['kind'], text: string, hint?: string) => {
        giveUp();
        reject(new FabricUnavailable(kind, text, hint));
      };
      const foreign = (what: string) => fail('foreign', ...foreignness({ place, fabricPid }, what));
      const timer = setTimeout(() => fail('silent', ...silenceOf({ place, fabricPid })), WELCOME_TIMEOUT_MS);
      timer.unref();
      const doorbell = openDoorbell(mine, {
        rung: () => {
          if (client !== undefined) client.#receive();
          else answer();
        },
        hungUp: () => {
          if (client === undefined) lookOn();
          else client.#lost('the fabric has gone');
        },
      });
      /** A fabric that could not take our doorbell cannot ring it when it says so. */
      const lookOn = () => {
        if (client !== undefined || hasGivenUp) return;
        answer();
        setTimeout(lookOn, LOOK_MS).unref();
      };
      let welcome: MessageByName<'WELCOME'> | undefined;
      /** What came and was not looked at yet. */
      let rest: FabricMessage[] = [];
      const answer = () => {
        const messages = rest.length > 0 ? rest : receiveFew(fd);
        if (messages === null) return;
        if (messages === 'unknown') {
          foreign('does not speak our protocol');
          return;
        }
        if (messages === 'end') {
          giveUp();
          resolve(null);
          return;
        }
        const [message, ...others] = messages;
        rest = others;
        if (message === undefined) return;
        if (message.type === 'REFUSED' && message.reason === 2) fail('refused', `the fabric refused: ${message.text}`);
        else if (message.type === 'REFUSED' && message.reason === 5)
          fail('refused', `the fabric refused: ${message.text}`, descriptorsFor(fabricPid));
        else if (message.type === 'REFUSED') foreign(`refused: ${message.text}`);
        else if (message.type === 'WELCOME' && welcome === undefined && isSpoken(message.version)) {
          welcome = message;
          // Without the ids a handshake that begins at once would use others than its peer.
          if (isOfVersion('EIDS', message.version)) answer();
          else joined(message, defaultEids(null));
        } else if (message.type === 'EIDS' && welcome !== undefined) {
          try {
            joined(welcome, tableOf(message));
          } catch (error) {
            foreign(`sent EIDS: ${(error as Error).message}`);
          }
        } else foreign(`answered HELLO with ${message.type}`);
      };
      const joined = ({ version, gid, chid, incarnation, pid }: MessageByName<'WELCOME'>, eids: EidTable) => {
        clearTimeout(timer);
        const identity = { version, gid, chid: parseChid(chid), incarnation, pid, place, fabricPid };
        const member = new FabricClient(fd, doorbell, identity, eids, listener);
        client = member;
        resolve(member);
        // What the same ring of the doorbell told of.
        setImmediate(() => {
          member.#deliver(rest.map((message) => ({ message, fds: [] })));
          member.#receive();
        });
      };
      try {
        const hello = { versionMin: PROTOCOL_VERSION_MIN, versionMax: PROTOCOL_VERSION_MAX, ...about };
        if (!sendPacket(fd, encodeMessage({ type: 'HELLO', ...hello }), [theirs]))
          fail('silent', 'the fabric is stuck');
      } catch {
        lookOn(); // it hung up already
      } finally {
        closeFd(theirs);
      }
    });
  }

  /** Goes out at the end of the turn. Throws when the fabric has not taken what was said before. */
  send(message: FabricMessage): void {
    this.#queue(() => ({ message, fds: [] }));
  }

  /** Answers SHOW. @param socket the descriptor as it is when the answer goes out; null: there is no such socket any more */
  show(claim: number, socket: () => number | null): void {
    this.#queue(() => {
      const fd = socket();
      return fd === null
        ? { message: { type: 'GONE', claim }, fds: [] }
        : { message: { type: 'SHOWN', claim }, fds: [fd] };
    });
  }

  #queue(say: () => Delivery): void {
    if (this.#closed || this.#waiting.length >= MAX_WAITING)
      throw new FabricUnavailable('silent', 'the fabric does not take messages');
    this.#waiting.push(say);
    if (this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#flushing = false;
    try {
      while (!this.#closed && this.#waiting.length > 0) {
        const some = this.#waiting.slice(0, messagesPerPacket(this.identity.version)).map((say) => say());
        const bytes = Buffer.concat(some.map(({ message }) => encodeMessage(message)));
        const fds = some.flatMap((one) => one.fds);
        if (!sendPacket(this.#fd, bytes, fds)) break;
        this.#waiting.splice(0, some.length);
      }
    } catch {
      // It has gone, which the doorbell tells, or there are too many descriptors on their way.
    }
    if (this.#closed || this.#waiting.length === 0) return;
    this.#flushing = true;
    setTimeout(() => this.#flush(), TAKE_MS).unref();
  }

  /** Asks whether the fabric is alive; `silent` is told if it is not. */
  ping(): void {
    if (this.#pinged || this.#closed) return;
    this.send({ type: 'PING' });
    this.#pinged = true;
    this.#silence = setTimeout(() => this.#listener.silent(true), SILENCE_MS);
    this.#silence.unref();
  }

  /** Whoever knows our GID may be introduced to us. False when the fabric does not take it, or cannot do that. */
  sayReachable(): boolean {
    return this.#isTaken({ type: 'REACHABLE' });
  }

  /** Says so once, and is settled when the fabric knows: before, a peer that was told our GID might ask in vain. */
  becomeReachable(): Promise<unknown> {
    // Answers come in the order of the questions; this one is always no.
    this.#reachable ??= this.sayReachable() ? this.reach(this.identity.gid) : Promise.resolve();
    return this.#reachable;
  }
  #reachable: Promise<unknown> | null = null;

  /**
   * Asks to be introduced to a partition. True when it is a peer: `introduced` was called before, unless it was one already. False
   * also when the fabric is lost, left, or cannot do that. Never rejects, and waits as long as a fabric that is silent.
   */
  reach(peer: Gid): Promise<boolean> {
    return new Promise((resolve) => {
      const waiting = this.#reaching.get(peer);
      if (waiting !== undefined) waiting.push(resolve);
      else if (this.#isTaken({ type: 'REACH', peer })) this.#reaching.set(peer, [resolve]);
      else resolve(false);
    });
  }

  #isTaken(message: FabricMessage): boolean {
    try {
      if (!isOfVersion(message.type, this.identity.version)) return false;
      this.send(message);
      return true;
    } catch {
      return false;
    }
  }

  #receive(): void {
    while (!this.#closed) {
      const packet = receiveFrom(this.#fd);
      if (packet === null) return;
      if (packet === 'end') {
        this.#lost('the fabric has hung up');
        return;
      }
      const fds = packet.lacksDescriptors ? null : packet.fds;
      if (fds === null) for (const one of packet.fds) closeFd(one);
      try {
        this.#deliver(decodePacket(packet.bytes, fds, 'fabric', messagesPerPacket(this.identity.version)));
      } catch (error) {
        if (!(error instanceof FabricWireError)) throw error;
        for (const one of fds ?? []) closeFd(one);
        this.#lost(error.message);
      }
    }
  }

  #deliver(deliveries: readonly Delivery[]): void {
    for (const { message, fds } of deliveries) {
      try {
        if (!isOfVersion(message.type, this.identity.version)) throw new Error(`the fabric sent ${message.type}`);
        if (message.type === 'EIDS') this.#eids = tableOf(message);
      } catch (error) {
        this.#lost((error as Error).message);
      }
      if (!this.#closed) this.#dispatch(message, fds);
      else for (const one of fds) closeFd(one);
    }
  }

  #dispatch(message: FabricMessage, fds: readonly number[]): void {
    switch (message.type) {
      case 'INTRODUCE':
        this.#listener.introduced(message, fds.length === 0 ? null : (fds as readonly [number, number, number]));
        break;
      case 'SHOW':
        this.#listener.show(message.claim);
        break;
      case 'RELEASED':
        this.#listener.released(message.claim);
        break;
      case 'MATCHED':
        this.#listener.matched(message);
        break;
      case 'DECLINED':
        this.#listener.declined(message.claim, message.reason);
        break;
      case 'PONG':
        this.#pinged = false;
        clearTimeout(this.#silence);
        this.#listener.silent(false);
        break;
      case 'EIDS':
        this.#listener.eids(this.ueids, this.seid);
        break;
      case 'REACHED':
        for (const resolve of this.#reaching.get(message.peer) ?? []) resolve(message.reachable === 1);
        this.#reaching.delete(message.peer);
        break;
      case 'REFUSED':
        this.#lost(`the fabric refused: ${message.text}`);
        break;
      default:
        this.#lost(`the fabric sent ${message.type}`);
    }
  }

  #lost(cause: string): void {
    if (this.#closed) return;
    this.close();
    this.#listener.lost(cause);
  }

  /** Leaves the fabric. Pairs go on. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#silence);
    for (const resolve of [...this.#reaching.values()].flat()) resolve(false);
    this.#reaching.clear();
    this.#doorbell.close();
    closeFd(this.#fd);
  }
}

type Which = Pick<FabricIdentity, 'place' | 'fabricPid'>;

/** Which one is silent, and what helps. */
export function silenceOf(which: Which): [string, string] {
  return [
    `${nameOf(which)} says nothing`,
    `continue it if it is stopped${by(which, '-CONT ')}, or end it${by(which, '-9 ')}${successor(which)}`,
  ];
}

/** What helps a fabric that has none left. @param fabricPid 0: it cannot be seen from here */
export function descriptorsFor(fabricPid: number): string {
  return `raise its limit: \`prlimit --pid ${fabricPid || 'PID'} --nofile=4096\` (by root, or for less than its hard limit), LimitNOFILE= in a unit of systemd; new connections move then`;
}

/** Which one is none of ours, and what helps. */
function foreignness(which: Which, what: string): [string, string] {
  return [
    `the fabric, ${nameOf(which)} ${what}`,
    `it may be of another version of Isthmus: end it${by(which, '')}${successor(which)}`,
  ];
}

const nameOf = ({ place, fabricPid }: Which) =>
  `${fabricPid === 0 ? 'a process that cannot be seen from here' : `process ${fabricPid}`}, at ${place.socket},`;

/** By which command; that of a container is not ours to see, and `kill 0` would be about ourselves. */
const by = ({ fabricPid }: Which, signal: string) => (fabricPid === 0 ? ' there' : ` (\`kill ${signal}${fabricPid}\`)`);

/** One that was named is started by nobody else. */
const successor = ({ place: { kind, socket } }: Which) =>
  kind === 'named' ? ` and start it anew: \`isthmus fabric --socket ${socket}\`` : ' and another one takes its place';

function isSpoken(version: number): boolean {
  return version >= PROTOCOL_VERSION_MIN && version <= PROTOCOL_VERSION_MAX;
}

/** 'end' also when the fabric went without reading all that it was told. */
export function receiveFrom(fd: number): Packet | null | 'end' {
  try {
    return receivePacket(fd);
  } catch {
    return 'end';
  }
}

/** Messages without descriptors; 'unknown' for anything else. */
function receiveFew(fd: number): FabricMessage[] | null | 'end' | 'unknown' {
  const packet = receiveFrom(fd);
  if (packet === null || packet === 'end') return packet;
  for (const one of packet.fds) closeFd(one);
  try {
    return decodePacket(packet.bytes, [], 'fabric', messagesPerPacket(PROTOCOL_VERSION_MAX)).map(
      ({ message }) => message,
    );
  } catch {
    return 'unknown';
  }
}
