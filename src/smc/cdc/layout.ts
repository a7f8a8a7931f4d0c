/**
 * The kernel's layout over a device: the CDC message (message.ts) at the head of each DMB, then the ring, from the first byte of the
 * connection to its last. TCP carries nothing after the handshake, and there is no way back to it. What is to be written when is the
 * engine's (engine.ts); here is who holds the memory.
 *
 * Order for the peer: data, producer word, consumer and flags word, signal; each word whole. Read in the other order of the two, so that
 * an end is never seen with an older cursor. Each message is signalled, so nobody has to look twice before waiting.
 *
 * There is no generation word as in head.ts: a DMB comes zeroed, which is a message that says nothing, and its memory is used again
 * only when the writer of before has detached or is dead. A peer that goes on writing all the same can only write into connections of
 * its own, which it may spoil in any case.
 */
import type { Dmb, RemoteDmb } from '../../ism/index.ts';
import { chunkOf } from '../chunk.ts';
import { RECEIVER, type ReceiverEvent, type ReceiverState } from '../handover/receiver.ts';
import { SENDER, type SenderEvent, type SenderState } from '../handover/sender.ts';
import { CLOSED_FLAGS, END_FLAGS, FLAG } from '../head.ts';
import { type InboundHalf, type Layout, type OutboundHalf, TOLD_BYTES } from '../layout.ts';
import { step } from '../table.ts';
import {
  type Cdc,
  consume,
  openCdc,
  pieces,
  raise,
  readable,
  receive,
  room,
  type Said,
  send,
  unconsumed,
  unread,
} from './engine.ts';
import { type ByteOrder, CDC_BYTES, CONSUMER_AT, decodeCdc, encodeCdc, PRODUCER_AT, TYPE_CDC } from './message.ts';

export class KernelLayout implements Layout {
  readonly in: CdcInbound;
  readonly out: CdcOutbound;
  readonly canGoBack = false;
  readonly #ends: Ends;
  #flags = 0;

  /** @param order of both ends; big-endian for a peer on s390 */
  constructor(dmb: Dmb, remote: RemoteDmb, order: ByteOrder = 'LE') {
    this.#ends = new Ends(dmb, remote, order);
    this.in = new CdcInbound(this.#ends);
    this.out = new CdcOutbound(this.#ends, this.in);
  }

  get dmbBytes(): number {
    return this.#ends.dmb.lengthBytes;
  }

  /** Its rings stay as long as they are. */
  makeRoom(): boolean {
    return false;
  }
  release(): void {}

  look(): number | null {
    this.#ends.look();
    const flags = this.#ends.cdc.peerFlags & END_FLAGS;
    if (flags === this.#flags) return null;
    this.#flags = flags;
    return flags;
  }
}

interface Message {
  readonly longs: BigInt64Array;
  readonly bytes: Buffer;
}

function makeMessage(): Message {
  const longs = new BigInt64Array(CDC_BYTES / 8);
  return { longs, bytes: Buffer.from(longs.buffer) };
}

// Private memory of all connections, in use within a call.
const incoming = makeMessage();
const outgoing = makeMessage();

// Words of a message.
const PRODUCER = PRODUCER_AT / 8;
const CONSUMER = CONSUMER_AT / 8;

/** What both directions share: the two rings as the engine sees them, and the two heads. */
class Ends {
  readonly dmb: Dmb;
  readonly remote: RemoteDmb;
  cdc: Cdc;
  readonly #order: ByteOrder;
  /** The head of our DMB. */
  readonly #head: BigInt64Array;
  #producer = 0n;
  #consumer = 0n;

  constructor(dmb: Dmb, remote: RemoteDmb, order: ByteOrder) {
    this.dmb = dmb;
    this.remote = remote;
    this.cdc = openCdc(dmb.lengthBytes - CDC_BYTES, remote.lengthBytes - CDC_BYTES);
    this.#order = order;
    this.#head = new BigInt64Array(dmb.words.buffer, dmb.words.byteOffset, CDC_BYTES / 8);
    remote.move(0, Buffer.of(TYPE_CDC));
  }

  /** Takes the peer's message in. Throws PeerFault. */
  look(): void {
    const consumer = Atomics.load(this.#head, CONSUMER);
    const producer = Atomics.load(this.#head, PRODUCER);
    if (consumer === this.#consumer && producer === this.#producer) return;
    incoming.longs[CONSUMER] = consumer;
    incoming.longs[PRODUCER] = producer;
    this.say(receive(this.cdc, decodeCdc(incoming.bytes, this.#order)));
    this.#consumer = consumer;
    this.#producer = producer;
  }

  /** Whatever the message speaks of was stored before. */
  say({ cdc, message }: Said): void {
    this.cdc = cdc;
    if (message === null) return;
    encodeCdc(message, this.#order, outgoing.bytes);
    this.remote.storeLong(PRODUCER_AT, outgoing.longs[PRODUCER] as bigint);
    this.remote.storeLong(CONSUMER_AT, outgoing.longs[CONSUMER] as bigint);
    this.remote.signal();
  }
}

/** The state of the hand-over is that of a direction that has moved; nothing is published of it. */
class CdcInbound implements InboundHalf {
  readonly isFromRing = true;
  readonly isNative = false;
  readonly isBound = true;
  readonly holdsTcp = false;
  readonly #ends: Ends;
  #state: ReceiverState = 'MOVED';
  #ringTotal = 0;
  isCutShort = false;

  constructor(ends: Ends) {
    this.#ends = ends;
  }

  get state(): ReceiverState {
    return this.#state;
  }

  get ringTotal(): number {
    return this.#ringTotal;
  }

  get unread(): number {
    return unread(this.#ends.cdc);
  }

  get canTake(): boolean {
    return readable(this.#ends.cdc) > 0;
  }

  get isEndSaid(): boolean {
    return (this.#ends.cdc.peerFlags & END_FLAGS) !== 0;
  }

  look(): void {
    this.#ends.look();
  }

  /** There never is a byte that may come on TCP. */
  tcpBytes(): null {
    this.#step('byte');
    return null;
  }

  tcpEnd(): void {
    this.#ends.look();
    // Now: reading what is there serves the flag.
    this.isCutShort ||= (this.#ends.cdc.peerFlags & FLAG.WRITE_BLOCKED) !== 0;
    this.#step('end');
  }

  take(max: number, into: Uint8Array | null = null): Buffer | null {
    const { cdc, dmb } = this.#ends;
    const length = Math.min(max, readable(cdc));
    if (length === 0) return null;
    const bytes = chunkOf(length, into);
    let at = 0;
    for (const piece of pieces(cdc.ownRing, cdc.consumed, length)) {
      at += dmb.bytes.copy(bytes, at, CDC_BYTES + piece.offset, CDC_BYTES + piece.offset + piece.length);
    }
    this.#ringTotal += length;
    this.#ends.say(consume(cdc, length));
    return bytes;
  }

  taken(): void {}

  /** Bytes are copied: what is consumed is said here in messages that go with others. */
  lend(): null {
    return null;
  }
  readonly canLend = false;
  readonly isFullOfLoans = false;
  readonly isFull = false;

  // Of the hand-over there is nothing to offer, to take back, or to hold.
  arm(): void {}
  retract(): void {}
  neverCut(): void {}
  ownHeld(): void {}

  #step(event: ReceiverEvent): void {
    this.#state = step(RECEIVER, this.#state, event).next;
  }
}

class CdcOutbound implements OutboundHalf {
  readonly mayCut = false;
  readonly wasOffered = true;
  readonly #ends: Ends;
  readonly #in: CdcInbound;
  #state: SenderState = 'MOVED';
  #ringTotal = 0;
  /** In the ring, and the peer was not told. */
  #untoldBytes = 0;

  constructor(ends: Ends, inbound: CdcInbound) {
    this.#ends = ends;
    this.#in = inbound;
  }

  get state(): SenderState {
    return this.#state;
  }

  get isMoved(): boolean {
    return this.#state === 'MOVED';
  }

  get unconsumed(): number {
    return unconsumed(this.#ends.cdc);
  }

  get ringTotal(): number {
    return this.#ringTotal;
  }

  cut(): void {
    this.#step('cut');
  }

  /** Only once nobody reads our ring any more: then TCP knows how to fail. */
  back(): void {
    const hasClosed = (this.#ends.cdc.peerFlags & CLOSED_FLAGS) !== 0;
    const hasDied = this.#in.state === 'REST' && !this.#in.isEndSaid;
    if (hasClosed || hasDied) this.#step('back');
  }

  end(): void {
    this.#step('end');
  }

  write(chunk: Uint8Array, from = 0, behind = 0): number {
    if (chunk.length - from > room(this.#ends.cdc)) this.#ends.look();
    const said = send(this.#ends.cdc, chunk.length - from);
    let at = from;
    for (const { offset, length } of said.pieces) {
      this.#ends.remote.move(CDC_BYTES + offset, chunk.subarray(at, at + length));
      at += length;
    }
    this.#ringTotal += at - from;
    const untoldBytes = this.#untoldBytes + at - from;
    const isTold = behind === 0 || at !== chunk.length || untoldBytes >= TOLD_BYTES;
    this.#untoldBytes = isTold ? 0 : untoldBytes;
    if (!isTold) this.#ends.cdc = said.cdc;
    // Also where nothing of this chunk found room: a message says all there is to say.
    else this.#ends.say(untoldBytes > 0 && said.message === null ? raise(said.cdc, 0) : said);
    return at - from;
  }

  /** As it lends nothing. */
  reserve(): null {
    return null;
  }
  commit(): void {}

  raise(flags: number): void {
    this.#ends.say(raise(this.#ends.cdc, flags));
  }

  #step(event: SenderEvent): void {
    this.#state = step(SENDER, this.#state, event).next;
  }
}
