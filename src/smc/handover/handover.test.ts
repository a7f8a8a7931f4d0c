import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Dmb, RemoteDmb } from '../../ism/index.ts';
import { HEAD_BYTES } from '../head.ts';
import { Inbound } from '../inbound.ts';
import { Outbound } from '../outbound.ts';
import { Words } from '../words.ts';
import { RECEIVER } from './receiver.ts';
import { SENDER } from './sender.ts';

type AnyRow = { readonly next: string; readonly why: string } | { readonly impossible: string };

for (const [name, machine] of Object.entries({ SENDER, RECEIVER })) {
  const table = machine as Record<string, Record<string, AnyRow>>;
  test(`${name}: every state has a row for every event and every next state is one`, () => {
    const states = Object.keys(table);
    const events = new Set(Object.values(table).flatMap((rows) => Object.keys(rows)));
    for (const [state, rows] of Object.entries(table)) {
      assert.deepEqual(new Set(Object.keys(rows)), events, `rows of ${state}`);
      for (const row of Object.values(rows)) {
        assert.ok('impossible' in row ? row.impossible.length > 0 : states.includes(row.next) && row.why.length > 0);
      }
    }
  });
  test(`${name}: every state can be reached, and from every state the end`, () => {
    const targets = (state: string): string[] =>
      Object.values(table[state as keyof typeof table] as Record<string, { next?: string }>).flatMap(
        (row) => row.next ?? [],
      );
    const reach = (from: string): Set<string> => {
      const seen = new Set([from]);
      for (const state of seen) for (const next of targets(state)) seen.add(next);
      return seen;
    };
    assert.deepEqual(reach('TCP'), new Set(Object.keys(table)));
    for (const state of Object.keys(table))
      assert.ok(
        ['CLOSED', 'REST'].some((end) => reach(state).has(end)),
        state,
      );
  });
}

// Two connections joined by memory whose stores become visible late (in order) and by TCP, which carries bytes in order and
// never overtakes the stores made before it.

const RING_BYTES = 24;
const DMB_BYTES = HEAD_BYTES + RING_BYTES;

/** Memory of one end as the other one writes it: stores wait until they are let through. */
class LateMemory {
  readonly words = new Int32Array(DMB_BYTES / 4);
  readonly bytes = Buffer.from(this.words.buffer);
  readonly #stores: (() => void)[] = [];
  #made = 0;
  #visible = 0;
  signalled = false;

  get made(): number {
    return this.#made;
  }
  get pending(): number {
    return this.#made - this.#visible;
  }
  store(apply: () => void): void {
    this.#stores.push(apply);
    this.#made++;
  }
  showUpTo(count: number): void {
    for (; this.#visible < count; this.#visible++) this.#stores.shift()?.();
  }

  readonly owner = { generation: 1, lengthBytes: DMB_BYTES, bytes: this.bytes, words: this.words } as unknown as Dmb;
  readonly writer = {
    generation: 1,
    lengthBytes: DMB_BYTES,
    move: (offset: number, data: Uint8Array) => {
      const copy = Buffer.from(data);
      this.store(() => this.bytes.set(copy, offset));
    },
    storeWord: (offset: number, value: number) => this.store(() => void Atomics.store(this.words, offset / 4, value)),
    signal: () => this.store(() => (this.signalled = true)),
  } as unknown as RemoteDmb;
}

interface Segment {
  readonly bytes: Buffer;
  /** Stores that were made before it was sent. */
  readonly after: number;
  readonly end?: boolean;
}

/** What the shell around a connection does, without sockets. */
class End {
  readonly words: Words;
  readonly out: Outbound;
  readonly in: Inbound;
  readonly #salt: number;
  readonly #peerSalt: number;
  readonly #peerMemory: LateMemory;
  /** To the peer. */
  readonly tcp: Segment[] = [];
  written = 0;
  cuts = 0;
  received = 0;
  #tcpWritten = 0;
  #pending: Buffer | null = null;
  ended = false;
  tcpEnded = false;
  dead = false;

  constructor(own: LateMemory, peerMemory: LateMemory, salt: number, peerSalt: number) {
    this.#peerMemory = peerMemory;
    this.#salt = salt;
    this.#peerSalt = peerSalt;
    this.words = new Words(own.owner, peerMemory.writer);
    this.out = new Outbound(peerMemory.writer, this.words);
    this.in = new Inbound(own.owner, this.words, 0);
  }

  get blocked(): boolean {
    return this.#pending !== null;
  }

  write(length: number): void {
    if (this.ended || this.#pending !== null) return;
    const chunk = Buffer.from(Array.from({ length }, (_, i) => byteAt(this.written + i, this.#salt)));
    this.written += length;
    this.#send(chunk);
  }

  #send(chunk: Buffer): void {
    if (this.out.isMoved) {
      const taken = this.out.write(chunk);
      this.#pending = taken < chunk.length ? chunk.subarray(taken) : null;
    } else {
      this.#sendTcp(chunk);
      this.#pending = null;
    }
  }

  #sendTcp(bytes: Buffer): void {
    this.#tcpWritten += bytes.length;
    this.tcp.push({ bytes, after: this.#peerMemory.made });
  }

  /** After anything that may have changed the way out or made room. */
  settle(): void {
    if (this.#pending !== null) this.#send(this.#pending);
  }

  look(): void {
    if (!this.words.isValid) return;
    if (this.words.takeNews()) {
      this.out.look();
      this.in.look();
    } else {
      this.out.lookAtRing();
      this.in.lookAtRing();
    }
    this.settle();
  }
  cut(): void {
    if (!this.out.mayCut) return;
    this.out.cut(this.#tcpWritten);
    this.cuts++;
  }
  back(): void {
    this.out.back();
    this.settle();
  }
  end(): void {
    if (this.ended || this.#pending !== null) return;
    this.ended = true;
    this.out.end();
    this.tcp.push({ bytes: Buffer.alloc(0), after: this.#peerMemory.made, end: true });
  }
  /** Killed: the kernel sends the FIN. */
  die(): void {
    if (this.dead) return;
    this.dead = true;
    if (!this.ended) this.tcp.push({ bytes: Buffer.alloc(0), after: this.#peerMemory.made, end: true });
  }
  /** What is really lost with a process: bytes that were in neither TCP nor ring. */
  get sent(): number {
    return this.written - (this.#pending?.length ?? 0);
  }

  receive(segment: Segment): void {
    if (segment.end) {
      this.tcpEnded = true;
      this.in.tcpEnd();
    } else {
      const now = this.in.tcpBytes(segment.bytes);
      if (now !== null) this.#deliver(now);
    }
  }
  take(max: number): void {
    const bytes = this.in.take(max);
    this.in.taken();
    if (bytes !== null) this.#deliver(bytes);
  }
  #deliver(bytes: Buffer): void {
    for (const byte of bytes) assert.equal(byte, byteAt(this.received++, this.#peerSalt), `byte ${this.received - 1}`);
  }
}

function byteAt(position: number, salt: number): number {
  return (position * 7 + (position >> 8) + salt) & 0xff;
}

type Decision = readonly [side: number, action: number, size: number];

function run(decisions: readonly Decision[], mayDie: boolean): { left: End; right: End } {
  const [leftMemory, rightMemory] = [new LateMemory(), new LateMemory()];
  const left = new End(leftMemory, rightMemory, 1, 101);
  const right = new End(rightMemory, leftMemory, 101, 1);
  const sides = [
    { self: left, peer: right, memory: leftMemory },
    { self: right, peer: left, memory: rightMemory },
  ] as const;

  const deliverTcp = ({ self, peer, memory }: (typeof sides)[number], size: number): void => {
    const segment = peer.tcp.shift();
    if (segment === undefined || self.dead) return;
    memory.showUpTo(segment.after);
    const { bytes } = segment;
    const next = peer.tcp[0];
    if (size % 3 === 0 && bytes.length > 1) {
      // Read in two pieces.
      const half = 1 + (size % (bytes.length - 1));
      self.receive({ ...segment, bytes: bytes.subarray(0, half) });
      peer.tcp.unshift({ ...segment, bytes: bytes.subarray(half) });
    } else if (size % 3 === 1 && next !== undefined && !next.end && !segment.end) {
      // Read together with what follows.
      peer.tcp.shift();
      memory.showUpTo(next.after);
      self.receive({ bytes: Buffer.concat([bytes, next.bytes]), after: next.after });
    } else {
      self.receive(segment);
    }
  };

  for (const [s, action, size] of decisions) {
    const side = sides[s % 2 === 0 ? 0 : 1];
    const { self, memory } = side;
    if (self.dead) continue;
    switch (action % 13) {
      case 0:
      case 1:
        self.write(1 + (size % 40));
        break;
      case 2:
      case 3:
        deliverTcp(side, size);
        break;
      case 4:
        memory.showUpTo(size % 2 === 0 ? memory.made : memory.made - memory.pending + (size % (memory.pending + 1)));
        break;
      case 5:
        self.look();
        break;
      case 6:
        self.in.arm();
        break;
      case 7:
        self.cut();
        break;
      case 8:
        self.look();
        self.cut();
        break;
      case 9:
        self.take(1 + (size % 30));
        break;
      case 10:
        self.in.retract();
        break;
      case 11:
        if (size % 2 === 0) self.back();
        break;
      case 12:
        if (size % 16 === 0) self.end();
        else if (mayDie && size % 16 === 1) self.die();
        break;
    }
  }
  // Now everything runs on, fairly, until nothing moves. From here on an end looks only when it was signalled.
  for (const side of sides) if (!side.self.dead) side.self.look();
  for (let idle = 0; idle < 4; ) {
    const before = progress(sides);
    for (const side of sides) {
      if (side.self.dead) continue;
      side.memory.showUpTo(side.memory.made);
      if (side.memory.signalled) {
        side.memory.signalled = false;
        side.self.look();
      }
      if (!side.self.blocked) side.self.end();
      if (side.self.in.canTake) side.self.take(1000);
      else deliverTcp(side, 2);
    }
    idle = progress(sides) === before ? idle + 1 : 0;
  }
  return { left, right };
}

function progress(sides: readonly { self: End; memory: LateMemory }[]): string {
  return JSON.stringify(
    sides.map(({ self, memory }) => [
      self.received,
      self.tcp.length,
      memory.made,
      self.in.state,
      self.out.state,
      self.ended,
    ]),
  );
}

const decisions = fc.array(fc.tuple(fc.nat(1), fc.nat(12), fc.nat(255)), {
  minLength: 20,
  maxLength: 800,
  size: 'max',
});

test('two ends under random schedules: every byte once, in order, and both end', () => {
  fc.assert(
    fc.property(decisions, (list) => {
      const { left, right } = run(list, false);
      assert.equal(left.received, right.written);
      assert.equal(right.received, left.written);
      for (const end of [left, right]) {
        assert.ok(end.tcpEnded && end.ended, 'no state without an end');
        assert.ok(['CLOSED', 'REST'].includes(end.in.state), end.in.state);
        assert.equal(end.out.state, 'CLOSED');
        end.out.lookAtRing();
        assert.equal(end.out.unconsumed, 0, 'what was taken is said');
      }
    }),
    { numRuns: 3000 },
  );
});

test('an end may die at any step: the other one gets all that had left it, then the end', () => {
  fc.assert(
    fc.property(decisions, (list) => {
      const { left, right } = run(list, true);
      for (const [end, peer] of [
        [left, right],
        [right, left],
      ] as const) {
        if (end.dead) continue;
        assert.equal(end.received, peer.sent);
        assert.ok(end.tcpEnded);
      }
    }),
    { numRuns: 3000 },
  );
});

test('a receiver that wants its promise back gets it, whether the sender has cut or not', () => {
  for (const cut of [false, true]) {
    const [leftMemory, rightMemory] = [new LateMemory(), new LateMemory()];
    const left = new End(leftMemory, rightMemory, 1, 101);
    const right = new End(rightMemory, leftMemory, 101, 1);
    const show = () => {
      leftMemory.showUpTo(leftMemory.made);
      rightMemory.showUpTo(rightMemory.made);
      left.look();
      right.look();
    };
    for (let epoch = 0; epoch < 3; epoch++) {
      right.in.arm();
      show();
      if (cut) left.cut();
      left.write(10);
      right.in.retract();
      show();
      show();
      right.take(100);
      while (left.tcp.length > 0) right.receive(left.tcp.shift() as Segment);
      assert.equal(right.in.state, 'TCP');
      assert.equal(left.out.state, 'TCP');
    }
    assert.equal(right.received, 30);
    assert.equal(left.out.ringTotal, cut ? 30 : 0);
  }
});

test('the schedules do what they are for', () => {
  const seen = new Set<string>();
  const wrap = (list: readonly Decision[]) => {
    const { left, right } = run(list, false);
    for (const end of [left, right]) {
      seen.add(end.out.ringTotal > RING_BYTES ? 'ring wrapped' : end.out.ringTotal > 0 ? 'ring used' : 'TCP only');
      if (end.cuts > 1) seen.add('back and forth');
    }
  };
  for (const list of fc.sample(decisions, { numRuns: 300, seed: 1 })) wrap(list);
  assert.deepEqual(seen, new Set(['ring wrapped', 'ring used', 'TCP only', 'back and forth']));
});
