/** What two kernels wrote into each other's DMB, against what the engine would have written, message by message. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Closing, closed, happened, type Next, OPENING, peerSaid } from '../closing.ts';
import { type Cdc, consume, openCdc, type Piece, raise, readable, receive, type Said, send, unread } from './engine.ts';
import { type ByteOrder, CDC_BYTES, CDC_FLAG, type CdcMessage, decodeCdc, describeCdc, encodeCdc } from './message.ts';

const VECTORS = join(process.cwd(), 'test/vectors/cdc');

type Side = 'client' | 'server';
interface Move {
  readonly offset: number;
  readonly signal: boolean;
  readonly length: number;
  readonly bytes: string;
}
type Step = { readonly by: Side; readonly state?: string } & (
  | { readonly does: 'write'; readonly length: number; readonly data: 'a' | 'A-Z' | '!'; readonly urgent?: true }
  | { readonly does: 'read'; readonly length: number }
  | { readonly does: 'shutdown' | 'close' }
  | Move
  | { readonly command: string }
  | { readonly state: string }
);
interface Trace {
  readonly order: ByteOrder;
  readonly dmbBytes: number;
  readonly steps: readonly Step[];
}

interface Written {
  readonly pieces: readonly Piece[];
  readonly message: CdcMessage;
}

/** One end: what it knows, and what it has written that the trace has not shown yet. */
class End {
  cdc: Cdc;
  closing: Closing = happened(OPENING, 'established').closing;
  readonly written: Written[] = [];
  /** The ring of the peer, as we have filled it. */
  readonly ring: Buffer;
  #waiting = Buffer.alloc(0);

  constructor(ringBytes: number) {
    this.cdc = openCdc(ringBytes, ringBytes);
    this.ring = Buffer.alloc(ringBytes);
  }

  say({ cdc, message }: Said, pieces: readonly Piece[] = []): void {
    this.cdc = cdc;
    if (message !== null) this.written.push({ pieces, message });
  }

  write(bytes: Buffer): void {
    this.#waiting = Buffer.concat([this.#waiting, bytes]);
    const said = send(this.cdc, this.#waiting.length);
    for (const { offset, length } of said.pieces) {
      this.ring.set(this.#waiting.subarray(0, length), offset);
      this.#waiting = this.#waiting.subarray(length);
    }
    this.say(said, said.pieces);
  }

  receive(message: CdcMessage): void {
    this.say(receive(this.cdc, message));
    this.closing = peerSaid(this.closing, this.cdc.peerFlags);
    this.write(Buffer.alloc(0)); // what waits
  }

  read(length: number): void {
    assert.ok(length <= readable(this.cdc));
    this.say(consume(this.cdc, length));
  }

  goOn({ closing, raise: flags }: Next): void {
    this.closing = closing;
    if (flags !== 0) this.say(raise(this.cdc, flags));
  }
}

function bytesOf(data: 'a' | 'A-Z' | '!', length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => (data === 'A-Z' ? 0x41 + (i % 26) : data.charCodeAt(0))));
}

/** Moves that follow each other in the DMB are one: the device cuts them at its pages, Linux at the end of its send buffer. */
function joined(moves: readonly Move[]): Piece[] {
  const all: Piece[] = [];
  for (const { offset, length } of moves) {
    const last = all.at(-1);
    if (last !== undefined && last.offset + last.length === offset - CDC_BYTES) {
      all[all.length - 1] = { ...last, length: last.length + length };
    } else {
      all.push({ offset: offset - CDC_BYTES, length });
    }
  }
  return all;
}

for (const file of readdirSync(VECTORS).filter((name) => name.endsWith('.json'))) {
  test(`two kernels and the engine write the same: ${file.replace('.json', '')}`, () => {
    const { order, dmbBytes, steps } = JSON.parse(readFileSync(join(VECTORS, file), 'utf8')) as Trace;
    const ends = { client: new End(dmbBytes - CDC_BYTES), server: new End(dmbBytes - CDC_BYTES) };
    let moves: Move[] = [];
    let compared = 0;
    for (const step of steps) {
      const end = ends[step.by];
      if ('does' in step) {
        switch (step.does) {
          case 'write':
            end.write(bytesOf(step.data, step.length));
            if (step.urgent) {
              // The engine never sends urgent data; apart from the flags it is data as any other.
              const { pieces, message } = end.written.pop() as Written;
              const flags = message.flags | CDC_FLAG.URGENT_PENDING | CDC_FLAG.URGENT_PRESENT;
              end.written.push({ pieces, message: { ...message, flags } });
            }
            break;
          case 'read':
            end.read(step.length);
            break;
          case 'shutdown':
            end.goOn(happened(end.closing, 'shutdownWrite'));
            break;
          case 'close':
            end.goOn(closed(end.closing, unread(end.cdc) > 0));
            break;
        }
      } else if ('offset' in step && step.offset > 0) {
        const shown = Buffer.from(step.bytes, 'hex');
        const at = step.offset - CDC_BYTES;
        assert.deepEqual(shown, end.ring.subarray(at, at + shown.length));
        assert.equal(step.signal, false);
        moves.push(step);
      } else if ('offset' in step) {
        const message = decodeCdc(Buffer.from(step.bytes, 'hex'), order);
        const own = end.written.shift();
        assert.ok(own, `${step.by} would not have sent ${describeCdc(message)}`);
        assert.equal(describeCdc(own.message), describeCdc(message));
        assert.equal(encodeCdc(own.message, order).toString('hex'), step.bytes);
        assert.deepEqual(own.pieces, joined(moves));
        assert.deepEqual([step.length, step.signal], [CDC_BYTES, true]);
        moves = [];
        compared++;
        ends[step.by === 'client' ? 'server' : 'client'].receive(message);
      }
      if (step.state !== undefined) assert.equal(end.closing.state, step.state, `state of the ${step.by}`);
    }
    for (const [name, { written }] of Object.entries(ends)) {
      assert.deepEqual(written, [], `sent by the engine's ${name} alone`);
    }
    assert.equal(compared, steps.filter((step) => 'offset' in step && step.offset === 0).length);
    assert.ok(compared > 2);
  });
}
