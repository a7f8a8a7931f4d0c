/** A device with one fault, around a good one: what the conformance suite must find, and what others can be tested against. */
import type { Client, Device, Dmb, DmbRequest, Gid, IsmEvent, RemoteDmb, Token } from '../../ism/index.ts';

export const FAULTS = [
  'every fifth signal is dropped',
  'signals are delivered inside the call',
  'signals go on after unregistering',
  'moves are off by one',
  'moves are not checked',
  'words are torn',
  'long words are torn',
  'a word clears the one beside it',
  'strangers may write',
  'tokens live on after unregistering',
  'DMBs are not zeroed',
  'DMBs leak',
  'detaching is forgotten',
  'peers are not told of an end',
] as const;

/** 'none' is for the test of this file: the wrapping alone must change nothing. */
export type FaultName = (typeof FAULTS)[number] | 'none';

export class FaultyDevice implements Device {
  readonly #inner: Device;
  readonly #fault: FaultName;
  readonly #others: Map<Token, { inner: Device; dmb: Dmb }>;
  readonly #wrapped = new WeakMap<RemoteDmb, RemoteDmb>();
  #signals = 0;

  /** @param others shared by the devices of one fabric: the DMBs they know of each other. */
  constructor(inner: Device, fault: FaultName, others: Map<Token, { inner: Device; dmb: Dmb }>) {
    this.#inner = inner;
    this.#fault = fault;
    this.#others = others;
  }

  get name(): string {
    return this.#inner.name;
  }
  get gid(): Gid {
    return this.#inner.gid;
  }
  get chid(): Device['chid'] {
    return this.#inner.chid;
  }
  get seid(): Device['seid'] {
    return this.#inner.seid;
  }
  get capabilities(): Device['capabilities'] {
    return this.#inner.capabilities;
  }

  queryRemoteGid(gid: Gid): Promise<boolean> {
    return this.#inner.queryRemoteGid(gid);
  }

  async registerDmb(request: DmbRequest): Promise<Dmb> {
    const dmb = await this.#inner.registerDmb(request);
    if (this.#fault === 'DMBs are not zeroed') dmb.bytes[dmb.lengthBytes - 1] = 0xff;
    this.#others.set(dmb.token, { inner: this.#inner, dmb });
    return dmb;
  }

  async unregisterDmb(dmb: Dmb): Promise<void> {
    if (this.#fault === 'DMBs leak') return;
    await this.#inner.unregisterDmb(dmb);
  }

  async attachDmb(token: Token): Promise<RemoteDmb> {
    const other = this.#others.get(token);
    const remote = await this.#inner.attachDmb(token).catch((error: unknown) => {
      const lax =
        (this.#fault === 'strangers may write' && other?.dmb.peer !== this.gid) ||
        (this.#fault === 'tokens live on after unregistering' && other?.dmb.peer === this.gid);
      if (lax && other !== undefined) return stolen(other.dmb);
      throw error;
    });
    const faulty = this.#faulty(remote, other?.dmb);
    this.#wrapped.set(faulty, remote);
    return faulty;
  }

  #faulty(remote: RemoteDmb, dmb: Dmb | undefined): RemoteDmb {
    const fault = this.#fault;
    return {
      token: remote.token,
      generation: remote.generation,
      lengthBytes: remote.lengthBytes,
      bytes: remote.bytes,
      move: (offset, data) => {
        if (fault === 'moves are off by one')
          remote.move(offset + 1 + data.length > remote.lengthBytes ? offset : offset + 1, data);
        else if (fault === 'moves are not checked' && dmb)
          remote.move(Math.min(Math.max(0, offset | 0), 100), data.subarray(0, 1));
        else remote.move(offset, data);
      },
      storeWord: (offset, value) => {
        if (fault === 'a word clears the one beside it') remote.storeWord(offset ^ 4, 0);
        if (fault === 'words are torn' && dmb) dmb.bytes.writeInt16LE((value << 16) >> 16, offset);
        else remote.storeWord(offset, value);
      },
      storeLong: (offset, value) => {
        if (fault === 'long words are torn' && offset % 8 === 0)
          remote.storeWord(offset, Number(BigInt.asIntN(32, value)));
        else remote.storeLong(offset, value);
      },
      signal: () => {
        if (fault === 'every fifth signal is dropped' && ++this.#signals % 5 === 0) return;
        if (fault === 'signals are delivered inside the call' && dmb) dmb.client.handleSignal(this, dmb);
        else if (fault === 'signals go on after unregistering' && dmb) {
          setImmediate(() => dmb.client.handleSignal(this, dmb));
        } else remote.signal();
      },
    };
  }

  detachDmb(remote: RemoteDmb): void {
    const inner = this.#wrapped.get(remote);
    if (inner !== undefined && this.#fault !== 'detaching is forgotten') this.#inner.detachDmb(inner);
  }

  moveData(token: Token, offset: number, data: Uint8Array, signal: boolean): void {
    this.#inner.moveData(token, offset, data, signal);
  }

  signalEvent(gid: Gid, code: number, data: bigint): void {
    this.#inner.signalEvent(gid, code, data);
  }

  setEventListener(listener: (event: IsmEvent) => void): void {
    this.#inner.setEventListener((event) => {
      if (this.#fault === 'peers are not told of an end' && event.type === 'peer-gone') return;
      listener(event);
    });
  }

  dmbsOf(client: Client): number {
    return this.#inner.dmbsOf(client);
  }

  usage(): ReturnType<Device['usage']> {
    return this.#inner.usage();
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

/** An attachment that nobody gave. */
function stolen(dmb: Dmb): RemoteDmb {
  return {
    token: dmb.token,
    generation: dmb.generation,
    lengthBytes: dmb.lengthBytes,
    bytes: dmb.bytes,
    move: (offset, data) => dmb.bytes.set(data, offset),
    storeWord: (offset, value) => void Atomics.store(dmb.words, offset / 4, value),
    storeLong: (offset, value) => void dmb.bytes.writeBigInt64LE(value, offset),
    signal() {},
  };
}
