/** Challenges between real sockets, while programs read and write them: no byte of theirs may change. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, test } from 'node:test';
import { closeFd, peekUrgent, resetConnection, sendUrgent, tcpPair } from '../os/index.ts';
import { eventually } from '../testing/index.ts';
import { pattern, type SocketPair, socketPair } from '../testing/sockets/scene.ts';
import { Challenge, type UrgentEnd, type Verdict } from './challenge.ts';
import { challenge } from './challenge-sockets.ts';

const skip = process.platform !== 'linux';

const pairs: SocketPair[] = [];

async function connection(): Promise<SocketPair> {
  const pair = await socketPair();
  pairs.push(pair);
  return pair;
}

const fdOf = (socket: Socket) => (socket as unknown as { _handle: { fd: number } })._handle.fd;

/** Of the 250 ms that a challenge has. */
const STOPPED_MS = 100;

/** One that ran out of time while this process was stopped does not count. */
async function ask(one: Socket, other: Socket, rounds = 3): Promise<Verdict> {
  for (;;) {
    let [last, longestMs] = [performance.now(), 0];
    const look = () => {
      const now = performance.now();
      longestMs = Math.max(longestMs, now - last);
      last = now;
    };
    const looking = setInterval(look, 1);
    const { verdict } = await challenged(one, other, rounds);
    clearInterval(looking);
    look();
    if (verdict !== 'later' || longestMs < STOPPED_MS) return verdict;
  }
}

function challenged(one: Socket, other: Socket, rounds = 3): Promise<{ verdict: Verdict; hasSent: boolean }> {
  return new Promise((resolve) => {
    const pending = challenge(fdOf(one), fdOf(other), rounds, (verdict) => {
      resolve({ verdict, hasSent: pending.hasSent });
    });
  });
}

let ends: SocketPair;
beforeEach(async () => {
  ends = await connection();
});
afterEach(async () => {
  for (const pair of pairs.splice(0)) await pair.close();
});

/** Everything that comes, compared with what was sent. */
function compare(reader: Socket, sent: Buffer): { readonly isExact: boolean; readonly bytes: number } {
  let bytes = 0;
  let isExact = true;
  reader.on('data', (chunk: Buffer) => {
    isExact &&= chunk.equals(sent.subarray(bytes, bytes + chunk.length));
    bytes += chunk.length;
  });
  return {
    get isExact() {
      return isExact;
    },
    get bytes() {
      return bytes;
    },
  };
}

test('two ends of one connection are proven, again and again', { skip }, async () => {
  for (let i = 0; i < 200; i++) assert.equal(await ask(ends.client, ends.server, 8), 'proven');
});

test('ends of two connections are refuted', { skip }, async () => {
  const others = await connection();
  assert.equal(await ask(ends.client, others.server), 'refuted');
  assert.equal(await ask(others.client, others.server), 'proven', 'and that harms nothing');
});

for (const [what, bytes, isFound] of [
  ['as many bytes as their own have passed', 50_000, false],
  ['more bytes have passed', 50_002, true],
] as const)
  test(`a stranger of whom ${what} is found out ${isFound ? 'before' : 'after'} one urgent byte, and the stream of a slow reader stays as it is`, {
    skip,
  }, async () => {
    const others = await connection();
    const sent = pattern(60_000);
    for (const { server } of [ends, others]) server.pause();
    ends.client.write(sent.subarray(0, 50_000));
    others.client.write(pattern(bytes));
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(await challenged(ends.client, others.server), { verdict: 'refuted', hasSent: !isFound });
    for (let times = 0; times < 5; times++)
      assert.deepEqual(await challenged(ends.client, others.server), { verdict: 'refuted', hasSent: false });
    ends.client.write(sent.subarray(50_000));
    const got = compare(ends.server, sent);
    ends.server.resume();
    while (got.bytes < sent.length) await new Promise(setImmediate);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual([got.isExact, got.bytes], [true, sent.length]);
  });

test('bytes of the programs stay as they are: a quick reader', { skip }, async () => {
  const sent = pattern(3_000_000);
  const got = compare(ends.server, sent);
  let at = 0;
  const verdicts = new Map<Verdict, number>();
  while (at < sent.length) {
    const length = 1 + ((at * 7) % 9000);
    ends.client.write(sent.subarray(at, at + length));
    at += length;
    const verdict = await ask(ends.client, ends.server);
    verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
  }
  while (got.bytes < sent.length) await new Promise(setImmediate);
  assert.ok(got.isExact);
  assert.ok((verdicts.get('proven') ?? 0) > 0);
  assert.equal(verdicts.get('refuted') ?? 0, 0);
});

test('bytes of the programs stay as they are: a slow reader', { skip }, async () => {
  const sent = pattern(4_000_000);
  const got = compare(ends.server, sent);
  const slow = setInterval(() => {
    ends.server.resume();
    setImmediate(() => ends.server.pause());
  }, 20);
  let at = 0;
  for (; at < sent.length && slow; at += 100_000) {
    ends.client.write(sent.subarray(at, at + 100_000));
    await ask(ends.client, ends.server);
  }
  clearInterval(slow);
  ends.server.resume();
  while (got.bytes < sent.length) await new Promise(setImmediate);
  assert.ok(got.isExact);
});

test('a reader that is stopped, with its window closed, is not asked, and loses nothing', { skip }, async () => {
  const sent = pattern(8_000_000);
  ends.server.pause();
  ends.client.write(sent);
  await new Promise((resolve) => setTimeout(resolve, 100));
  for (let i = 0; i < 3; i++) assert.equal(await ask(ends.client, ends.server), 'later');
  const got = compare(ends.server, sent);
  ends.server.resume();
  while (got.bytes < sent.length) await new Promise(setImmediate);
  assert.ok(got.isExact);
  assert.equal(await ask(ends.client, ends.server), 'proven', 'once it reads again');
});

test('a byte that an earlier challenger left under way is waited for', { skip }, async () => {
  const sent = pattern(100_000);
  ends.server.pause();
  ends.client.write(sent);
  assert.ok(sendUrgent(fdOf(ends.client), 0x55));
  assert.equal(await ask(ends.client, ends.server), 'later', 'it stands before the reader');
  const got = compare(ends.server, sent);
  ends.server.resume();
  while (got.bytes < sent.length) await new Promise(setImmediate);
  assert.equal(await ask(ends.client, ends.server), 'proven');
  assert.deepEqual([got.isExact, got.bytes], [true, sent.length]);
});

test('a connection that has ended is refuted', { skip }, async () => {
  const [one, other] = tcpPair();
  resetConnection(other);
  const verdict = await new Promise<Verdict>((resolve) => challenge(one, other, 3, resolve));
  for (const fd of [one, other]) closeFd(fd);
  assert.equal(verdict, 'refuted');
});

test('the urgent byte stands outside the stream', { skip }, async () => {
  const got = compare(ends.server, Buffer.from('ab'));
  ends.client.write('a');
  while (got.bytes < 1) await new Promise(setImmediate);
  assert.equal(peekUrgent(fdOf(ends.server)), 'none');
  assert.ok(sendUrgent(fdOf(ends.client), 0x7a));
  await eventually('the byte is there', () => peekUrgent(fdOf(ends.server)) === 0x7a);
  ends.client.write('b');
  while (got.bytes < 2) await new Promise(setImmediate);
  assert.ok(got.isExact);
});

/** An end whose counters always fit. @param lost so many bytes pass it unseen @param syn 1: it is the client */
function smoothEnd(lost: number, syn = 0): UrgentEnd & { sent: number[]; peer: { sent: number[] } | null } {
  return {
    sent: [],
    peer: null,
    send(byte) {
      this.sent.push(byte);
      return true;
    },
    peek() {
      const { sent } = this.peer ?? { sent: [] };
      return sent.length > lost ? (sent.at(-1) as number) : 'none';
    },
    isAtMark: () => true,
    given() {
      return this.sent.length + syn;
    },
    acknowledged() {
      return this.sent.length + syn;
    },
    received() {
      return this.peer?.sent.length ?? 0;
    },
  };
}

test('a stranger whose counters fit gets one byte, and so does its victim', () => {
  const [one, other] = [smoothEnd(Number.POSITIVE_INFINITY, 1), smoothEnd(Number.POSITIVE_INFINITY)];
  assert.equal(verdictOf(one, other), 'unseen');
  assert.deepEqual([one.sent.length, other.sent.length], [1, 1]);
});

test('bytes that pass unseen in one direction are sent again once one was seen in the other', () => {
  const [one, other] = [smoothEnd(0, 1), smoothEnd(5)];
  assert.equal(verdictOf(one, other), 'proven');
  assert.deepEqual([one.sent.length, other.sent.length], [8, 3]);
});

test('a byte that waits holds back the next one, though the counters did not stand still when it was sent', () => {
  const [one, other] = [smoothEnd(0, 1), smoothEnd(0)];
  let isMoving = false;
  Object.assign(one, {
    send: (byte: number) => {
      isMoving = true;
      return one.sent.push(byte) > 0;
    },
    given: () => {
      if (isMoving) {
        isMoving = false;
        throw new Error('EAGAIN');
      }
      return one.sent.length + 1;
    },
    acknowledged: () => 1,
  });
  Object.assign(other, { peek: () => 'none', received: () => 0, send: () => false });
  const run = meet(one, other);
  assert.throws(() => run.step());
  for (let i = 0; i < 3; i++) assert.equal(run.step(), null);
  assert.deepEqual([one.sent.length, run.hasSent], [1, true]);
});

function meet(one: ReturnType<typeof smoothEnd>, other: ReturnType<typeof smoothEnd>): Challenge {
  [one.peer, other.peer] = [other, one];
  let byte = 0;
  return new Challenge(one, other, 3, () => byte++ & 0xff);
}

function verdictOf(one: ReturnType<typeof smoothEnd>, other: ReturnType<typeof smoothEnd>): string | null {
  const run = meet(one, other);
  let verdict: string | null = null;
  for (let i = 0; i < 10 && verdict === null; i++) verdict = run.step();
  return verdict;
}
