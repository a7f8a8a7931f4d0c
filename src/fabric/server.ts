/** The sockets of the fabric: a listener, a connection for each partition, and what core.ts asks for. */
import { setImmediate } from '../os/event-loop.ts';
import {
  acceptPackets,
  Closer,
  closeFd,
  createPipe,
  duplicateFd,
  ffi,
  isTcp,
  isUnixStream,
  lingers,
  localName,
  MAX_PACKET_BYTES,
  netnsCookie,
  type Packet,
  type PollHandle,
  packetSocketPair,
  peerCredentials,
  peerName,
  receivePacket,
  ringSocket,
  sendPacket,
  socketCookie,
  stopReceiving,
  TCP_ESTABLISHED,
  takesUrgentInline,
  tcpInfo,
} from '../os/index.ts';
import { challenge } from './challenge-sockets.ts';
import { FabricCore, type FabricIo, type PairEnds, type PartitionId } from './core.ts';
import type { EidTable } from './eids.ts';
import { type Credentials, DEFAULT_LIMITS, type FabricLimits, userOf } from './limits.ts';
import type { Shown } from './match.ts';
import {
  type Delivery,
  decodePacket,
  encodeMessage,
  type FabricMessage,
  messagesPerPacket,
  REFUSALS,
  type Refusal,
} from './protocol.ts';
import { isOursOrRoots } from './trust.ts';
import { MAX_TEXT_BYTES } from './wire.ts';

/** Messages taken from one connection before others get their turn, with the rest of the last packet. */
const MESSAGES_PER_TURN = 64;
/** Of a connection that is not let in, where most have sent one or none. */
const MESSAGES_TURNED_AWAY = 4;
const RETRY_MS = 5;
const ACCEPT_PAUSE_MS = 100;
/**
 * A flood is let wait in the queue: turning it away as fast as it comes takes a CPU. Not for long, since whoever else wants in has to
 * find a place there.
 */
const TURNED_AWAY_AT_ONCE = 4;
const TURNED_AWAY_PAUSE_MS = 4;
/** Connections that have not said HELLO. */
const HELLO_TIMEOUT_MS = 5000;

interface Connection {
  readonly id: PartitionId;
  readonly fd: number;
  readonly credentials: Credentials;
  /** Of its user, for all that comes from there. */
  readonly closer: Closer;
  readonly poll: PollHandle;
  /** Until it has said HELLO. */
  readonly greeting: NodeJS.Timeout;
  doorbellFd: number | null;
  /** What goes out at the end of the turn, or was not taken by the socket yet. */
  readonly waiting: { readonly bytes: Buffer; readonly fds: readonly number[] }[];
  waitingBytes: number;
  /** What is left of an answer to STATUS; it follows when nothing else waits. */
  status: string;
  /** It will be flushed. */
  flushing: boolean;
  closed: boolean;
}

/** A listening SOCK_SEQPACKET socket. */
export interface Listener {
  readonly fd: number;
  /** Of those who connect here (limits.ts). */
  readonly domain: string | null;
}

export interface FabricServerOptions {
  readonly limits?: Partial<FabricLimits>;
  /** To begin with. */
  readonly eids: EidTable;
  /** Stores what they become. Throws when that fails. */
  readonly saveEids: (table: EidTable) => void;
  /** Added to the status. */
  readonly about: () => Record<string, unknown>;
  /** The number of partitions has changed. */
  readonly onUse: (partitions: number) => void;
}

export class FabricServer {
  readonly #listeners: readonly Listener[];
  /** Polls of the listeners. */
  readonly #accepting = new Map<Listener, PollHandle>();
  readonly #options: FabricServerOptions;
  readonly #limits: FabricLimits;
  /** Descriptors that wait, by user. */
  readonly #waitingFds = new Map<string | null, number>();
  readonly #core: FabricCore;
  readonly #connections = new Map<PartitionId, Connection>();
  /** By user. */
  readonly #closers = new Map<string | null, Closer>();
  #nextId = 1;
  #turnedAway = 0;
  /** A descriptor for the moment when there are none left: then it takes in who is to be told. */
  #spareFd: number | null = null;

  /** @param listeners taken over */
  constructor(listeners: readonly Listener[], options: FabricServerOptions) {
    this.#listeners = listeners;
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#core = new FabricCore(this.#io(), options.eids, this.#limits);
    for (const listener of listeners) this.#listen(listener);
    this.#keepSpare();
  }

  #listen(listener: Listener): void {
    this.#accepting.set(
      listener,
      ffi().poll(listener.fd, () => this.#accept(listener)),
    );
  }

  #io(): FabricIo {
    return {
      send: (id, message, fds = []) => this.#send(id, message, fds),
      hangUp: (id) => this.#hangUp(id),
      inspect,
      challenge,
      close: (user, fd, closed) => this.#closer(user).close(fd, closed),
      createPair,
      saveEids: this.#options.saveEids,
      after: (delayMs, expired) => {
        const timer = setTimeout(expired, delayMs);
        return { cancel: () => clearTimeout(timer) };
      },
      now: () => performance.now(),
    };
  }

  /** One, and then the partitions get their turn: whoever connects again and again is not to keep them waiting. */
  #accept(listener: Listener): void {
    let fd: number | null;
    try {
      fd = acceptPackets(listener.fd);
    } catch {
      // No descriptors or memory left: who waits in the queue is told, one in a while. The poll would only spin.
      this.#apologize(listener);
      this.#pause(listener, ACCEPT_PAUSE_MS);
      return;
    }
    if (fd === null) return;
    try {
      if (this.#connected(fd, listener.domain)) return;
      if (++this.#turnedAway % TURNED_AWAY_AT_ONCE === 0) this.#pause(listener, TURNED_AWAY_PAUSE_MS);
    } catch {
      this.#closer(null).close(fd); // it cannot be watched
    }
  }

  #pause(listener: Listener, forMs: number): void {
    this.#accepting.get(listener)?.close();
    setTimeout(() => this.#listen(listener), forMs);
  }

  #keepSpare(): void {
    try {
      this.#spareFd = duplicateFd((this.#listeners[0] as Listener).fd);
    } catch {
      // There is none. Whoever goes leaves one.
    }
  }

  /** To the next in the queue: there are no descriptors left for it. */
  #apologize(listener: Listener): void {
    if (this.#spareFd === null) this.#keepSpare();
    if (this.#spareFd === null) return;
    closeFd(this.#spareFd);
    this.#spareFd = null;
    try {
      const fd = acceptPackets(listener.fd);
      if (fd !== null) {
        sendPacket(fd, encodeMessage({ type: 'REFUSED', reason: 5, text: REFUSALS[5] }));
        this.#turnAway(fd, this.#closer(null));
      }
    } catch {
      // No memory.
    }
    this.#keepSpare();
  }

  /** False: it was turned away. */
  #connected(fd: number, domain: string | null): boolean {
    const { pid, uid } = peerCredentials(fd);
    const credentials = { pid, uid, domain };
    const closer = this.#closer(userOf(credentials));
    if (!this.#core.admits(credentials)) {
      this.#turnAway(fd, closer);
      return false;
    }
    const connection: Connection = {
      id: this.#nextId++,
      fd,
      credentials,
      closer,
      poll: ffi().poll(fd, () => this.#readable(connection)),
      greeting: setTimeout(() => this.#hangUp(connection.id), HELLO_TIMEOUT_MS).unref(),
      doorbellFd: null,
      waiting: [],
      waitingBytes: 0,
      status: '',
      flushing: false,
      closed: false,
    };
    this.#connections.set(connection.id, connection);
    return true;
  }

  /**
   * Closes a connection. A flood of them costs the fabric as little as can be: at once, once nothing of the stranger's is left in it
   * that could make a close wait.
   */
  #turnAway(fd: number, closer: Closer): void {
    stopReceiving(fd);
    for (let i = 0; i < MESSAGES_TURNED_AWAY; i++) {
      const packet = receivePacket(fd);
      if (packet === null || packet === 'end') {
        closeFd(fd);
        return;
      }
      for (const one of packet.fds) closer.close(one);
    }
    closer.close(fd);
  }

  #readable(connection: Connection): void {
    for (let left = MESSAGES_PER_TURN; left > 0 && !connection.closed; ) {
      let packet: Packet | null | 'end';
      try {
        packet = receivePacket(connection.fd);
      } catch {
        packet = 'end';
      }
      if (packet === null) return;
      if (packet === 'end') {
        this.#hangUp(connection.id);
        return;
      }
      left -= this.#received(connection, packet);
    }
  }

  /** How many messages there were. */
  #received(connection: Connection, { bytes, fds, truncated, lacksDescriptors }: Packet): number {
    let deliveries: Delivery[];
    try {
      if (truncated && !lacksDescriptors) throw new Error('truncated');
      deliveries = decodePacket(bytes, lacksDescriptors ? null : fds, 'partition', this.#perPacket(connection));
      if (lacksDescriptors) for (const fd of fds) connection.closer.close(fd);
    } catch {
      for (const fd of fds) connection.closer.close(fd);
      this.#refuse(connection, 3);
      return 1;
    }
    for (const { message, fds: own } of deliveries) {
      try {
        if (connection.closed) for (const fd of own) connection.closer.close(fd);
        else this.#handle(connection, message, own[0] ?? null);
      } catch {
        this.#hangUp(connection.id); // whatever it was: it costs the one who sent it, nobody else
      }
    }
    return deliveries.length;
  }

  #perPacket({ id }: Connection): number {
    return messagesPerPacket(this.#core.versionOf(id));
  }

  #handle(connection: Connection, message: FabricMessage, fd: number | null): void {
    if (message.type === 'STATUS') this.#status(connection);
    else if (message.type === 'EID_SHOW') this.#core.showEids(connection.id);
    else if (message.type === 'EID_CHANGE') this.#changeEids(connection, message);
    else if (message.type === 'HELLO') this.#hello(connection, message, fd);
    else if (this.#core.isKnown(connection.id)) this.#core.message(connection.id, message, fd);
    else {
      if (fd !== null) connection.closer.close(fd);
      this.#refuse(connection, 3);
    }
  }

  /** @param doorbellFd null: we may have no more */
  #hello(connection: Connection, message: FabricMessage & { type: 'HELLO' }, doorbellFd: number | null): void {
    if (doorbellFd === null) {
      this.#refuse(connection, 5);
      return;
    }
    if (connection.doorbellFd !== null || !canBeDoorbell(doorbellFd)) {
      connection.closer.close(doorbellFd);
      this.#refuse(connection, 3);
      return;
    }
    clearTimeout(connection.greeting);
    connection.doorbellFd = doorbellFd;
    this.#core.hello(connection.id, connection.credentials, message);
    this.#options.onUse(this.#core.partitionCount);
  }

  #refuse(connection: Connection, reason: Refusal): void {
    this.#core.refuse(connection.id, reason);
    this.#options.onUse(this.#core.partitionCount);
  }

  /** For what root and the fabric's own user may ask, not from inside a domain: its root may be ours. Others are hung up on. */
  #isAllowed(connection: Connection): boolean {
    const { uid, domain } = connection.credentials;
    if (domain === null && isOursOrRoots(uid)) return true;
    this.#refuse(connection, 4);
    return false;
  }

  #changeEids(connection: Connection, message: FabricMessage & { type: 'EID_CHANGE' }): void {
    if (this.#isAllowed(connection)) this.#core.changeEids(connection.id, message);
  }

  #status(connection: Connection): void {
    if (!this.#isAllowed(connection)) return;
    if (connection.status !== '') return;
    const json = JSON.stringify({ ...this.#options.about(), ...this.#core.status() });
    connection.status = json.replace(
      /[\x7f-\uffff]/g,
      (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`,
    );
    this.#flush(connection);
  }

  #nextOfStatus(connection: Connection): void {
    const json = connection.status.slice(0, MAX_TEXT_BYTES);
    connection.status = connection.status.slice(MAX_TEXT_BYTES);
    this.#queue(connection, { type: 'STATUS_REPLY', more: connection.status === '' ? 0 : 1, json }, []);
  }

  #queue(connection: Connection, message: FabricMessage, fds: readonly number[]): void {
    const bytes = encodeMessage(message);
    connection.waiting.push({ bytes, fds });
    connection.waitingBytes += costOf(bytes);
    this.#countWaiting(connection, fds.length);
  }

  /** Descriptors that wait for partitions of one user; how many there are then. */
  #countWaiting({ credentials }: Connection, more: number): number {
    const user = userOf(credentials);
    const count = (this.#waitingFds.get(user) ?? 0) + more;
    this.#waitingFds.set(user, count);
    return count;
  }

  /** At the end of the turn, with all else that goes there: a packet wakes its receiver, and many messages come at the same time. */
  #send(id: PartitionId, message: FabricMessage, fds: readonly number[]): void {
    const connection = this.#connections.get(id);
    if (connection === undefined || connection.closed) {
      for (const fd of fds) closeFd(fd);
      return;
    }
    this.#queue(connection, message, fds);
    const isTooMuch =
      connection.waitingBytes > this.#limits.waitingBytesPerPartition ||
      (fds.length > 0 && this.#countWaiting(connection, 0) > this.#limits.waitingDescriptorsPerUser);
    if (isTooMuch) this.#hangUp(id);
    else this.#flushSoon(connection);
  }

  #flushSoon(connection: Connection): void {
    if (connection.flushing) return;
    connection.flushing = true;
    setImmediate(() => {
      connection.flushing = false;
      if (!connection.closed) this.#flush(connection);
    });
  }

  #flush(connection: Connection): void {
    const { fd, waiting, doorbellFd } = connection;
    try {
      for (;;) {
        if (waiting.length === 0 && connection.status !== '') this.#nextOfStatus(connection);
        if (waiting.length === 0) break;
        const some = waiting.slice(0, this.#fitting(connection));
        const fds = some.flatMap((one) => one.fds);
        if (!sendPacket(fd, Buffer.concat(some.map(({ bytes }) => bytes)), fds)) {
          this.#flushLater(connection);
          break;
        }
        waiting.splice(0, some.length);
        for (const { bytes } of some) connection.waitingBytes -= costOf(bytes);
        this.#countWaiting(connection, -fds.length);
        for (const one of fds) closeFd(one);
      }
    } catch {
      // The peer has closed: the poll tells.
      this.#flushLater(connection);
    }
    if (doorbellFd !== null) ringSocket(doorbellFd);
  }

  /** How many of the messages that wait go into the next packet. */
  #fitting(connection: Connection): number {
    const most = this.#perPacket(connection);
    let count = 0;
    let length = 0;
    for (const { bytes } of connection.waiting) {
      length += bytes.length;
      if (count === most || (count > 0 && length > MAX_PACKET_BYTES)) break;
      count++;
    }
    return count;
  }

  #flushLater(connection: Connection): void {
    if (connection.flushing || connection.closed) return;
    connection.flushing = true;
    setTimeout(() => {
      connection.flushing = false;
      if (!connection.closed) this.#flush(connection);
    }, RETRY_MS);
  }

  #closer(user: string | null): Closer {
    const closer = this.#closers.get(user) ?? new Closer();
    this.#closers.set(user, closer);
    return closer;
  }

  #hangUp(id: PartitionId): void {
    const connection = this.#connections.get(id);
    if (connection === undefined || connection.closed) return;
    if (connection.flushing) this.#flush(connection); // why it is hung up on
    connection.closed = true;
    clearTimeout(connection.greeting);
    this.#connections.delete(id);
    connection.poll.close();
    const fds = connection.waiting.splice(0).flatMap((one) => one.fds);
    this.#countWaiting(connection, -fds.length);
    for (const fd of fds) closeFd(fd);
    // Descriptors that the peer sent and we never took off are closed with the socket: they may linger.
    connection.closer.close(connection.fd);
    if (connection.doorbellFd !== null) connection.closer.close(connection.doorbellFd);
    this.#core.left(id);
    this.#options.onUse(this.#core.partitionCount);
  }

  close(): void {
    for (const poll of this.#accepting.values()) poll.close();
    for (const { fd } of this.#listeners) closeFd(fd);
    if (this.#spareFd !== null) closeFd(this.#spareFd);
    for (const id of [...this.#connections.keys()]) this.#hangUp(id);
  }
}

/** Memory of a message that waits, about: the shortest ones cost much more than their bytes. */
function costOf(message: Buffer): number {
  return message.length + 256;
}

/** Asked as a socket: fstat would wait for whoever keeps a file system, and says 'socket' of a path to one. */
function canBeDoorbell(fd: number): boolean {
  try {
    return isUnixStream(fd);
  } catch {
    return false;
  }
}

/** Everything the kernel says of a descriptor that claims to be one end of a TCP connection. */
function inspect(fd: number): Shown {
  try {
    if (!isTcp(fd)) return null;
    return {
      local: localName(fd),
      peer: peerName(fd),
      netnsCookie: netnsCookie(fd),
      socketCookie: socketCookie(fd),
      established: tcpInfo(fd).state === TCP_ESTABLISHED,
      lingers: lingers(fd),
      urgentInline: takesUrgentInline(fd),
    };
  } catch {
    return null;
  }
}

function createPair(): { one: PairEnds; other: PairEnds } {
  const opened: number[] = [];
  try {
    const [channelOne, channelOther] = packetSocketPair();
    opened.push(channelOne, channelOther);
    const toOne = createPipe();
    opened.push(toOne.readFd, toOne.writeFd);
    const toOther = createPipe();
    return {
      one: [channelOne, toOne.readFd, toOther.writeFd],
      other: [channelOther, toOther.readFd, toOne.writeFd],
    };
  } catch (error) {
    for (const fd of opened) closeFd(fd);
    throw error;
  }
}
