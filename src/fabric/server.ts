/** The sockets of the fabric: a listener, a connection for each partition, and what core.ts asks for. */
import {
  acceptPackets,
  Closer,
  closeFd,
  createPipe,
  ffi,
  isTcp,
  isUnixStream,
  lingers,
  localName,
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
import { decodeMessage, encodeMessage, type FabricMessage, type Refusal } from './protocol.ts';
import { isOursOrRoots } from './trust.ts';
import { MAX_TEXT_BYTES } from './wire.ts';

/** Messages taken from one connection before others get their turn. */
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
  /** What the socket did not take yet. */
  readonly waiting: { packet: Buffer; fds: readonly number[] }[];
  waitingBytes: number;
  /** What is left of an answer to STATUS; it follows when nothing else waits. */
  status: string;
  retrying: boolean;
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
  readonly #core: FabricCore;
  readonly #connections = new Map<PartitionId, Connection>();
  /** By user. */
  readonly #closers = new Map<string | null, Closer>();
  #nextId = 1;
  #turnedAway = 0;

  /** @param listeners taken over */
  constructor(listeners: readonly Listener[], options: FabricServerOptions) {
    this.#listeners = listeners;
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#core = new FabricCore(this.#io(), options.eids, this.#limits);
    for (const listener of listeners) this.#listen(listener);
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
      // No descriptors or memory left: those who wait in the queue wait on. The poll would only spin.
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
      retrying: false,
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
    for (let i = 0; i < MESSAGES_PER_TURN && !connection.closed; i++) {
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
      this.#received(connection, packet);
    }
  }

  #received(connection: Connection, packet: Packet): void {
    let message: FabricMessage;
    try {
      if (packet.truncated) throw new Error('truncated');
      message = decodeMessage(packet.bytes, packet.fds.length, 'partition');
    } catch {
      for (const fd of packet.fds) connection.closer.close(fd);
      this.#refuse(connection, 3);
      return;
    }
    try {
      this.#handle(connection, message, packet.fds[0] ?? null);
    } catch {
      this.#hangUp(connection.id); // whatever it was: it costs the one who sent it, nobody else
    }
  }

  #handle(connection: Connection, message: FabricMessage, fd: number | null): void {
    if (message.type === 'STATUS') this.#status(connection);
    else if (message.type === 'EID_SHOW') this.#core.showEids(connection.id);
    else if (message.type === 'EID_CHANGE') this.#changeEids(connection, message);
    else if (message.type === 'HELLO') this.#hello(connection, message, fd as number);
    else if (this.#core.isKnown(connection.id)) this.#core.message(connection.id, message, fd);
    else {
      if (fd !== null) connection.closer.close(fd);
      this.#refuse(connection, 3);
    }
  }

  #hello(connection: Connection, message: FabricMessage & { type: 'HELLO' }, doorbellFd: number): void {
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
    const packet = encodeMessage({ type: 'STATUS_REPLY', more: connection.status === '' ? 0 : 1, json });
    connection.waiting.push({ packet, fds: [] });
    connection.waitingBytes += costOf(packet);
  }

  #send(id: PartitionId, message: FabricMessage, fds: readonly number[]): void {
    const connection = this.#connections.get(id);
    if (connection === undefined || connection.closed) {
      for (const fd of fds) closeFd(fd);
      return;
    }
    const packet = encodeMessage(message);
    connection.waiting.push({ packet, fds });
    connection.waitingBytes += costOf(packet);
    this.#flush(connection);
    if (connection.waitingBytes > this.#limits.waitingBytesPerPartition) this.#hangUp(id);
  }

  #flush(connection: Connection): void {
    const { fd, waiting, doorbellFd } = connection;
    try {
      for (;;) {
        if (waiting.length === 0 && connection.status !== '') this.#nextOfStatus(connection);
        const [next] = waiting;
        if (next === undefined) break;
        if (!sendPacket(fd, next.packet, next.fds)) {
          this.#flushLater(connection);
          break;
        }
        waiting.shift();
        connection.waitingBytes -= costOf(next.packet);
        for (const one of next.fds) closeFd(one);
      }
    } catch {
      // The peer has closed: the poll tells.
      this.#flushLater(connection);
    }
    if (doorbellFd !== null) ringSocket(doorbellFd);
  }

  #flushLater(connection: Connection): void {
    if (connection.retrying || connection.closed) return;
    connection.retrying = true;
    setTimeout(() => {
      connection.retrying = false;
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
    connection.closed = true;
    clearTimeout(connection.greeting);
    this.#connections.delete(id);
    connection.poll.close();
    for (const { fds } of connection.waiting) for (const fd of fds) closeFd(fd);
    // Descriptors that the peer sent and we never took off are closed with the socket: they may linger.
    connection.closer.close(connection.fd);
    if (connection.doorbellFd !== null) connection.closer.close(connection.doorbellFd);
    this.#core.left(id);
    this.#options.onUse(this.#core.partitionCount);
  }

  close(): void {
    for (const poll of this.#accepting.values()) poll.close();
    for (const { fd } of this.#listeners) closeFd(fd);
    for (const id of [...this.#connections.keys()]) this.#hangUp(id);
  }
}

/** Memory of a packet that waits, about: the shortest ones cost much more than their bytes. */
function costOf(packet: Buffer): number {
  return packet.length + 256;
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
