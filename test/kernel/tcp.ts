/**
 * As much TCP as it takes to talk to a kernel: connect, listen, segments cut as a test wants them, FIN, RST, retransmission. And
 * what no system lets a program do: the SMC option in SYN and SYN-ACK. Not here: congestion, a window of the peer's that
 * fills, segments out of order (dropped; the peer sends them again).
 *
 * Sources: RFC 9293; RFC 6994 (experimental options), RFC 7609 3.1 (the SMC option). Big-endian.
 *
 *     offset | size | field
 *     0      | 2    | source port
 *     2      | 2    | destination port
 *     4      | 4    | sequence number
 *     8      | 4    | acknowledgement number
 *     12     | 1    | bits 7-4: words before the payload
 *     13     | 1    | flags
 *     14     | 2    | window
 *     16     | 2    | checksum, with a pseudo header: addresses, protocol, length
 *     20     | -    | options
 */
import type { ClcStream } from '../../src/smc/in-band.ts';
import { checksum, KERNEL_ADDRESS, type Network, OUR_ADDRESS, PROTOCOL_TCP } from './network.ts';

const SOURCE = 0;
const DESTINATION = 2;
const SEQUENCE = 4;
const ACKNOWLEDGEMENT = 8;
const OFFSET = 12;
const FLAGS = 13;
const WINDOW = 14;
const CHECKSUM = 16;
const HEADER_BYTES = 20;

const FIN = 0x01;
const SYN = 0x02;
const RST = 0x04;
const PSH = 0x08;
const ACK = 0x10;

const MAX_SEGMENT_OPTION = Buffer.from('020405b4', 'hex'); // 1460
/** Two NOPs, kind 254, length 6, "SMCR" in EBCDIC. */
const SMC_OPTION = Buffer.from('0101fe06e2d4c3d9', 'hex');
const NOTHING = Buffer.alloc(0);
const WINDOW_BYTES = 64_000;
const RESEND_MS = 500;
const LIMIT_MS = 20_000;

interface Segment {
  readonly source: number;
  readonly destination: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly flags: number;
  readonly options: Buffer;
  readonly payload: Buffer;
}

function decodeSegment(bytes: Buffer): Segment {
  const payloadAt = (bytes.readUInt8(OFFSET) >> 4) * 4;
  return {
    source: bytes.readUInt16BE(SOURCE),
    destination: bytes.readUInt16BE(DESTINATION),
    sequence: bytes.readUInt32BE(SEQUENCE),
    acknowledgement: bytes.readUInt32BE(ACKNOWLEDGEMENT),
    flags: bytes.readUInt8(FLAGS),
    options: Buffer.from(bytes.subarray(HEADER_BYTES, payloadAt)),
    payload: Buffer.from(bytes.subarray(payloadAt)),
  };
}

function encodeSegment(segment: Segment): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(segment.source, SOURCE);
  header.writeUInt16BE(segment.destination, DESTINATION);
  header.writeUInt32BE(segment.sequence, SEQUENCE);
  header.writeUInt32BE(segment.acknowledgement, ACKNOWLEDGEMENT);
  header.writeUInt8(((HEADER_BYTES + segment.options.length) / 4) << 4, OFFSET);
  header.writeUInt8(segment.flags, FLAGS);
  header.writeUInt16BE(WINDOW_BYTES, WINDOW);
  const bytes = Buffer.concat([header, segment.options, segment.payload]);
  const pseudo = Buffer.from([0, PROTOCOL_TCP, bytes.length >> 8, bytes.length & 0xff]);
  bytes.writeUInt16BE(checksum(OUR_ADDRESS, KERNEL_ADDRESS, pseudo, bytes), CHECKSUM);
  return bytes;
}

/** Modulo 2^32. */
function isBefore(one: number, other: number): boolean {
  return ((one - other) | 0) < 0;
}

export interface TcpOptions {
  /** Whether our SYN or SYN-ACK has the SMC option. */
  readonly smc?: boolean;
}

/** All our connections with one kernel. */
export class TcpStack {
  readonly #network: Network;
  readonly #connections = new Map<string, TcpConnection>();
  readonly #listeners = new Map<number, TcpListener>();
  #lastPort = 40_000;

  constructor(network: Network) {
    this.#network = network;
    network.onSegment = (bytes) => this.#received(decodeSegment(bytes));
  }

  async connect(port: number, { smc = true }: TcpOptions = {}): Promise<TcpConnection> {
    const connection = this.#add(++this.#lastPort, port, null, smc);
    await connection.until('established', () => connection.isEstablished || connection.wasReset);
    return connection;
  }

  listen(port: number, { smc = true }: TcpOptions = {}): TcpListener {
    const listener = new TcpListener(smc);
    this.#listeners.set(port, listener);
    return listener;
  }

  close(): void {
    for (const connection of this.#connections.values()) connection.abandon();
  }

  #add(localPort: number, peerPort: number, syn: Segment | null, smc: boolean): TcpConnection {
    const send = (segment: Segment) => this.#network.sendSegment(encodeSegment(segment));
    const connection = new TcpConnection(localPort, peerPort, syn, smc, send);
    this.#connections.set(`${localPort} ${peerPort}`, connection);
    return connection;
  }

  #received(segment: Segment): void {
    const { source, destination, flags } = segment;
    const connection = this.#connections.get(`${destination} ${source}`);
    if (connection !== undefined) {
      connection.receive(segment);
    } else if ((flags & (SYN | ACK)) === SYN) {
      const listener = this.#listeners.get(destination);
      listener?.arrived(this.#add(destination, source, segment, listener.smc));
    }
  }
}

export class TcpListener {
  readonly smc: boolean;
  readonly #arrived: TcpConnection[] = [];
  #waiting: ((connection: TcpConnection) => void) | null = null;

  constructor(smc: boolean) {
    this.smc = smc;
  }

  arrived(connection: TcpConnection): void {
    if (this.#waiting === null) this.#arrived.push(connection);
    else this.#waiting(connection);
    this.#waiting = null;
  }

  async accept(): Promise<TcpConnection> {
    const connection = this.#arrived.shift() ?? (await new Promise<TcpConnection>((done) => (this.#waiting = done)));
    await connection.until('established', () => connection.isEstablished);
    return connection;
  }
}

/** One connection. */
export class TcpConnection implements ClcStream {
  readonly localPort: number;
  readonly peerPort: number;
  readonly #send: (segment: Segment) => void;
  /** Acknowledged up to here, sent up to there; between them are the segments of #unacknowledged. */
  #sent: number;
  #unacknowledged: Segment[] = [];
  #resend: NodeJS.Timeout | null = null;
  /** The peer's next sequence number; null before its SYN. */
  #expected: number | null = null;
  #received: Buffer = Buffer.alloc(0);
  #isEstablished = false;
  #peerHasSmc = false;
  #hasEnded = false;
  #wasReset = false;
  /** Called after every segment: bytes, an end, an acknowledgement. */
  readonly #watchers = new Set<() => void>();

  /** @param syn of the peer, when it is the one that connects */
  constructor(
    localPort: number,
    peerPort: number,
    syn: Segment | null,
    smc: boolean,
    send: (segment: Segment) => void,
  ) {
    this.localPort = localPort;
    this.peerPort = peerPort;
    this.#send = send;
    this.#sent = Math.floor(Math.random() * 2 ** 32);
    const options = Buffer.concat([MAX_SEGMENT_OPTION, ...(smc ? [SMC_OPTION] : [])]);
    if (syn !== null) this.#synchronize(syn);
    this.#transmit(SYN, options);
  }

  get isEstablished(): boolean {
    return this.#isEstablished;
  }

  /** Whether the peer's SYN or SYN-ACK has the SMC option. */
  get peerHasSmc(): boolean {
    return this.#peerHasSmc;
  }

  /** The peer has sent FIN. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  get wasReset(): boolean {
    return this.#wasReset;
  }

  /** All that was sent has arrived. */
  get isAcknowledged(): boolean {
    return this.#unacknowledged.length === 0;
  }

  /** Up to `length` bytes that have come, without taking them; 'end' when there will never be so many. */
  peek(length: number): Buffer | 'end' {
    if (this.#received.length < length && (this.#hasEnded || this.#wasReset)) return 'end';
    return this.#received.subarray(0, length);
  }

  read(length: number): Buffer {
    const bytes = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return bytes;
  }

  /** In one segment. */
  send(bytes: Buffer): void {
    this.#transmit(PSH, NOTHING, bytes);
  }

  end(): void {
    this.#transmit(FIN);
  }

  reset(): void {
    if (!this.#wasReset) this.#send(this.#segment(RST));
    this.abandon();
  }

  /** No more segments from us. */
  abandon(): void {
    this.#unacknowledged = [];
    if (this.#resend !== null) clearInterval(this.#resend);
    this.#resend = null;
  }

  /** Calls back after every segment of the peer. Returns how to stop that. */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Waits for something that only a segment can bring about. */
  until(what: string, isSo: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = (settle: () => void) => {
        clearTimeout(limit);
        unwatch();
        settle();
      };
      const limit = setTimeout(() => stop(() => reject(new Error(`not ${what} within ${LIMIT_MS} ms`))), LIMIT_MS);
      const look = () => isSo() && stop(resolve);
      const unwatch = this.watch(look);
      look();
    });
  }

  receive(segment: Segment): void {
    if (segment.flags & RST) {
      this.#wasReset = true;
      this.abandon();
    } else if (segment.flags & SYN && this.#expected === null) {
      this.#synchronize(segment);
    }
    if (segment.flags & ACK) this.#acknowledged(segment.acknowledgement);
    if (segment.payload.length > 0 || segment.flags & (SYN | FIN)) this.#take(segment);
    for (const watcher of [...this.#watchers]) watcher();
  }

  #synchronize({ sequence, options }: Segment): void {
    this.#expected = (sequence + 1) >>> 0;
    this.#peerHasSmc = options.includes(SMC_OPTION.subarray(2));
  }

  #acknowledged(upTo: number): void {
    this.#unacknowledged = this.#unacknowledged.filter((one) => isBefore(upTo, endOf(one)));
    if (this.#unacknowledged.length > 0) return;
    this.abandon();
    this.#isEstablished = this.#expected !== null;
  }

  /** What comes next is kept, everything else is answered with what would. */
  #take({ sequence, payload, flags }: Segment): void {
    if (sequence === this.#expected && !(flags & SYN) && !this.#hasEnded) {
      this.#received = Buffer.concat([this.#received, payload]);
      this.#hasEnded = (flags & FIN) !== 0;
      this.#expected = (sequence + payload.length + (this.#hasEnded ? 1 : 0)) >>> 0;
    }
    if (!this.#wasReset) this.#send(this.#segment(0));
  }

  /** Sends what takes up sequence numbers, again and again until it is acknowledged. */
  #transmit(flags: number, options: Buffer = NOTHING, payload: Buffer = NOTHING): void {
    if (this.#wasReset) return;
    const segment = this.#segment(flags, options, payload);
    this.#sent = endOf(segment);
    this.#unacknowledged.push(segment);
    this.#send(segment);
    this.#resend ??= setInterval(() => {
      for (const one of this.#unacknowledged) this.#send(one);
    }, RESEND_MS);
  }

  #segment(flags: number, options: Buffer = NOTHING, payload: Buffer = NOTHING): Segment {
    return {
      source: this.localPort,
      destination: this.peerPort,
      sequence: this.#sent,
      acknowledgement: this.#expected ?? 0,
      flags: this.#expected === null ? flags : flags | ACK,
      options,
      payload,
    };
  }
}

function endOf({ sequence, flags, payload }: Segment): number {
  return (sequence + payload.length + (flags & (SYN | FIN) ? 1 : 0)) >>> 0;
}
