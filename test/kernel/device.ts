/**
 * The kernel's loopback device, as if it were ours: its GID, and tokens of DMBs that live in the kernel. That device reaches nobody
 * but itself, so there is no other way to a handshake with the kernel. The DMBs on our side are memory of our own: nothing passes
 * through them.
 */
import {
  CHID_LOOPBACK,
  type Device,
  type DeviceCapabilities,
  type DeviceUsage,
  type Dmb,
  type DmbRequest,
  type Gid,
  IsmError,
  type RemoteDmb,
  type Token,
} from '../../src/ism/index.ts';
import { dmbeSizeBytes } from '../../src/smc/index.ts';

export class KernelDevice implements Device {
  readonly name = 'kernel';
  readonly gid: Gid;
  readonly chid = CHID_LOOPBACK;
  readonly seid = null;
  readonly capabilities: DeviceCapabilities = {
    access: 'mapped',
    peerCanRead: true,
    maxDmbs: 5000,
    maxDmbBytes: 1 << 20,
    events: false,
  };
  /** Lengths of the kernel's DMBs whose tokens we were told. */
  readonly #known = new Map<Token, number>();
  readonly #registered = new Set<Dmb>();
  readonly #attached = new Set<RemoteDmb>();
  /** Of each of our DMBs. */
  #token: Token | null = null;

  constructor(gid: Gid) {
    this.gid = gid;
  }

  /** The kernel has named a DMB: it can be attached, and its token stands for ours from now on. */
  learn(token: Token, dmbeSize: number): void {
    this.#known.set(token, dmbeSizeBytes(dmbeSize));
    this.#token = token;
  }

  async queryRemoteGid(gid: Gid): Promise<boolean> {
    return gid === this.gid;
  }

  async registerDmb({ peer, lengthBytes, client }: DmbRequest): Promise<Dmb> {
    if (this.#token === null) throw new Error('the kernel has named no DMB yet');
    const memory = new ArrayBuffer(lengthBytes);
    const dmb: Dmb = {
      token: this.#token,
      index: 0,
      generation: 1,
      peer,
      lengthBytes,
      bytes: Buffer.from(memory),
      words: new Int32Array(memory),
      client,
      clientData: null,
    };
    this.#registered.add(dmb);
    return dmb;
  }

  async unregisterDmb(dmb: Dmb): Promise<void> {
    this.#registered.delete(dmb);
  }

  async attachDmb(token: Token): Promise<RemoteDmb> {
    const lengthBytes = this.#known.get(token);
    if (lengthBytes === undefined)
      throw new IsmError('ERR_ISTHMUS_TOKEN', 'local', 'the kernel has not named this DMB');
    const nothing = () => {};
    const remote: RemoteDmb = {
      token,
      generation: 1,
      lengthBytes,
      bytes: null,
      move: nothing,
      storeWord: nothing,
      storeLong: nothing,
      signal: nothing,
    };
    this.#attached.add(remote);
    return remote;
  }

  detachDmb(remote: RemoteDmb): void {
    this.#attached.delete(remote);
  }

  usage(): DeviceUsage {
    return { peers: 1, dmbs: this.#registered.size, quarantined: 0, attached: this.#attached.size, bytes: 0 };
  }

  dmbsOf(): number {
    return this.#registered.size;
  }

  moveData(): void {}
  signalEvent(): void {}
  setEventListener(): void {}
  async close(): Promise<void> {}
}
