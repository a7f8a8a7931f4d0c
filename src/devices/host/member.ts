/** A host device for programs that use the ISM layer themselves: a member of the fabric, which introduces it to whom it asks for. */
import { threadId } from 'node:worker_threads';
import {
  type FabricClient,
  type FabricListener,
  FabricUnavailable,
  joinFabric,
  silenceOf,
} from '../../fabric/client.ts';
import type { Gid, IsmEvent } from '../../ism/index.ts';
import { inTime } from '../../os/in-time.ts';
import { closeFd, openLedger, testDoorbell, watchWorkers } from '../../os/index.ts';
import { NO_DESCRIPTORS } from './channel.ts';
import { HostDevice, type HostDeviceOptions } from './device.ts';

/** As for a HostDevice; which GID and CHID it has the fabric says. */
export type OpenOptions = Pick<HostDeviceOptions, 'access' | 'busyPollUs' | 'maxDmbs' | 'counters'>;

/**
 * Joins the fabric that `isthmus run` would use (ISTHMUS_FABRIC, else the system's, else the user's own, which is started), as one more
 * partition. The device reaches all others that were opened so, in other processes and in other threads of this one: whoever knows a GID asks
 * `queryRemoteGid`, and the two have been introduced when that is true. It keeps the program running until it is closed. Each thread opens its
 * own.
 *
 * Rejects with IsthmusError FABRIC when there is no fabric to be had, and when the system cannot be called (docs/errors.md).
 */
export async function openHostDevice(options: OpenOptions = {}): Promise<HostDevice> {
  const alive = setInterval(() => {}, KEEP_ALIVE_MS);
  try {
    watchWorkers(); // those that are made from now on, and terminated
    await openLedger();
    await testDoorbell();
    return await MemberDevice.open(options, alive);
  } catch (error) {
    clearInterval(alive);
    throw error;
  }
}

const KEEP_ALIVE_MS = 2 ** 30;
/** A fabric that does not answer for so long is stopped. */
const ANSWER_MS = 2000;

class MemberDevice extends HostDevice {
  readonly #client: FabricClient;
  readonly #alive: NodeJS.Timeout;
  /** Numbers of the pairs as the fabric introduced them. */
  readonly #pairs = new Map<Gid, bigint>();

  static async open(options: OpenOptions, alive: NodeJS.Timeout): Promise<MemberDevice> {
    let device: MemberDevice | undefined;
    const listener: FabricListener = {
      introduced({ peer, pair }, fds) {
        if (device !== undefined) device.#introduced(peer, pair, fds);
        else for (const fd of fds ?? []) closeFd(fd);
      },
      // Of connections, which this one does not announce.
      show() {},
      released() {},
      matched() {},
      declined() {},
      eids() {},
      silent() {},
      lost() {}, // pairs go on; nobody new can be reached
    };
    const program = process.argv[1] ?? process.execPath;
    const client = await joinFabric({ thread: threadId, program }, listener);
    device = new MemberDevice(client, options, alive);
    if (await inTime(client.becomeReachable(), ANSWER_MS)) return device;
    await device.close();
    throw new FabricUnavailable('silent', ...silenceOf(client.identity));
  }

  private constructor(client: FabricClient, options: OpenOptions, alive: NodeJS.Timeout) {
    const { gid, chid } = client.identity;
    super({ ...options, gid, chid });
    this.#client = client;
    this.#alive = alive;
    this.setEventListener(() => {});
  }

  #introduced(peer: Gid, pair: bigint, fds: readonly [number, number, number] | null): void {
    try {
      if (fds === null) throw new Error(NO_DESCRIPTORS);
      const [channelFd, wakeFd, ringFd] = fds;
      this.addPair({ peer, channelFd, wakeFd, ringFd }); // tells the end of an older pair first
      this.#pairs.set(peer, pair);
    } catch {
      this.#pairGone(peer, pair); // no memory, or no descriptor, for another peer
    }
  }

  /** So that they can be introduced again. */
  #pairGone(peer: Gid, pair: bigint): void {
    try {
      this.#client.send({ type: 'PAIR_GONE', peer, pair });
    } catch {
      // It is gone itself.
    }
  }

  override setEventListener(listener: (event: IsmEvent) => void): void {
    super.setEventListener((event) => {
      const pair = this.#pairs.get(event.gid);
      if (event.type === 'peer-gone' && pair !== undefined) {
        this.#pairs.delete(event.gid);
        this.#pairGone(event.gid, pair);
      }
      listener(event);
    });
  }

  /** Has the fabric introduce the two of us if need be; false also when it does not answer. */
  override async queryRemoteGid(gid: Gid): Promise<boolean> {
    if (!this.peers.includes(gid)) await inTime(this.#client.reach(gid), ANSWER_MS);
    return super.queryRemoteGid(gid);
  }

  override async close(): Promise<void> {
    clearInterval(this.#alive);
    super.setEventListener(() => {}); // of ends that are our own doing
    this.#client.close();
    await super.close();
  }
}
