/**
 * ISM between the processes and containers of one host: shared pages, pipes, and a channel for each pair of partitions.
 *
 * The fabric introduces pairs (`addPair`); everything else is between the two. One device belongs to one incarnation of the fabric.
 */
import {
  type Chid,
  type Client,
  checkDmbLength,
  type Device,
  type DeviceCapabilities,
  type DeviceUsage,
  type Dmb,
  type DmbRequest,
  type Gid,
  IsmError,
  type IsmEvent,
  isInRange,
  outOfRange,
  type RemoteDmb,
  type Token,
} from '../../ism/index.ts';
import { setImmediate } from '../../os/event-loop.ts';
import { makeDeviceCounters } from './counters.ts';
import { LARGEST_SLOT_BYTES } from './memory.ts';
import { type Introduction, Pair, type PairListener, SIGNAL_CAPACITY } from './pair.ts';
import { Polling } from './polling.ts';
import { HostRemoteDmb } from './remote-dmb.ts';

export interface HostDeviceOptions {
  /** What it is called: 'loopback' between threads of one process, which share memory in the same way. */
  readonly name?: 'host' | 'loopback';
  readonly gid: Gid;
  readonly chid: Chid;
  /** What peers are given: memory they can map, or a descriptor they can only store through. */
  readonly access?: 'mapped' | 'store';
  /** Longest time to look for nothing before sleeping, in microseconds; 0 = never spin. */
  readonly busyPollUs?: number;
  /** DMBs towards one peer. */
  readonly maxDmbs?: number;
  /** Where it counts, see DEVICE_COUNTER. */
  readonly counters?: Float64Array;
}

/** How long a token may be ahead of its DMB; the owner has told of it already. */
const ATTACH_WAIT_MS = 1000;

export class HostDevice implements Device {
  readonly name: 'host' | 'loopback';
  readonly gid: Gid;
  readonly chid: Chid;
  readonly seid = null;
  readonly capabilities: DeviceCapabilities;
  readonly #access: 'mapped' | 'store';
  readonly #pairs = new Map<Gid, Pair>();
  /** Dead, with DMBs that are still registered. */
  readonly #deadPairs = new Set<Pair>();
  /** That clients were not told of yet. */
  readonly #deaths = new Map<Gid, string>();
  readonly #waitingForPair: Waiting<Gid> = new Map();
  readonly #waitingForDmb: Waiting<Token> = new Map();
  readonly #polling: Polling;
  readonly #counters: Float64Array;
  #listener: (event: IsmEvent) => void = () => {};
  #onMessage: (peer: Gid, bytes: Buffer) => void = () => {};
  #closed = false;

  constructor(options: HostDeviceOptions) {
    this.name = options.name ?? 'host';
    this.gid = options.gid;
    this.chid = options.chid;
    this.#access = options.access ?? 'mapped';
    this.#counters = options.counters ?? makeDeviceCounters();
    this.#polling = new Polling(options.busyPollUs, this.#counters);
    this.capabilities = {
      access: this.#access,
      peerCanRead: this.#access === 'mapped',
      maxDmbs: Math.min(options.maxDmbs ?? SIGNAL_CAPACITY, SIGNAL_CAPACITY - 1),
      maxDmbBytes: LARGEST_SLOT_BYTES,
      events: true,
    };
  }

  /** Takes over the descriptors. An older pair with the same peer is ended. Throws when the system refuses. */
  addPair(introduction: Introduction): void {
    this.#pairs.get(introduction.peer)?.die('the fabric introduced the pair anew');
    this.#tellDeath(introduction.peer); // before the clients can take the new pair for the dead one
    const listener: PairListener = {
      up: (up) => {
        this.#polling.add(up);
        settle(this.#waitingForPair, up.peer);
      },
      offered: (token) => settle(this.#waitingForDmb, token),
      message: (from, bytes) => this.#onMessage(from.peer, bytes),
      softwareEvent: (from, code, data) => this.#listener({ type: 'software', gid: from.peer, code, data }),
      signalled: (dmb) => dmb.client.handleSignal(this, dmb),
      rung: (rung) => this.#polling.rung(rung),
      died: (dead, cause) => this.#died(dead, cause),
    };
    const pair = new Pair(introduction, this.#access, listener, this.#counters);
    if (pair.isDead) return;
    this.#pairs.set(pair.peer, pair);
  }

  #died(pair: Pair, cause: string): void {
    this.#polling.remove(pair);
    if (this.#pairs.get(pair.peer) === pair) this.#pairs.delete(pair.peer);
    if (!pair.isIdle) this.#deadPairs.add(pair);
    settle(this.#waitingForPair, pair.peer);
    // Not from inside a call of a client: the death may have been noticed there.
    this.#deaths.set(pair.peer, cause);
    setImmediate(() => this.#tellDeath(pair.peer));
  }

  #tellDeath(peer: Gid): void {
    const cause = this.#deaths.get(peer);
    if (cause === undefined) return;
    this.#deaths.delete(peer);
    this.#listener({ type: 'peer-gone', gid: peer, cause });
  }

  /** Peers with a pair that is alive. */
  get peers(): Gid[] {
    return [...this.#pairs.keys()];
  }

  /** Whether no DMB of either direction is in use with this peer. */
  isPairIdle(peer: Gid): boolean {
    return this.#pairs.get(peer)?.isIdle ?? true;
  }

  /** Whether somebody still reads what peers have written that are gone. */
  get outlivesPeers(): boolean {
    return this.#deadPairs.size > 0;
  }

  endPair(peer: Gid, cause: string): void {
    this.#pairs.get(peer)?.die(cause);
  }

  /** How we write into this peer's memory, once the pair is up. */
  writeAccess(peer: Gid): 'mapped' | 'store' | null {
    const pair = this.#pairs.get(peer);
    return pair?.isUp ? pair.writeAccess : null;
  }

  /** Bytes for the clients of the peer, in order. False when there is no such pair. */
  sendMessage(peer: Gid, bytes: Buffer): boolean {
    const pair = this.#pairs.get(peer);
    if (!pair?.isUp) return false;
    pair.send({ type: 'MESSAGE', bytes });
    return true;
  }

  setMessageListener(listener: (peer: Gid, bytes: Buffer) => void): void {
    this.#onMessage = listener;
  }

  /** Waits for a pair that is coming up. */
  async queryRemoteGid(gid: Gid): Promise<boolean> {
    const pair = this.#pairs.get(gid);
    if (pair === undefined) return false;
    if (!pair.isUp) {
      pair.keepAlive(true);
      await new Promise<void>((resolve) => wait(this.#waitingForPair, gid, resolve));
      pair.keepAlive(false);
    }
    return this.#pairs.get(gid)?.isUp ?? false;
  }

  async registerDmb(request: DmbRequest): Promise<Dmb> {
    if (this.#closed) throw new IsmError('ERR_ISTHMUS_DEVICE_GONE', 'local', 'the device was closed');
    const pair = this.#pairs.get(request.peer);
    if (pair === undefined) throw new IsmError('ERR_ISTHMUS_PEER', 'system', `no pair with ${request.peer}`);
    checkDmbLength(request.lengthBytes, this.capabilities.maxDmbBytes);
    const { dmbs, quarantined } = pair.usage();
    if (dmbs + quarantined >= this.capabilities.maxDmbs) {
      throw new IsmError('ERR_ISTHMUS_NO_DMB', 'system', `all ${this.capabilities.maxDmbs} DMBs for a peer are in use`);
    }
    return pair.register(request);
  }

  async unregisterDmb(dmb: Dmb): Promise<void> {
    for (const pair of this.#pairsOf(dmb.peer)) pair.unregister(dmb);
    this.#forgetDeadPairs();
  }

  async attachDmb(token: Token): Promise<RemoteDmb> {
    const remote = this.#attach(token) ?? (await this.#attachSoon(token));
    if (remote === null) throw unknownToken();
    return remote;
  }

  #attach(token: Token): RemoteDmb | null {
    for (const pair of this.#pairs.values()) {
      const remote = pair.attach(token);
      if (remote !== null) return remote;
    }
    return null;
  }

  /** A token may come another way than the channel, and be faster than the owner's word of its DMB. */
  async #attachSoon(token: Token): Promise<RemoteDmb | null> {
    if (this.#pairs.size === 0) return null;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        // After a turn: who was stopped as long finds the owner's word now.
        setImmediate(() => settle(this.#waitingForDmb, token));
      }, ATTACH_WAIT_MS);
      wait(this.#waitingForDmb, token, () => {
        clearTimeout(timer);
        resolve();
      });
    });
    return this.#attach(token);
  }

  detachDmb(remote: RemoteDmb): void {
    if (remote instanceof HostRemoteDmb) remote.detach();
    this.#forgetDeadPairs();
  }

  *#pairsOf(peer: Gid): Iterable<Pair> {
    const alive = this.#pairs.get(peer);
    if (alive !== undefined) yield alive;
    for (const dead of this.#deadPairs) if (dead.peer === peer) yield dead;
  }

  #forgetDeadPairs(): void {
    for (const pair of this.#deadPairs) if (pair.isIdle) this.#deadPairs.delete(pair);
  }

  moveData(token: Token, offset: number, data: Uint8Array, signal: boolean): void {
    const remote = this.#attach(token);
    if (remote === null) throw unknownToken();
    try {
      if (!isInRange(remote.lengthBytes, offset, data.length))
        throw outOfRange(offset, data.length, remote.lengthBytes);
      remote.move(offset, data);
      if (signal) remote.signal();
    } finally {
      this.detachDmb(remote);
    }
  }

  signalEvent(gid: Gid, code: number, data: bigint): void {
    const pair = this.#pairs.get(gid);
    if (pair?.isUp) pair.send({ type: 'EVENT', code, data });
  }

  setEventListener(listener: (event: IsmEvent) => void): void {
    this.#listener = listener;
  }

  dmbsOf(client: Client): number {
    let count = 0;
    for (const pair of [...this.#pairs.values(), ...this.#deadPairs]) count += pair.dmbsOf(client);
    return count;
  }

  usage(): DeviceUsage {
    const sum = { peers: this.#pairs.size, dmbs: 0, quarantined: 0, attached: 0, bytes: 0 };
    for (const pair of [...this.#pairs.values(), ...this.#deadPairs]) {
      const usage = pair.usage();
      sum.dmbs += usage.dmbs;
      sum.quarantined += usage.quarantined;
      sum.attached += usage.attached;
      sum.bytes += usage.bytes;
    }
    return sum;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const pair of [...this.#pairs.values()]) pair.die('the device was closed');
    for (const pair of this.#deadPairs) pair.unregisterAll();
    this.#deadPairs.clear();
  }
}

function unknownToken(): IsmError {
  return new IsmError('ERR_ISTHMUS_TOKEN', 'local', 'no DMB with this token was registered for this device');
}

/** Who waits for something, by its name. */
type Waiting<Name> = Map<Name, (() => void)[]>;

function wait<Name>(all: Waiting<Name>, name: Name, resolve: () => void): void {
  const waiting = all.get(name) ?? [];
  waiting.push(resolve);
  all.set(name, waiting);
}

function settle<Name>(all: Waiting<Name>, name: Name): void {
  const waiting = all.get(name) ?? [];
  all.delete(name);
  for (const resolve of waiting) resolve();
}
