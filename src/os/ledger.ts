/**
 * What a worker thread holds of the process: descriptors and mappings do not go away when a thread is terminated. Each worker keeps a
 * ledger in memory that its parent can read, and gives it to the parent by a BroadcastChannel; when the worker has ended, the parent
 * closes and unmaps what still stands there.
 */
import { BroadcastChannel, isMainThread, threadId, type Worker } from 'node:worker_threads';

const CHANNEL = 'isthmus.ledger.1';
const REPEAT_MS = 2000;
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
}

let own: BigInt64Array | null = null;
const slots = new Map<string, number>();
let next = 0;

/** Worker threads: begins the ledger and gives it to the parent. Main thread: does nothing, the process takes all with it. */
export function openLedger(): void {
  if (isMainThread || own !== null) return;
  const ledger = new SharedArrayBuffer(8 * WORDS * CAPACITY);
  own = new BigInt64Array(ledger);
  const posted: Posted = { threadId, ledger };
  const channel = new BroadcastChannel(CHANNEL);
  channel.unref();
  channel.postMessage(posted);
  // Once more, for a parent that was too busy to listen.
  const again = setTimeout(() => {
    channel.postMessage(posted);
    channel.close();
  }, REPEAT_MS);
  again.unref();
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

let channel: BroadcastChannel | undefined;
const ledgers = new Map<number, BigInt64Array>();

/** A worker was made by this thread: calls back with what it leaves behind, once it has ended. */
export function watchWorker(worker: Worker, left: (remains: Remains) => void): void {
  if (channel === undefined) {
    channel = new BroadcastChannel(CHANNEL);
    channel.onmessage = (event) => {
      const { threadId: thread, ledger } = (event as { data: Posted }).data;
      ledgers.set(thread, new BigInt64Array(ledger));
    };
    channel.unref();
  }
  const { threadId: thread } = worker;
  worker.once('exit', () => {
    const ledger = ledgers.get(thread);
    ledgers.delete(thread);
    if (ledger !== undefined) left(remainsOf(ledger));
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
