/**
 * Two partitions that know each other, seen from one of them: the memory made for the peer, the peer's memory, the channel,
 * the two pipes, and every DMB of both directions.
 *
 * The pair comes up when both have said OPEN. It ends when either closes, dies or breaks the protocol: the pipe's hang-up tells.
 */
import { fstatSync } from 'node:fs';
import { count } from '../../ism/counters.ts';
import {
  ALLOWED_CPUS,
  type Client,
  CPU,
  type Dmb,
  type DmbRequest,
  type Gid,
  IsmError,
  type RemoteDmb,
  randomToken,
  SignalReader,
  SignalWriter,
  type StoreToArea,
  signalAreaBytes,
  storesInto,
  type Token,
} from '../../ism/index.ts';
import { queueMicrotask } from '../../os/event-loop.ts';
import {
  accessMode,
  closeFd,
  type Doorbell,
  forsake,
  isSizeSealed,
  map,
  openDoorbell,
  ringPipe,
} from '../../os/index.ts';
import { NO_DESCRIPTORS, PairChannel } from './channel.ts';
import { DEVICE_COUNTER } from './counters.ts';
import { MAX_PIECES, PairMemory, PIECE_BYTES, type Slot, slotBytes } from './memory.ts';
import { PAIR_VERSION, type PairMessage } from './messages.ts';
import type { PolledPair } from './polling.ts';
import { MappedRemoteDmb, type RemoteDmbPlace, StoredMemory, StoredRemoteDmb, StoredWords } from './remote-dmb.ts';

/** Places in the signal ring, hence DMBs in each direction, with one place for the channel itself. */
export const SIGNAL_CAPACITY = 16384;
/** Stands in the signal ring for "look at the channel"; never a DMB. */
const CHANNEL_INDEX = 0;
const CHANNEL_GENERATION = 1;
/** What a peer may make us keep: DMBs it registered for us. */
const MAX_REMOTE_DMBS = SIGNAL_CAPACITY;

/** What the fabric hands to each of two partitions. All three descriptors are the receiver's. */
export interface Introduction {
  readonly peer: Gid;
  /** One end of a SOCK_SEQPACKET pair. */
  readonly channelFd: number;
  /** Read end of the pipe that the peer rings. */
  readonly wakeFd: number;
  /** Write end of the pipe that wakes the peer. */
  readonly ringFd: number;
}

export interface PairListener {
  /** Both have opened: DMBs can be registered and attached. */
  up(pair: Pair): void;
  /** The peer has registered a DMB for us. */
  offered(token: Token): void;
  message(pair: Pair, bytes: Buffer): void;
  softwareEvent(pair: Pair, code: number, data: bigint): void;
  signalled(dmb: Dmb): void;
  /** The doorbell was rung. */
  rung(pair: Pair): void;
  died(pair: Pair, cause: string): void;
}

class HostDmb implements Dmb {
  readonly token: Token;
  readonly index: number;
  readonly generation: number;
  readonly peer: Gid;
  readonly lengthBytes: number;
  readonly bytes: Buffer;
  readonly words: Int32Array;
  readonly client: Client;
  readonly slot: Slot;
  clientData: unknown;
  registered = true;

  constructor(token: Token, index: number, generation: number, request: DmbRequest, slot: Slot) {
    this.token = token;
    this.index = index;
    this.generation = generation;
    this.peer = request.peer;
    this.client = request.client;
    this.slot = slot;
    this.lengthBytes = slot.lengthBytes;
    this.bytes = Buffer.from(slot.memory, slot.offset, slot.lengthBytes);
    this.words = new Int32Array(slot.memory, slot.offset, slot.lengthBytes / 4);
  }
}

type HostRemote = MappedRemoteDmb | StoredRemoteDmb;

/** What the peer registered for us. */
interface Offer {
  readonly place: RemoteDmbPlace;
  readonly piece: number;
  /** The peer has unregistered it: once we have detached, it wants to know. */
  withdrawn: boolean;
  readonly attached: Set<HostRemote>;
  /** Where it is stored to; of all who are attached. */
  words?: StoredWords;
}

function wordsOf(offer: Offer, memory: StoredMemory): StoredWords {
  offer.words ??= new StoredWords(memory, offer.place.offset);
  return offer.words;
}

/** One whose descriptor did not fit into this process is neither mapped nor stored to: no DMB in it can be attached. */
type PeerPiece =
  | { readonly memory: ArrayBuffer; readonly lengthBytes: number }
  | { readonly stored: StoredMemory; readonly lengthBytes: number }
  | { readonly lengthBytes: number };

export class Pair implements PolledPair {
  readonly peer: Gid;
  readonly #access: 'mapped' | 'store';
  readonly #listener: PairListener;
  readonly #memory: PairMemory;
  readonly #channel: PairChannel;
  readonly #doorbell: Doorbell;
  readonly #ringFd: number;
  readonly #reader: SignalReader;
  readonly #area: Int32Array;
  /** Null until the peer has opened. */
  #writer: SignalWriter | null = null;
  readonly #peerPieces: PeerPiece[] = [];
  /** The peer's signal area; null until the peer has opened, and when the pair is dead. */
  #peerArea: StoreToArea | null = null;
  /** By index; null = free. */
  readonly #dmbs: (HostDmb | null)[] = [null];
  readonly #generations: number[] = [0];
  readonly #freeIndices: number[] = [];
  readonly #byToken = new Map<Token, HostDmb>();
  readonly #offers = new Map<Token, Offer>();
  /** Those that the peer was told of: one may be made for a DMB that comes to nothing. */
  #offeredPieces = 1;
  #registered = 0;
  #quarantined = 0;
  #attached = 0;
  #allowed = { low: 0, high: 0 };
  #cpu = -1;
  #dead = false;
  #isLooking = false;
  readonly #counters: Float64Array;

  /** Throws when the system refuses memory or a pipe; the descriptors are closed then. */
  constructor(introduction: Introduction, access: 'mapped' | 'store', listener: PairListener, counters: Float64Array) {
    this.#counters = counters;
    this.peer = introduction.peer;
    this.#access = access;
    this.#listener = listener;
    this.#ringFd = introduction.ringFd;
    const areaBytes = signalAreaBytes(SIGNAL_CAPACITY);
    try {
      this.#memory = new PairMemory(access, areaBytes);
    } catch (error) {
      for (const fd of [introduction.channelFd, introduction.wakeFd, introduction.ringFd]) closeFd(fd);
      throw error;
    }
    this.#area = new Int32Array(this.#memory.piece(0).memory, 0, areaBytes / 4);
    this.#reader = new SignalReader(this.#area, this.#toPeer, SIGNAL_CAPACITY);
    this.#channel = new PairChannel(introduction.channelFd, {
      message: (message, fd) => this.#received(message, fd),
      sent: () => this.signal(CHANNEL_INDEX, CHANNEL_GENERATION),
      ended: (cause) => this.die(cause),
    });
    this.#doorbell = openDoorbell(introduction.wakeFd, {
      rung: () => {
        if (this.#writer === null) this.#channel.receive();
        else listener.rung(this);
      },
      hungUp: () => this.#hungUp(),
    });
    this.#channel.send(
      { type: 'OPEN', version: PAIR_VERSION, access, capacity: SIGNAL_CAPACITY, lengthBytes: PIECE_BYTES },
      this.#memory.piece(0).peerFd,
    );
    // What was said before we listened was not rung for.
    queueMicrotask(() => this.#channel.receive());
  }

  get isDead(): boolean {
    return this.#dead;
  }

  get isUp(): boolean {
    return this.#writer !== null && !this.#dead;
  }

  /** No DMB of either direction is in use. */
  get isIdle(): boolean {
    return this.#registered + this.#quarantined + this.#attached === 0;
  }

  /** How we write into the peer's memory. */
  get writeAccess(): 'mapped' | 'store' {
    const [first] = this.#peerPieces;
    return first !== undefined && 'memory' in first ? 'mapped' : 'store';
  }

  usage(): { dmbs: number; quarantined: number; attached: number; bytes: number } {
    return {
      dmbs: this.#registered,
      quarantined: this.#quarantined,
      attached: this.#attached,
      bytes: this.#memory.bytes,
    };
  }

  dmbsOf(client: Client): number {
    return this.#dmbs.filter((dmb) => dmb?.registered && dmb.client === client).length;
  }

  /** Whether waiting for this peer keeps the program running; it doesn't at first. */
  keepAlive(on: boolean): void {
    this.#doorbell.keepAlive(on);
  }

  // --- Our DMBs ---

  register(request: DmbRequest): Dmb {
    if (!this.isUp) throw new IsmError('ERR_ISTHMUS_PEER', 'system', `the peer ${this.peer} is gone`);
    const index = this.#freeIndices.pop() ?? this.#dmbs.length;
    if (index >= SIGNAL_CAPACITY) {
      throw new IsmError('ERR_ISTHMUS_NO_DMB', 'system', `all ${SIGNAL_CAPACITY - 1} DMBs for this peer are in use`);
    }
    let slot: Slot;
    try {
      slot = this.#memory.allocate(request.lengthBytes);
    } catch (error) {
      if (index < this.#dmbs.length) this.#freeIndices.push(index);
      throw error;
    }
    for (; this.#offeredPieces < this.#memory.pieceCount; this.#offeredPieces++) {
      const piece = this.#offeredPieces;
      this.#channel.send({ type: 'PIECE', piece, lengthBytes: PIECE_BYTES }, this.#memory.piece(piece).peerFd);
    }
    const generation = ((this.#generations[index] ?? 0) % 0xffff) + 1;
    let token = randomToken();
    while (this.#byToken.has(token)) token = randomToken();
    const dmb = new HostDmb(token, index, generation, request, slot);
    this.#generations[index] = generation;
    this.#dmbs[index] = dmb;
    this.#byToken.set(token, dmb);
    this.#registered++;
    const { piece, offset, lengthBytes } = slot;
    this.#channel.send({ type: 'DMB', token, index, generation, piece, offset, lengthBytes });
    return dmb;
  }

  unregister(dmb: Dmb): void {
    const own = this.#dmbs[dmb.index];
    if (own !== dmb || !own.registered) return;
    own.registered = false;
    this.#registered--;
    this.#quarantined++;
    this.#channel.send({ type: 'UNREGISTERED', token: own.token });
    if (this.#dead) this.#endQuarantine(own);
  }

  unregisterAll(): void {
    for (const dmb of this.#byToken.values()) this.unregister(dmb);
  }

  /** The peer has detached, or is dead: it writes there no more. */
  #endQuarantine(dmb: HostDmb): void {
    this.#quarantined--;
    this.#byToken.delete(dmb.token);
    this.#dmbs[dmb.index] = null;
    this.#freeIndices.push(dmb.index);
    this.#memory.release(dmb.slot);
    if (this.#dead) this.#closeMemoryIfUnused();
  }

  #closeMemoryIfUnused(): void {
    if (this.#registered + this.#quarantined === 0) this.#memory.close();
  }

  // --- The peer's DMBs ---

  /** Null when no such DMB was registered for us. */
  attach(token: Token): RemoteDmb | null {
    const offer = this.#offers.get(token);
    if (offer === undefined || offer.withdrawn || this.#dead) return null;
    const piece = this.#peerPieces[offer.piece];
    let remote: HostRemote;
    if (piece === undefined) return null;
    if ('memory' in piece) remote = new MappedRemoteDmb(offer.place, this, piece.memory);
    else if ('stored' in piece) remote = new StoredRemoteDmb(offer.place, this, wordsOf(offer, piece.stored));
    else return null;
    offer.attached.add(remote);
    this.#attached++;
    return remote;
  }

  detach(remote: RemoteDmb): void {
    const offer = this.#offers.get(remote.token);
    if (offer === undefined || !offer.attached.delete(remote as HostRemote)) return;
    (remote as HostRemote).live = false;
    this.#attached--;
    this.#forgetIfUnused(offer);
    if (this.#dead) this.#forsakeIfUnused();
  }

  /** What was reserved in a DMB that is attached may still be read: it is written elsewhere when its connection has gone back to TCP. */
  #forsakeIfUnused(): void {
    if (this.#attached > 0) return;
    for (const piece of this.#peerPieces) if ('memory' in piece) forsake(piece.memory);
  }

  #forgetIfUnused(offer: Offer): void {
    if (!offer.withdrawn || offer.attached.size > 0) return;
    this.#offers.delete(offer.place.token);
    this.#channel.send({ type: 'DETACHED', token: offer.place.token });
  }

  /** Called by remote DMBs: tells the peer to look. */
  signal(index: number, generation: number): void {
    if (this.#dead) return;
    if (this.#writer === null) {
      this.#ring(); // before the peer has opened there is no ring to write into
      return;
    }
    try {
      if (this.#writer.signal(index, generation)) this.#ring();
      else count(this.#counters, DEVICE_COUNTER.saved);
    } catch (error) {
      this.die((error as Error).message);
    }
  }

  #ring(): void {
    count(this.#counters, DEVICE_COUNTER.rung);
    // Without a reader the peer is gone; its end of the other pipe tells, and here we are inside somebody's call.
    ringPipe(this.#ringFd);
  }

  // --- Waiting ---

  get hasWork(): boolean {
    return !this.#dead && this.#reader.hasWork();
  }

  look(): number {
    if (this.#dead || this.#isLooking) return 0;
    this.#isLooking = true;
    try {
      return this.#reader.look(this.#take);
    } catch (error) {
      this.die((error as Error).message);
      return 0;
    } finally {
      this.#isLooking = false;
    }
  }

  readonly #take = (index: number, generation: number): void => {
    if (index === CHANNEL_INDEX) {
      this.#channel.receive();
      return;
    }
    const dmb = this.#dmbs[index];
    if (dmb?.registered && dmb.generation === generation) this.#listener.signalled(dmb);
  };

  sleep(): void {
    if (!this.#dead) this.#reader.sleep();
  }

  wake(): void {
    if (!this.#dead) this.#reader.wake();
  }

  /** Tells the peer where we run, and where we may run. */
  tellPlace(cpu: number, allowed: { readonly low: number; readonly high: number }): void {
    if (this.#dead) return;
    this.#allowed = allowed;
    this.#toPeer.word(4 * ALLOWED_CPUS, allowed.low);
    this.#toPeer.word(4 * (ALLOWED_CPUS + 1), allowed.high);
    this.tellCpu(cpu);
  }

  tellCpu(cpu: number): void {
    this.#cpu = cpu;
    if (!this.#dead) this.#toPeer.word(4 * CPU, cpu);
  }

  /** Whether the two of us can run at the same time: on one CPU, waiting for the peer keeps it from running. */
  get canRunBeside(): boolean {
    const low = this.#allowed.low | Atomics.load(this.#area, ALLOWED_CPUS);
    const high = this.#allowed.high | Atomics.load(this.#area, ALLOWED_CPUS + 1);
    const isOne = (word: number) => (word & (word - 1)) === 0;
    return low !== 0 && high !== 0 ? true : !isOne(low | high);
  }

  /** Whether the peer was last seen on our CPU. */
  get isOnOurCpu(): boolean {
    return Atomics.load(this.#area, CPU) === this.#cpu;
  }

  readonly #toPeer: StoreToArea = {
    word: (offset, value) => this.#peerArea?.word(offset, value),
    words: (offset, first, second) => this.#peerArea?.words(offset, first, second),
  };

  // --- The channel ---

  send(message: PairMessage): void {
    this.#channel.send(message);
  }

  /** Throws for whatever breaks the protocol; the channel ends the pair with that. */
  #received(message: PairMessage, fd: number | null): void {
    switch (message.type) {
      case 'OPEN':
        if (fd === null) throw new Error(NO_DESCRIPTORS);
        this.#opened(message, this.#takeMemory(fd, message.lengthBytes));
        break;
      case 'PIECE': {
        const { lengthBytes } = message;
        this.#peerPieces.push(fd === null ? { lengthBytes } : this.#takeMemory(fd, lengthBytes));
        if (message.piece !== this.#peerPieces.length - 1 || message.piece >= MAX_PIECES)
          throw broken('pieces out of order');
        break;
      }
      case 'DMB':
        this.#offered(message);
        break;
      case 'UNREGISTERED': {
        const offer = this.#offers.get(message.token);
        if (offer === undefined || offer.withdrawn) throw broken('UNREGISTERED of an unknown token');
        offer.withdrawn = true;
        this.#forgetIfUnused(offer);
        break;
      }
      case 'DETACHED': {
        const dmb = this.#byToken.get(message.token);
        if (dmb === undefined || dmb.registered) throw broken('DETACHED of a token that is not withdrawn');
        this.#endQuarantine(dmb);
        break;
      }
      case 'EVENT':
        this.#listener.softwareEvent(this, message.code, message.data);
        break;
      case 'MESSAGE':
        this.#listener.message(this, message.bytes);
        break;
      default:
        message satisfies never;
    }
  }

  #opened(message: PairMessage & { type: 'OPEN' }, piece: PeerPiece): void {
    const { version, capacity } = message;
    this.#peerPieces.push(piece);
    if (this.#peerPieces.length > 1) throw broken('OPEN twice');
    if (version !== PAIR_VERSION) throw broken(`version ${version} where ${PAIR_VERSION} is spoken`);
    if (capacity !== SIGNAL_CAPACITY || piece.lengthBytes < signalAreaBytes(capacity))
      throw broken('another signal area');
    if ('memory' in piece) this.#peerArea = storesInto(new Int32Array(piece.memory, 0, signalAreaBytes(capacity) / 4));
    else if ('stored' in piece) this.#peerArea = new StoredWords(piece.stored, 0);
    this.#writer = new SignalWriter(this.#area, this.#toPeer, capacity);
    this.#listener.up(this);
  }

  /** Checks that a descriptor is memory of that size which nobody can shrink, and makes it writable for us. */
  #takeMemory(fd: number, lengthBytes: number): PeerPiece {
    // Before anything else, since it asks no file system, which a stranger may have made to keep us waiting; close would, too.
    if (!isSizeSealed(fd)) {
      this.#channel.discard(fd);
      throw broken('a descriptor that is not sealed memory');
    }
    let keep = false;
    try {
      if (fstatSync(fd).size !== lengthBytes || lengthBytes > PIECE_BYTES)
        throw broken(`memory that is not ${lengthBytes} bytes long`);
      const mode = accessMode(fd);
      if (mode === 'r') throw broken('memory that cannot be written');
      keep = mode === 'w' || this.#access === 'store';
      if (!keep) return { memory: map(fd, lengthBytes), lengthBytes };
      const refused = ({ message }: Error) => this.die(`the peer's memory cannot be written: ${message}`);
      return { stored: new StoredMemory(fd, refused), lengthBytes };
    } finally {
      if (!keep) closeFd(fd);
    }
  }

  #offered(message: PairMessage & { type: 'DMB' }): void {
    const { token, index, generation, piece, offset, lengthBytes } = message;
    const memory = this.#peerPieces[piece];
    if (memory === undefined) throw broken(`a DMB in piece ${piece}, which is not there`);
    if (lengthBytes !== slotBytes(lengthBytes) || offset % 8 !== 0 || offset + lengthBytes > memory.lengthBytes) {
      throw broken(`a DMB of ${lengthBytes} bytes at ${offset}`);
    }
    if (index === CHANNEL_INDEX || index >= SIGNAL_CAPACITY || generation === 0)
      throw broken(`a DMB with index ${index}`);
    if (this.#offers.has(token) || this.#offers.size >= MAX_REMOTE_DMBS) throw broken('a DMB too many');
    const place = { token, index, generation, offset, lengthBytes };
    this.#offers.set(token, { place, piece, withdrawn: false, attached: new Set() });
    this.#listener.offered(token);
  }

  // --- The end ---

  #hungUp(): void {
    // What was said last may still be in the channel and in the ring.
    this.#channel.receive();
    this.look();
    this.die('the peer has gone');
  }

  /** Ends the pair. What the peer wrote can still be read in DMBs that are registered; everything else is given back. */
  die(cause: string): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#channel.close();
    this.#doorbell.close();
    closeFd(this.#ringFd);
    for (const offer of this.#offers.values()) for (const remote of offer.attached) remote.live = false;
    this.#peerArea = null;
    for (const piece of this.#peerPieces) if ('stored' in piece) closeFd(piece.stored.fd);
    this.#forsakeIfUnused();
    for (const dmb of this.#byToken.values()) if (!dmb.registered) this.#endQuarantine(dmb);
    this.#closeMemoryIfUnused();
    this.#listener.died(this, cause);
  }
}

function broken(what: string): IsmError {
  return new IsmError('ERR_ISTHMUS_PROTOCOL', 'peer', `pair channel: ${what}`);
}
