/**
 * What a worker thread holds of the process: descriptors and mappings do not go away when a thread is terminated. Each worker keeps a
 * ledger in memory that its parent can read, and gives it to the parent by a BroadcastChannel; when the worker has ended, the parent
 * closes and unmaps what still stands there. With the ledger goes the gate by which the parent terminates it (termination.ts).
 */
import { BroadcastChannel, isMainThread, threadId, Worker } from 'node:worker_threads';
import { GATE_WORDS, openGate, waitToTerminate } from './termination.ts';

const CHANNEL = 'isthmus.ledger.2';
/** A parent that knows nothing of ledgers, or is so busy, is not waited for any longer. */
const LONGEST_MS = 500;
/** Entries; what does not fit is leaked if the thread is terminated. */
const CAPACITY = 8192;
/** An entry: kind, value, length. */
const WORDS = 3;
const FREE = 0n;
const DESCRIPTOR = 1n;
const MAPPING = 2n;

interface Posted {
  readonly threadId: number;
  readonly ledger: SharedArrayBuffer;
  /** The words of the gate, and one that the parent sets when it has all this. */
  readonly gate: SharedArrayBuffer;
}
const KNOWN = GATE_WORDS;

let own: BigInt64Array | null = null;
const slots = new Map<string, number>();
let next = 0;

/**
 * Worker threads: begins the ledger, gives it to the parent, and resolves when the parent has it. Main thread: does nothing, the
 * process takes all with it.
 */
export async function openLedger(): Promise<void> {
  if (isMainThread || own !== null) return;
  const ledger = new SharedArrayBuffer(8 * WORDS * CAPACITY);
  own = new BigInt64Array(ledger);
  const gate = new Int32Array(new SharedArrayBuffer(4 * (GATE_WORDS + 1)));
  openGate(gate);
  const posted: Posted = { threadId, ledger, gate: gate.buffer as SharedArrayBuffer };
  const channel = new BroadcastChannel(CHANNEL);
  channel.unref();
  channel.postMessage(posted);
  await Atomics.waitAsync(gate, KNOWN, 0, LONGEST_MS).value;
  channel.close();
}

function note(kind: bigint, value: bigint, length: bigint): void {
  if (own === null) return;
  for (let tries = 0; tries < CAPACITY; tries++) {
    const slot = next;
    next = (next + 1) % CAPACITY;
    if (own[slot * WORDS] !== FREE) continue;
    own[slot * WORDS + 1] = value;
    own[slot * WORDS + 2] = length;
    own[slot * WORDS] = kind;
    slots.set(`${kind} ${value}`, slot);
    return;
  }
}

function strike(kind: bigint, value: bigint): void {
  if (own === null) return;
  const key = `${kind} ${value}`;
  const slot = slots.get(key);
  if (slot === undefined) return;
  slots.delete(key);
  own[slot * WORDS] = FREE;
}

export function noteFd(fd: number): void {
  note(DESCRIPTOR, BigInt(fd), 0n);
}
/** Closed, or in the care of a handle of Node.js, which closes it with the thread. */
export function strikeFd(fd: number): void {
  strike(DESCRIPTOR, BigInt(fd));
}
export function noteMapping(address: bigint, lengthBytes: number): void {
  note(MAPPING, BigInt.asIntN(64, address), BigInt(lengthBytes));
}
export function strikeMapping(address: bigint): void {
  strike(MAPPING, BigInt.asIntN(64, address));
}

export interface Remains {
  readonly fds: readonly number[];
  readonly mappings: readonly { readonly address: bigint; readonly lengthBytes: number }[];
}

/** What this thread's workers have given it. */
const children = new Map<number, Posted | null>();

/** A worker was made by this thread: calls back with what it leaves behind, once it has ended. */
export function watchWorker(worker: Worker, left: (remains: Remains) => void): void {
  if (!isWatching) {
    isWatching = true;
    watchThreads();
  }
  const { threadId: thread } = worker;
  children.set(thread, null);
  worker.once('exit', () => {
    const ledger = children.get(thread)?.ledger;
    children.delete(thread);
    if (ledger !== undefined) left(remainsOf(new BigInt64Array(ledger)));
  });
}
let isWatching = false;

function watchThreads(): void {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = (event) => {
    const posted = (event as { data: Posted }).data;
    if (!children.has(posted.threadId)) return; // it heard a thread of another thread
    children.set(posted.threadId, posted);
    const gate = new Int32Array(posted.gate);
    Atomics.store(gate, KNOWN, 1);
    Atomics.notify(gate, KNOWN);
  };
  channel.unref();
  const prepare = (thread: number) => {
    const gate = children.get(thread)?.gate;
    if (gate !== undefined) waitToTerminate(new Int32Array(gate));
  };
  const { terminate } = Worker.prototype;
  Worker.prototype.terminate = function (...args) {
    prepare(this.threadId);
    return Reflect.apply(terminate, this, args);
  };
  // The process terminates those that are left.
  process.on('exit', () => {
    for (const thread of children.keys()) prepare(thread);
  });
}

function remainsOf(ledger: BigInt64Array): Remains {
  const fds: number[] = [];
  const mappings: { address: bigint; lengthBytes: number }[] = [];
  for (let at = 0; at < ledger.length; at += WORDS) {
    const [kind, value = 0n, length = 0n] = ledger.subarray(at, at + WORDS);
    if (kind === DESCRIPTOR) fds.push(Number(value));
    else if (kind === MAPPING) mappings.push({ address: value, lengthBytes: Number(length) });
  }
  return { fds, mappings };
}
