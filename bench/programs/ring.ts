/**
 * What the machine could do at best: two programs with a ring and no socket between them, each on a core of its own if there are two. Both
 * spin, none ever sleeps. And what one core copies that another one has written.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { on, once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { openHostDevice } from 'isthmus/devices/host';
import { type Client, parseGid, parseToken, Ring } from 'isthmus/ism';
import { cpuSecondsOf } from '../process-facts.ts';
import type { Sample, Window } from './control.ts';
import { type RoundTrips, Times } from './times.ts';

const PROGRAM = fileURLToPath(import.meta.url);
/** Not much more than the nearest caches hold. */
const MEMORY_BYTES = 256 << 10;
/** Then the event loop has a turn. */
const SPIN_US = 1000;

/** What the other end does. */
interface Work {
  readonly messageBytes: number;
  readonly answers: boolean;
}

// --- The ring ---

/** Nobody is signalled. */
const CLIENT: Client = { name: 'bench', addDevice() {}, removeDevice() {}, handleSignal() {}, handleEvent() {} };

/** A ring with the program at the other end of an IPC channel. */
async function meet(other: ChildProcess | NodeJS.Process): Promise<{ ring: Ring; close(): Promise<void> }> {
  const messages = on(other as ChildProcess, 'message');
  const told = async () => ((await messages.next()).value as [string])[0];
  const device = await openHostDevice();
  other.send?.(device.gid);
  const peer = parseGid(await told());
  if (!(await device.queryRemoteGid(peer))) throw new Error('the other end of the ring is not reached');
  const dmb = await device.registerDmb({ peer, lengthBytes: MEMORY_BYTES, client: CLIENT });
  other.send?.(String(dmb.token));
  const ring = new Ring(dmb, await device.attachDmb(parseToken(BigInt(await told()))));
  return { ring, close: () => device.close() };
}

async function answer({ messageBytes, answers }: Work): Promise<void> {
  process.on('disconnect', () => process.exit());
  const { ring } = await meet(process);
  const message = Buffer.alloc(messageBytes);
  for (;;) {
    // As long as something comes, the event loop has no turn: who has started us kills us.
    if (!ring.spinForBytes(SPIN_US)) await new Promise(setImmediate);
    else if (answers) pass(ring, message);
    else ring.read(message);
  }
}

function pass(ring: Ring, message: Buffer): void {
  take(ring, message);
  put(ring, message);
}

function put(ring: Ring, message: Buffer): void {
  for (let done = ring.write(message); done < message.length; done += ring.write(message, done)) {
    if (!ring.spinForRoom(MOST_US)) throw new Error('the other end of the ring takes nothing');
  }
}

function take(ring: Ring, into: Buffer): void {
  for (let done = ring.read(into); done < into.length; done += ring.read(into.subarray(done))) {
    if (!ring.spinForBytes(MOST_US)) throw new Error('the other end of the ring gives nothing');
  }
}

/** On a busy machine. */
const MOST_US = 5e6;

/** @param cpu where the other end runs; null = not pinned */
async function withOther<T>(
  work: Work,
  cpu: number | null,
  use: (ring: Ring, pids: readonly number[]) => T,
): Promise<T> {
  const node = [process.execPath, PROGRAM, JSON.stringify(work)];
  const [file, ...args] = cpu === null ? node : ['taskset', '-c', String(cpu), ...node];
  const child = spawn(file as string, args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const ended = once(child, 'exit');
  const lost = ended.then(() => {
    throw new Error('the other end has ended');
  });
  try {
    const { ring, close } = await Promise.race([meet(child), lost]);
    try {
      return use(ring, [process.pid, child.pid ?? -1]);
    } finally {
      await close();
    }
  } finally {
    lost.catch(() => {});
    child.kill('SIGKILL');
    await ended.catch(() => {});
  }
}

export function ringRoundTrips(
  messageBytes: number,
  cpu: number | null,
  { warmMs, windowMs }: Window,
): Promise<RoundTrips> {
  return withOther({ messageBytes, answers: true }, cpu, (ring, pids) => {
    const [request, reply] = [Buffer.alloc(messageBytes, 'c'), Buffer.alloc(messageBytes)];
    const pingPong = (forMs: number, times: Times) => {
      let now = performance.now();
      for (const end = now + forMs; now < end; ) {
        const sentAt = now;
        put(ring, request);
        take(ring, reply);
        now = performance.now();
        times.add((now - sentAt) * 1000);
      }
      return times;
    };
    pingPong(warmMs, new Times());
    const times = new Times();
    const cpuBefore = cpuSecondsOf(pids);
    pingPong(windowMs, times);
    return { ...times.latency(), cpuSeconds: cpuSecondsOf(pids) - cpuBefore };
  });
}

export function ringStream(messageBytes: number, cpu: number | null, { warmMs, windowMs }: Window): Promise<Sample> {
  return withOther({ messageBytes, answers: false }, cpu, (ring, pids) => {
    const message = Buffer.alloc(messageBytes, 'c');
    const run = (forMs: number): number => {
      let count = 0;
      for (const end = performance.now() + forMs; performance.now() < end; count += 16)
        for (let i = 0; i < 16; i++) put(ring, message);
      return count;
    };
    run(warmMs);
    const [cpuBefore, before] = [cpuSecondsOf(pids), performance.now()];
    const count = run(windowMs);
    const seconds = (performance.now() - before) / 1000;
    return { bytes: count * messageBytes, seconds, cpuSeconds: cpuSecondsOf(pids) - cpuBefore };
  });
}

// --- Copies ---

/** Whose turn it is, before the memory. */
const TURN_BYTES = 64;
const OURS = 0;
const ITS = 1;
const OVER = 2;

/** The other thread: writes all of the memory whenever it is its turn. */
function fill(shared: SharedArrayBuffer): void {
  const turn = new Int32Array(shared, 0, 1);
  const memory = new Uint8Array(shared, TURN_BYTES);
  for (let value = 0; ; value = (value + 1) & 0xff) {
    while (Atomics.load(turn, 0) === OURS);
    if (Atomics.load(turn, 0) === OVER) return;
    memory.fill(value);
    Atomics.store(turn, 0, OURS);
  }
}

/** Out of memory that another core has just written, in pieces of a message. Only the time of copying counts. */
export async function copies(messageBytes: number, { warmMs, windowMs }: Window): Promise<Sample> {
  const count = Math.max(1, Math.floor(MEMORY_BYTES / messageBytes));
  const shared = new SharedArrayBuffer(TURN_BYTES + count * messageBytes);
  const turn = new Int32Array(shared, 0, 1);
  const pieces = Array.from(
    { length: count },
    (_, i) => new Uint8Array(shared, TURN_BYTES + i * messageBytes, messageBytes),
  );
  const targets = pieces.map(({ length }) => new Uint8Array(length).fill(1));
  const worker = new Worker(PROGRAM, { workerData: shared });
  const ended = once(worker, 'exit');
  await once(worker, 'online');
  const run = (forMs: number) => {
    let [rounds, copyingMs] = [0, 0];
    for (const end = performance.now() + forMs; performance.now() < end; rounds++) {
      Atomics.store(turn, 0, ITS);
      while (Atomics.load(turn, 0) === ITS);
      const before = performance.now();
      for (let i = 0; i < count; i++) targets[i]?.set(pieces[i] as Uint8Array);
      copyingMs += performance.now() - before;
    }
    return { bytes: rounds * count * messageBytes, seconds: copyingMs / 1000, cpuSeconds: copyingMs / 1000 };
  };
  try {
    run(warmMs);
    return run(windowMs);
  } finally {
    Atomics.store(turn, 0, OVER);
    await ended;
  }
}

// --- The other end ---

if (!isMainThread) fill(workerData as SharedArrayBuffer);
else if (process.argv[1] === PROGRAM) await answer(JSON.parse(process.argv[2] ?? '') as Work);
