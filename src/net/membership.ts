/** What a partition has of a fabric that it has joined: a client there, two devices, and pairs with those it was introduced to. */
import { debuglog } from 'node:util';
import { threadId } from 'node:worker_threads';
import { HostDevice, NO_DESCRIPTORS } from '../devices/host/index.ts';
import { type FabricClient, type FabricListener, isSameProcess, joinFabric } from '../fabric/client.ts';
import type { FabricMessage, MessageByName } from '../fabric/protocol.ts';
import { type Device, type Gid, IsmError } from '../ism/index.ts';
import { MORE_DESCRIPTORS, REASONS, type Reason, withCause } from '../smc/reasons.ts';
import { reasonOfSystem } from './causes.ts';
import type { Policy } from './policy.ts';

const debug = debuglog('isthmus');

const OUT_OF_DESCRIPTORS = withCause(REASONS.SYSTEM, NO_DESCRIPTORS, MORE_DESCRIPTORS);

export class Membership {
  readonly client: FabricClient;
  /** Towards other processes, and towards other threads of this one. */
  readonly devices: readonly HostDevice[];
  readonly #host: HostDevice;
  readonly #threads: HostDevice;
  /** Peers that are threads of this process. */
  readonly #threadPeers = new Set<Gid>();
  /** Numbers of the pairs as the fabric introduced them. */
  readonly #pairs = new Map<Gid, bigint>();
  /** Why there is no pair with a peer that we were introduced to, where it is for us that there is none. */
  readonly #unpaired = new Map<Gid, Reason>();

  /** Rejects as `joinFabric`. @param counters of both devices */
  static async join(policy: Policy, counters: Float64Array, listener: FabricListener): Promise<Membership> {
    const program = process.argv[1] ?? process.execPath;
    return new Membership(await joinFabric({ thread: threadId, program }, listener), policy, counters);
  }

  private constructor(client: FabricClient, { access, busyPollUs }: Policy, counters: Float64Array) {
    const { gid, chid } = client.identity;
    this.client = client;
    this.#host = new HostDevice({ gid, chid, access, busyPollUs, counters });
    this.#threads = new HostDevice({ name: 'loopback', gid, chid, access, busyPollUs, counters });
    this.devices = [this.#host, this.#threads];
  }

  /** To the fabric, if it takes it: nothing of this waits. */
  say(message: FabricMessage): void {
    try {
      this.client.send(message);
    } catch (error) {
      debug('%s: %s', message.type, (error as Error).message);
    }
  }

  deviceFor(peer: Gid): HostDevice {
    return this.#threadPeers.has(peer) ? this.#threads : this.#host;
  }

  owns(device: Device): boolean {
    return this.devices.some((one) => one === device);
  }

  /** Takes over the descriptors of a pair; null: they did not fit into this process. */
  introduced({ peer, pair, pid }: MessageByName<'INTRODUCE'>, fds: readonly [number, number, number] | null): void {
    if (fds === null) {
      this.#notPaired(peer, pair, OUT_OF_DESCRIPTORS);
      return;
    }
    if (isSameProcess(pid, this.client.identity.pid)) this.#threadPeers.add(peer);
    const [channelFd, wakeFd, ringFd] = fds;
    try {
      // The end of an older pair is told before the new one is there.
      this.deviceFor(peer).addPair({ peer, channelFd, wakeFd, ringFd });
      this.#pairs.set(peer, pair);
      this.#unpaired.delete(peer);
    } catch (error) {
      const isMemory = error instanceof IsmError && error.code === 'ERR_ISTHMUS_NO_MEMORY';
      this.#notPaired(peer, pair, isMemory ? REASONS.MEM : reasonOfSystem(error));
    }
  }

  #notPaired(peer: Gid, pair: bigint, why: Reason): void {
    this.#unpaired.set(peer, why);
    debug('pair with %s: %s', peer, why.text);
    this.say({ type: 'PAIR_GONE', peer, pair });
  }

  pairEnded(peer: Gid, cause: string): void {
    const pair = this.#pairs.get(peer);
    this.#pairs.delete(peer);
    if (cause === NO_DESCRIPTORS) this.#unpaired.set(peer, OUT_OF_DESCRIPTORS);
    if (pair !== undefined) this.say({ type: 'PAIR_GONE', peer, pair });
  }

  /** It may be for us that there is no pair. */
  whyUnpaired(peer: Gid): Reason {
    return this.#unpaired.get(peer) ?? REASONS.PAIRLOST;
  }
}
