/** One end of a connection: plays its part, looks at every byte, and tells what came of it. */
import type { EventEmitter } from 'node:events';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';
import { type Entry, Ledger } from './ledger.ts';
import { type Act, lifeOf, otherSide, type Part, type Side, traitsOf } from './plan.ts';
import { HEADER_BYTES, streamBytes } from './stream.ts';
import { type Role, tell } from './words.ts';

/**
 * A connection on which nothing happens for so long does not end any more. These are ticks of this program: while it is stopped there are
 * none. The other end may be stopped, and its machine busy, for a part of it.
 */
const STUCK_TICKS = 45;
const TICK_MS = 1000;
const DRAIN_MS = 2000;
/** What may wait in a program for room. */
const MAX_WAITING_BYTES = 2_000_000;

/** Of this program, or of this thread. */
export class Ends {
  readonly role: Role;
  readonly isthmus: typeof import('isthmus') | null;
  readonly ledgerPath: string;
  readonly #ledger: Ledger;
  readonly #open = new Set<End>();
  #bytes = 0;
  #whenNone: (() => void) | null = null;

  constructor(role: Role, isthmus: Ends['isthmus']) {
    this.role = role;
    this.isthmus = isthmus;
    this.ledgerPath = `${role.ledgers}-${process.pid}-${threadId}`;
    this.#ledger = new Ledger(this.ledgerPath);
    setInterval(() => {
      tell({ says: 'alive', bytes: this.#bytes, rssBytes: process.memoryUsage.rss() });
      this.#bytes = 0;
      for (const end of this.#open) end.tick();
    }, TICK_MS).unref();
  }

  make(id: number, side: Side): End {
    const end = new End(this, id, side, this.#ledger.open(id, side));
    this.#open.add(end);
    return end;
  }

  count(bytes: number): void {
    this.#bytes += bytes;
  }

  over(end: End): void {
    this.#open.delete(end);
    if (this.#open.size === 0) this.#whenNone?.();
  }

  /** Calls back once nothing is open, and again whenever that is so. */
  whenNone(act: () => void): void {
    this.#whenNone = act;
    if (this.#open.size === 0) act();
  }

  dump(): unknown {
    return [...this.#open].map((end) => end.describe());
  }
}

export class End {
  readonly id: number;
  readonly over: Promise<void>;
  readonly #side: Side;
  readonly #ends: Ends;
  readonly #part: Part;
  readonly #isEcho: boolean;
  readonly #entry: Entry;
  readonly #startedAt = Date.now();
  readonly #events: string[] = [];
  readonly #emitters = new Set<EventEmitter>();
  #released = () => {};
  #socket: Socket | null = null;
  #readable: Readable | null = null;
  #acting = 'not yet';
  #written = 0;
  #received = 0;
  #wrongAt: number | null = null;
  #moved = false;
  #peerEnded = false;
  #isOver = false;
  #idleTicks = 0;
  #lastSeen = '';

  constructor(ends: Ends, id: number, side: Side, entry: Entry) {
    this.id = id;
    this.#ends = ends;
    this.#side = side;
    this.#entry = entry;
    const { seed, kind } = ends.role;
    this.#part = lifeOf(seed, kind, id)[side];
    this.#isEcho = traitsOf(kind).isEcho ?? false;
    this.over = new Promise((resolve) => {
      this.#released = resolve;
    });
  }

  /** It is over when all of these are closed. @param socket what can be asked of this connection */
  belongs(emitter: EventEmitter, socket: Socket | null = emitter instanceof Socket ? emitter : null): void {
    this.#socket ??= socket;
    if (this.#emitters.has(emitter)) return;
    this.#emitters.add(emitter);
    emitter.on('error', (error: NodeJS.ErrnoException) => {
      this.#sample();
      this.#events.push(`error ${error.code ?? error.message}`);
    });
    emitter.on('close', () => {
      this.#sample();
      this.#emitters.delete(emitter);
      this.#events.push('close');
      setImmediate(() => {
        if (this.#emitters.size === 0) this.#finish(null);
      });
    });
  }

  /** It came to nothing before there was something to talk on. */
  failed(error: NodeJS.ErrnoException): void {
    this.#events.push(`error ${error.code ?? error.message}`, 'close');
    this.#finish(null);
  }

  /** @param first what was read before the end had a name */
  reads(readable: Readable, first: Buffer | null = null): void {
    this.#readable = readable;
    if (first !== null) this.#take(first);
    readable.on('data', (chunk: Buffer) => this.#take(chunk));
    readable.on('end', () => {
      this.#sample();
      this.#events.push('end');
      this.#peerEnded = true;
    });
  }

  /** Gives back what comes. @param through streams in between */
  echoes(socket: Socket, first: Buffer, through: readonly (NodeJS.ReadWriteStream & Writable)[]): void {
    this.reads(socket, first);
    (through[0] ?? socket).write(first);
    let last: NodeJS.ReadableStream = socket;
    for (const one of [...through, socket]) last = last.pipe(one);
    // A pipe does not tell the streams behind it that the one before is gone.
    socket.on('close', () => {
      for (const one of through) one.destroy();
    });
  }

  /** Plays the acts, and ends as the part says. */
  async plays(writable: Writable): Promise<void> {
    const isEchoing = this.#isEcho && this.#side === 'server';
    if (!isEchoing) this.#write(writable, HEADER_BYTES);
    for (const act of this.#part.acts) {
      this.#acting = act.join(' ');
      if (writable.destroyed) return;
      await this.#act(writable, act);
    }
    this.#acting = this.#part.last;
    this.#sample();
    if (isEchoing && this.#part.last === 'end') return; // the pipe ends
    if (writable.destroyed) return;
    if (this.#part.last === 'end') writable.end();
    // Node.js cannot reset while the other end is being told of the end: it emits EINVAL, and never 'close'.
    else if (this.#part.last === 'reset' && writable instanceof Socket && !writable.writableEnded)
      writable.resetAndDestroy();
    else writable.destroy();
  }

  async #act(writable: Writable, act: Act): Promise<void> {
    const socket = this.#socket;
    switch (act[0]) {
      case 'write':
        if (writable.writableLength > MAX_WAITING_BYTES) await this.#room(writable);
        this.#write(writable, act[1]);
        break;
      case 'wait':
        await sleep(act[1]);
        break;
      case 'drain':
        if (writable.writableNeedDrain) await this.#room(writable);
        break;
      case 'hold': {
        const readable = this.#readable;
        readable?.pause();
        setTimeout(() => readable?.resume(), act[1]);
        break;
      }
      case 'peerEnd':
        while (!this.#peerEnded && !this.#isOver && !writable.destroyed) await sleep(5);
        break;
      case 'restore':
        if (socket !== null) void this.#ends.isthmus?.restore(socket, { timeoutMs: DRAIN_MS });
        break;
      case 'accelerate':
        if (socket !== null) void this.#ends.isthmus?.accelerate(socket, { timeoutMs: DRAIN_MS });
        break;
      default:
        act satisfies never;
    }
  }

  #write(writable: Writable, length: number): void {
    if (!writable.writable || writable.destroyed) return;
    const bytes = streamBytes(this.id, this.#side, this.#written, length);
    this.#written += length;
    this.#note();
    writable.write(bytes);
  }

  /** Bounded: who does not read may be waiting for us. */
  async #room(writable: Writable): Promise<void> {
    let resolve = () => {};
    const room = new Promise<void>((done) => {
      resolve = done;
    });
    const timer = setTimeout(resolve, DRAIN_MS);
    writable.once('drain', resolve).once('close', resolve);
    await room;
    clearTimeout(timer);
    writable.off('drain', resolve).off('close', resolve);
  }

  #take(chunk: Buffer): void {
    const sender = this.#isEcho ? 'client' : otherSide(this.#side);
    const expected = streamBytes(this.id, sender, this.#received, chunk.length);
    if (!chunk.equals(expected)) this.#wrongAt ??= this.#received + chunk.findIndex((byte, i) => byte !== expected[i]);
    this.#received += chunk.length;
    if (this.#isEcho && this.#side === 'server') this.#written = this.#received;
    this.#ends.count(chunk.length);
    this.#note();
  }

  #note(): void {
    this.#entry.note(this.#written, this.#received);
  }

  #sample(): void {
    if (this.#socket === null || this.#moved) return;
    const bytes = this.#ends.isthmus?.info(this.#socket).bytes;
    this.#moved = bytes !== undefined && bytes.outShm + bytes.inShm > 0;
  }

  tick(): void {
    const seen = [this.#written, this.#received, this.#events.length, this.#acting].join();
    this.#idleTicks = seen === this.#lastSeen ? this.#idleTicks + 1 : 0;
    this.#lastSeen = seen;
    if (this.#idleTicks < STUCK_TICKS) return;
    this.#finish(this.describe());
    for (const one of this.#emitters) (one as Partial<Readable>).destroy?.();
  }

  describe(): unknown {
    const socket = this.#socket;
    return {
      id: this.id,
      side: this.#side,
      part: this.#part,
      acting: this.#acting,
      written: this.#written,
      received: this.#received,
      events: this.#events,
      idleTicks: this.#idleTicks,
      info: socket === null ? null : this.#ends.isthmus?.info(socket),
      socket: socket && {
        destroyed: socket.destroyed,
        readyState: socket.readyState,
        isPaused: socket.isPaused(),
        readableLength: socket.readableLength,
        writableLength: socket.writableLength,
        writableEnded: socket.writableEnded,
        writableFinished: socket.writableFinished,
      },
    };
  }

  #finish(stuck: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    tell({
      says: 'over',
      outcome: {
        id: this.id,
        side: this.#side,
        written: this.#written,
        received: this.#received,
        wrongAt: this.#wrongAt,
        events: this.#events,
        moved: this.#moved,
        startedAt: this.#startedAt,
        overAt: Date.now(),
        stuck,
        died: false,
      },
    });
    this.#entry.close();
    this.#ends.over(this);
    this.#released();
  }
}
