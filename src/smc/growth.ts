/**
 * How the rings of a connection grow while their writer waits for room, and become short again.
 *
 * A ring begins short: most connections need no more. The receiver, whose memory it is, makes a longer one when the writer has been
 * found waiting again and again, or when nothing is read and the writer would wait for that, where the buffers of TCP would take more.
 * Some time later, when little is written, it offers the first one again, and gives the long one back.
 */
import { type Dmb, type RemoteDmb, ringBytes, type Token } from '../ism/index.ts';
import type { ConnectionParts } from './connection.ts';
import type { Inbound, RingListener } from './inbound.ts';
import type { Outbound } from './outbound.ts';

/** Each ring is so many times as long as the one before. */
const STEP = 4;
/** How often the writer of a ring has waited when it becomes longer. */
const OFTEN = 8;
/** For who reads all the time: longer ones would not stay in the caches of a CPU. */
const STREAM_BYTES = 256 * 1024;
/** Memory of this process in rings beside the first ones. */
const MOST_BYTES = 256 * 1024 * 1024;
/** How often it is looked whether long rings are still of use. */
const SWEEP_MS = 1000;

/** Those with more than their first ring. */
const grown = new Set<Growth>();
let grownBytes = 0;
let timer: NodeJS.Timeout | null = null;

function sweep(): void {
  for (const growth of grown) growth.shrinkIfIdle();
  timer = null;
  sweepLater();
}

function sweepLater(): void {
  if (timer === null && grown.size > 0) timer = setTimeout(sweep, SWEEP_MS).unref();
}

export class Growth implements RingListener {
  readonly #parts: ConnectionParts;
  readonly #in: Inbound;
  readonly #out: Outbound;
  /** Of ours, beside the first. */
  readonly #dmbs = new Set<Dmb>();
  #maxBytes: number;
  #blocked = 0;
  #isRegistering = false;
  #isAttaching = false;
  /** Bytes that had come when it was looked last. */
  #seenBytes = 0;
  #isOver = false;
  /** Of the peer's ring that was offered last. */
  #remote: RemoteDmb;

  constructor(parts: ConnectionParts, inbound: Inbound, outbound: Outbound) {
    this.#parts = parts;
    this.#in = inbound;
    this.#out = outbound;
    this.#remote = parts.remote;
    this.#maxBytes = Math.min(parts.maxDmbBytes, parts.device.capabilities.maxDmbBytes);
    inbound.listener = this;
  }

  // --- Our ring ---

  blocked(): void {
    this.#blocked++;
    // It would wait so often: room is told of by the quarter.
    const isLong = this.#in.waitingBytes > (OFTEN * this.#in.ringDmb.lengthBytes) / 4;
    if ((isLong || this.#blocked % OFTEN === 0) && !this.#isComing) this.#grow(STREAM_BYTES);
  }

  /** As `makeRoom` of a layout. */
  makeRoom(): boolean {
    return this.#isComing || this.#grow(this.#maxBytes, this.#in.waitingBytes);
  }

  get #isComing(): boolean {
    return this.#isRegistering || !this.#in.mayOfferRing;
  }

  /** @param moreBytes that the ring, which is full, is to hold: at once, if there is the memory */
  #grow(most: number, moreBytes = 0): boolean {
    const nowBytes = this.#in.ringDmb.lengthBytes;
    let lengthBytes = STEP * nowBytes;
    while (lengthBytes < nowBytes + moreBytes && lengthBytes < most) lengthBytes *= STEP;
    lengthBytes = Math.min(lengthBytes, most, this.#maxBytes);
    while (lengthBytes > STEP * nowBytes && grownBytes + lengthBytes > MOST_BYTES) lengthBytes /= STEP;
    if (lengthBytes <= nowBytes || grownBytes + lengthBytes > MOST_BYTES || this.#isOver) return false;
    void this.#offerNew(lengthBytes);
    return true;
  }

  /** Never rejects. */
  async #offerNew(lengthBytes: number): Promise<void> {
    this.#isRegistering = true;
    try {
      const dmb = await this.#register(lengthBytes);
      this.#dmbs.add(dmb);
      grown.add(this);
      sweepLater();
      if (this.#isOver) this.release();
      else this.#in.offerRing(dmb);
    } catch {
      this.#maxBytes = 0; // no memory, or the peer is gone: what there is has to do
    }
    this.#isRegistering = false;
    if (this.#maxBytes === 0) this.#lookAgain(); // who waits for room has to know that none comes
  }

  /** Of that length, or the next shorter one for which there is memory. */
  async #register(lengthBytes: number): Promise<Dmb> {
    const { device, dmb: first } = this.#parts;
    grownBytes += lengthBytes; // before: many may grow in one turn
    try {
      const dmb = await device.registerDmb({ peer: first.peer, lengthBytes, client: first.client });
      grownBytes += dmb.lengthBytes - lengthBytes;
      return dmb;
    } catch (error) {
      grownBytes -= lengthBytes;
      const lessBytes = lengthBytes / STEP;
      if (lessBytes <= this.#in.ringDmb.lengthBytes || this.#isOver) throw error;
      return this.#register(lessBytes);
    }
  }

  refused(dmb: Dmb): void {
    this.#maxBytes = 0;
    this.#giveBack(dmb);
  }

  left(dmb: Dmb): void {
    this.#giveBack(dmb);
  }

  #giveBack(dmb: Dmb): void {
    if (!this.#dmbs.delete(dmb)) return; // the first one stays
    grownBytes -= dmb.lengthBytes;
    void this.#parts.device.unregisterDmb(dmb);
    if (this.#dmbs.size === 0) grown.delete(this);
  }

  /** The first ring will do, where not more than that has come for some time. */
  shrinkIfIdle(): void {
    const { dmb: first } = this.#parts;
    const bytes = this.#in.ringTotal - this.#seenBytes;
    this.#seenBytes = this.#in.ringTotal;
    if (bytes > first.lengthBytes || !this.#in.isEmpty || this.#isComing || this.#in.ringDmb === first) return;
    this.#blocked = 0;
    this.#in.offerRing(first);
  }

  // --- The peer's ring ---

  /** To be called after `look` of the sending half. */
  look(): void {
    const token = this.#out.offeredRing;
    if (token !== null && !this.#isAttaching) void this.#goOnIn(token);
  }

  /** Never rejects. */
  async #goOnIn(token: Token): Promise<void> {
    const { device, remote: first } = this.#parts;
    this.#isAttaching = true;
    // Never at once: who looks is in the middle of something.
    const remote = await (token === first.token ? first : device.attachDmb(token).catch(() => null));
    this.#isAttaching = false;
    if (this.#isOver || remote === null || ringBytes(remote.lengthBytes) <= 0) {
      if (remote !== null) this.#detach(remote);
      if (!this.#isOver) this.#out.cannotUse();
      return;
    }
    const before = this.#out.ringDmb;
    this.#remote = remote;
    // Nor is it looked at once: a program may be in `commit`.
    await new Promise<void>((changed) => this.#out.goOnIn(remote, changed));
    this.#detach(before);
    this.#lookAgain(); // a write may wait
  }

  #detach(remote: RemoteDmb): void {
    if (remote !== this.#parts.remote) this.#parts.device.detachDmb(remote);
  }

  #lookAgain(): void {
    if (this.#isOver) return;
    const { device, dmb } = this.#parts;
    dmb.client.handleSignal(device, dmb);
  }

  release(): void {
    this.#isOver = true;
    for (const dmb of this.#dmbs) this.#giveBack(dmb);
    this.#detach(this.#out.ringDmb);
    this.#detach(this.#remote);
  }
}
