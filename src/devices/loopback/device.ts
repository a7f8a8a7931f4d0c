/**
 * The simplest device there is, after drivers/dibs/dibs_loopback.c: one map from token to buffer, a write is a copy.
 *
 * Where it differs from Linux: a DMB can be written by the peer it was registered for and by nobody else (dibs takes any holder
 * of the token), and a signal reaches the client from the event loop, not inside the sender's call.
 */
import {
  CHID_LOOPBACK,
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
  isWordInRange,
  outOfRange,
  type RemoteDmb,
  randomGid,
  randomToken,
  type Token,
} from '../../ism/index.ts';
import { setImmediate } from '../../os/event-loop.ts';

const MAX_DMBS = 5000;
const MAX_DMB_BYTES = 4 << 20;

/** The devices of one event loop that reach each other; a device reaches itself too. */
export class LoopbackFabric {
  readonly devices = new Map<Gid, LoopbackDevice>();
  readonly dmbs = new Map<Token, LoopbackDmb>();

  createDevice(): LoopbackDevice {
    const device = new LoopbackDevice(this);
    this.devices.set(device.gid, device);
    return device;
  }
}

class LoopbackDmb implements Dmb {
  readonly token: Token;
  readonly index: number;
  readonly generation: number;
  readonly peer: Gid;
  readonly lengthBytes: number;
  readonly bytes: Buffer;
  readonly words: Int32Array;
  readonly longs: BigInt64Array;
  readonly client: Client;
  readonly owner: LoopbackDevice;
  clientData: unknown;
  registered = true;
  attachments = 0;

  constructor(token: Token, index: number, generation: number, owner: LoopbackDevice, request: DmbRequest) {
    this.token = token;
    this.index = index;
    this.generation = generation;
    this.owner = owner;
    this.peer = request.peer;
    this.client = request.client;
    this.lengthBytes = request.lengthBytes;
    const memory = new ArrayBuffer((request.lengthBytes + 7) & ~7);
    this.bytes = Buffer.from(memory, 0, request.lengthBytes);
    this.words = new Int32Array(memory);
    this.longs = new BigInt64Array(memory);
  }
}

class LoopbackRemoteDmb implements RemoteDmb {
  readonly #dmb: LoopbackDmb;
  attached = true;

  constructor(dmb: LoopbackDmb) {
    this.#dmb = dmb;
  }

  get token(): Token {
    return this.#dmb.token;
  }
  get generation(): number {
    return this.#dmb.generation;
  }
  get lengthBytes(): number {
    return this.#dmb.lengthBytes;
  }
  get bytes(): Buffer {
    return this.#dmb.bytes;
  }
  get dmb(): LoopbackDmb {
    return this.#dmb;
  }

  move(offset: number, data: Uint8Array): void {
    if (!isInRange(this.#dmb.lengthBytes, offset, data.length)) throw outOfRange(offset, data.length, this.lengthBytes);
    if (this.attached) this.#dmb.bytes.set(data, offset);
  }

  storeWord(offset: number, value: number): void {
    if (!isWordInRange(this.#dmb.lengthBytes, offset, 4)) throw outOfRange(offset, 4, this.lengthBytes);
    if (this.attached) Atomics.store(this.#dmb.words, offset / 4, value);
  }

  storeLong(offset: number, value: bigint): void {
    if (!isWordInRange(this.#dmb.lengthBytes, offset, 8)) throw outOfRange(offset, 8, this.lengthBytes);
    if (this.attached) Atomics.store(this.#dmb.longs, offset / 8, value);
  }

  signal(): void {
    if (this.attached) this.#dmb.owner.signalled(this.#dmb);
  }
}

export class LoopbackDevice implements Device {
  readonly name = 'loopback';
  readonly gid = randomGid();
  readonly chid = CHID_LOOPBACK;
  readonly seid = null;
  readonly capabilities: DeviceCapabilities = {
    access: 'mapped',
    peerCanRead: true,
    maxDmbs: MAX_DMBS,
    maxDmbBytes: MAX_DMB_BYTES,
    events: true,
  };
  readonly #fabric: LoopbackFabric;
  readonly #slots: (LoopbackDmb | null)[] = [];
  readonly #free: number[] = [];
  readonly #generations: number[] = [];
  readonly #attached = new Set<LoopbackRemoteDmb>();
  #signalled = new Set<LoopbackDmb>();
  #closed = false;
  #listener: (event: IsmEvent) => void = () => {};

  /** Use LoopbackFabric.createDevice. */
  constructor(fabric: LoopbackFabric) {
    this.#fabric = fabric;
  }

  async queryRemoteGid(gid: Gid): Promise<boolean> {
    return !this.#closed && this.#fabric.devices.has(gid);
  }

  async registerDmb(request: DmbRequest): Promise<Dmb> {
    if (this.#closed) throw new IsmError('ERR_ISTHMUS_DEVICE_GONE', 'local', 'the device was closed');
    if (!this.#fabric.devices.has(request.peer)) {
      throw new IsmError('ERR_ISTHMUS_PEER', 'system', `no device ${request.peer} on this fabric`);
    }
    checkDmbLength(request.lengthBytes, MAX_DMB_BYTES);
    const index = this.#free.pop() ?? this.#slots.length;
    if (index === MAX_DMBS) throw new IsmError('ERR_ISTHMUS_NO_DMB', 'system', `all ${MAX_DMBS} DMBs are in use`);
    let token = randomToken();
    while (this.#fabric.dmbs.has(token)) token = randomToken();
    const generation = ((this.#generations[index] ?? 0) % 0xffff) + 1;
    const dmb = new LoopbackDmb(token, index, generation, this, request);
    this.#generations[index] = generation;
    this.#slots[index] = dmb;
    this.#fabric.dmbs.set(token, dmb);
    return dmb;
  }

  async unregisterDmb(dmb: Dmb): Promise<void> {
    const own = this.#slots[dmb.index];
    if (own !== dmb || !own.registered) return;
    own.registered = false;
    this.#fabric.dmbs.delete(own.token);
    this.#release(own);
  }

  /** The memory is the garbage collector's; the index waits for the writer to be gone. */
  #release(dmb: LoopbackDmb): void {
    if (dmb.registered || dmb.attachments > 0) return;
    this.#slots[dmb.index] = null;
    this.#free.push(dmb.index);
  }

  async attachDmb(token: Token): Promise<RemoteDmb> {
    const remote = new LoopbackRemoteDmb(this.#resolve(token));
    remote.dmb.attachments++;
    this.#attached.add(remote);
    return remote;
  }

  detachDmb(remote: RemoteDmb): void {
    if (!(remote instanceof LoopbackRemoteDmb) || !this.#attached.delete(remote)) return;
    remote.attached = false;
    remote.dmb.attachments--;
    remote.dmb.owner.#release(remote.dmb);
  }

  moveData(token: Token, offset: number, data: Uint8Array, signal: boolean): void {
    const dmb = this.#resolve(token);
    if (!isInRange(dmb.lengthBytes, offset, data.length)) throw outOfRange(offset, data.length, dmb.lengthBytes);
    dmb.bytes.set(data, offset);
    if (signal) dmb.owner.signalled(dmb);
  }

  #resolve(token: Token): LoopbackDmb {
    const dmb = this.#fabric.dmbs.get(token);
    if (this.#closed || dmb === undefined || dmb.peer !== this.gid) {
      throw new IsmError('ERR_ISTHMUS_TOKEN', 'local', 'no DMB with this token was registered for this device');
    }
    return dmb;
  }

  /** Called by the writer: merged, and delivered from the event loop. */
  signalled(dmb: LoopbackDmb): void {
    if (this.#signalled.size === 0) setImmediate(() => this.deliverSignals());
    this.#signalled.add(dmb);
  }

  /** Delivers what waits now. For one end of a loop that has to wait for the other. */
  deliverSignals(): void {
    const signalled = this.#signalled;
    this.#signalled = new Set();
    for (const dmb of signalled) {
      if (dmb.registered) dmb.client.handleSignal(this, dmb);
    }
  }

  signalEvent(gid: Gid, code: number, data: bigint): void {
    this.#fabric.devices.get(gid)?.deliverEvent({ type: 'software', gid: this.gid, code, data });
  }

  deliverEvent(event: IsmEvent): void {
    setImmediate(() => {
      if (!this.#closed) this.#listener(event);
    });
  }

  setEventListener(listener: (event: IsmEvent) => void): void {
    this.#listener = listener;
  }

  dmbsOf(client: Client): number {
    return this.#slots.filter((dmb) => dmb?.registered && dmb.client === client).length;
  }

  usage(): DeviceUsage {
    const slots = this.#slots.filter((dmb) => dmb !== null);
    const dmbs = slots.filter((dmb) => dmb.registered).length;
    return {
      peers: this.#fabric.devices.size,
      dmbs,
      quarantined: slots.length - dmbs,
      attached: this.#attached.size,
      bytes: slots.reduce((sum, dmb) => sum + dmb.lengthBytes, 0),
    };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#fabric.devices.delete(this.gid);
    for (const remote of [...this.#attached]) this.detachDmb(remote);
    for (const dmb of this.#slots) if (dmb !== null) await this.unregisterDmb(dmb);
    for (const device of this.#fabric.devices.values()) {
      device.deliverEvent({ type: 'peer-gone', gid: this.gid, cause: 'the device was closed' });
    }
  }
}
