/** One TCP connection of a capture: who says what, when, and what comes of it. */
import { Conversation, type Judged, type Side } from './conversation.ts';
import type { Segment } from './packet.ts';
import { Stream } from './streams.ts';

export interface Said extends Judged {
  readonly timeNs: bigint | null;
  /** As in a Segment. */
  readonly from: string;
  readonly to: string;
}

/** What came of a connection, or what followed. */
export interface Outcome {
  readonly timeNs: bigint | null;
  readonly client: string;
  readonly server: string;
  readonly text: string;
}

export interface Listener {
  said(message: Said): void;
  outcome(outcome: Outcome): void;
}

/** Types of messages by who sends them. */
const PROPOSAL = 1;
const ACCEPT = 2;
const CONFIRM = 3;
const TYPE = 4;

export class Connection {
  readonly #listener: Listener;
  readonly #conversation = new Conversation();
  /** Until it is known, who was seen first. */
  #client: string;
  #server: string;
  #isClientKnown = false;
  readonly #streams = new Map<string, Stream>();
  /** Of the SYN; null: it was not seen. */
  #isn: number | null = null;
  /** Whether SYN and SYN-ACK have the SMC option; null: not seen. */
  #synOption: boolean | null = null;
  #synAckOption: boolean | null = null;
  #timeNs: bigint | null = null;
  #closedBy: string | null = null;
  #messages = 0;
  /** Its outcome was told. */
  #isDecided = false;
  /** What followed was told, too, or does not matter. */
  #isOver = false;

  constructor({ from, to }: Segment, listener: Listener) {
    this.#client = from;
    this.#server = to;
    this.#listener = listener;
  }

  get messages(): number {
    return this.#messages;
  }

  /** What it costs to keep this. */
  get heldBytes(): number {
    let sum = 0;
    for (const stream of this.#streams.values()) sum += stream.heldBytes;
    return sum;
  }

  /** What the handshake of TCP said of SMC; null: the SYN had no option, or was not seen. */
  get option(): 'agreed' | 'refused' | null {
    if (!this.#synOption) return null;
    return this.#synAckOption ? 'agreed' : 'refused';
  }

  /** Whether a SYN is that of this connection, sent again; else the same ports are used once more. */
  isOwnSyn({ seq }: Segment): boolean {
    return this.#isn === seq;
  }

  add(timeNs: bigint | null, segment: Segment): void {
    this.#timeNs = timeNs;
    const { from, rst, fin } = segment;
    if (segment.syn) this.#opened(segment);
    if (segment.payloadLength > 0) this.#received(segment);
    if (rst) this.end(`reset by ${this.#nameOf(from)}`);
    if (!fin) return;
    if (this.#closedBy === null) this.#closedBy = from;
    else if (this.#closedBy !== from) this.end(`closed, first by ${this.#nameOf(this.#closedBy)}`);
  }

  /** Nothing more is to come. @param how what ended it */
  end(how: string): void {
    for (const from of [this.#client, this.#server]) {
      const rest = this.#streamOf(from).takeRest();
      if (rest !== null) this.#said(from, rest.bytes, rest.isCutByCapture);
    }
    if (this.#isOver || this.#messages === 0) return;
    if (!this.#isDecided) this.#decided(this.#conversation.unfinished(how));
    else if (how.startsWith('reset')) this.#tell(how);
    this.#isOver = true;
  }

  #opened({ from, to, seq, ack, smcOption }: Segment): void {
    if (ack) {
      this.#setClient(to, from);
      this.#synAckOption = smcOption;
    } else {
      this.#setClient(from, to);
      this.#synOption = smcOption;
      this.#isn = seq;
    }
    const stream = this.#streamOf(from);
    if (stream.phase === 'early') stream.begin((seq + 1) | 0);
  }

  #received({ from, to, seq, syn, payload, payloadLength }: Segment): void {
    const stream = this.#streamOf(from);
    stream.add(syn ? (seq + 1) | 0 : seq, payload, payloadLength);
    for (let bytes = stream.take(); bytes !== null; bytes = stream.take()) this.#said(from, bytes, false);
    if (stream.phase !== 'over') return;
    // From the first byte on it is something else.
    if (this.#messages === 0 && this.#isClientKnown) this.#streamOf(to).leave();
    if (this.#isDecided && !this.#isOver) {
      this.#isOver = true;
      this.#tell(`${this.#conversation.followText}, first from ${this.#nameOf(from)}`);
    }
  }

  #said(from: string, bytes: Buffer, isCutByCapture: boolean): void {
    this.#messages++;
    const to = from === this.#client ? this.#server : this.#client;
    const type = bytes[TYPE];
    if (!this.#isClientKnown && (type === PROPOSAL || type === CONFIRM)) this.#setClient(from, to);
    if (!this.#isClientKnown && type === ACCEPT) this.#setClient(to, from);
    const before = this.#conversation.outcome;
    const judged = this.#conversation.judge(bytes, this.#sideOf(from), isCutByCapture);
    this.#listener.said({ ...judged, timeNs: this.#timeNs, from, to });
    const { outcome } = this.#conversation;
    if (outcome !== null && outcome !== before) this.#decided(outcome);
  }

  #decided(text: string): void {
    this.#tell(this.#isDecided ? text : `${text}; ${this.#optionText()}`);
    this.#isDecided = true;
  }

  #tell(text: string): void {
    this.#listener.outcome({ timeNs: this.#timeNs, client: this.#client, server: this.#server, text });
  }

  #optionText(): string {
    const [syn, synAck] = [this.#synOption, this.#synAckOption];
    if (syn === null && synAck === null) return 'SYN not in the capture';
    if (syn === synAck) return `SMC option in ${syn ? 'SYN and SYN-ACK' : 'neither SYN nor SYN-ACK'}`;
    const texts = { true: 'has the SMC option', false: 'has no SMC option', null: 'is not in the capture' };
    return `the SYN ${texts[`${syn}`]}, the SYN-ACK ${texts[`${synAck}`]}`;
  }

  #setClient(client: string, server: string): void {
    this.#client = client;
    this.#server = server;
    this.#isClientKnown = true;
  }

  #sideOf(from: string): Side | null {
    if (!this.#isClientKnown) return null;
    return from === this.#client ? 'client' : 'server';
  }

  #nameOf(from: string): string {
    const side = this.#sideOf(from);
    return side === null ? 'one end' : `the ${side}`;
  }

  #streamOf(from: string): Stream {
    let stream = this.#streams.get(from);
    if (stream === undefined) {
      stream = new Stream();
      this.#streams.set(from, stream);
    }
    return stream;
  }
}
