/**
 * What the machine could do at best: two threads, each on a core of its own if there are two, with shared memory and nothing else
 * between them. Both spin, none ever sleeps or sees an event loop. And what one thread copies.
 */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { cpuSecondsOf } from '../process-facts.ts';
import type { Sample, Window } from './control.ts';
import { type RoundTrips, Times } from './times.ts';

/**
 * A ring of messages of one length. Each word stands in a cache line of its own:
 *
 *     index of int32 | word     | written by
 *     0              | PRODUCED | the producer: how many messages; fewer than 2^31 in any window
 *     16             | CONSUMED | the consumer
 *     32             | STOP     | the main thread
 */
class Ring {
  static readonly #HEAD_BYTES = 256;
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #slots: Uint8Array[];
  readonly #own: Uint8Array;
  #count = 0;

  /** @param memory of the ring that the other thread has made */
  constructor(messageBytes: number, memory?: SharedArrayBuffer) {
    const slots = Ring.slotsOf(messageBytes);
    this.memory = memory ?? new SharedArrayBuffer(Ring.#HEAD_BYTES + slots * messageBytes);
    this.#words = new Int32Array(this.memory, 0, Ring.#HEAD_BYTES / 4);
    const slot = (i: number) => new Uint8Array(this.memory, Ring.#HEAD_BYTES + i * messageBytes, messageBytes);
    this.#slots = Array.from({ length: slots }, (_, i) => slot(i));
    this.#own = new Uint8Array(messageBytes).fill(1);
  }

  /** Not much more than the nearest caches hold. */
  static slotsOf(messageBytes: number): number {
    return Math.max(4, (256 << 10) / messageBytes);
  }

  get isStopped(): boolean {
    return Atomics.load(this.#words, 32) !== 0;
  }

  stop(): void {
    Atomics.store(this.#words, 32, 1);
  }

  /** Waits for room. False: it was stopped instead. */
  put(): boolean {
    while (this.#count - Atomics.load(this.#words, 16) === this.#slots.length) if (this.isStopped) return false;
    this.#slots[this.#count % this.#slots.length]?.set(this.#own);
    Atomics.store(this.#words, 0, ++this.#count);
    return true;
  }

  /** Waits for a message. False: it was stopped instead. */
  take(): boolean {
    while (Atomics.load(this.#words, 0) === this.#count) if (this.isStopped) return false;
    this.#own.set(this.#slots[this.#count % this.#slots.length] as Uint8Array);
    Atomics.store(this.#words, 16, ++this.#count);
    return true;
  }
}

interface Work {
  readonly messageBytes: number;
  readonly requests: SharedArrayBuffer;
  /** Null = none: it only takes. */
  readonly answers: SharedArrayBuffer | null;
}

if (!isMainThread) answer(workerData as Work);

function answer({ messageBytes, requests, answers }: Work): void {
  const from = new Ring(messageBytes, requests);
  const to = answers && new Ring(messageBytes, answers);
  parentPort?.postMessage('ready');
  while (from.take()) if (to?.put() === false) break;
}

/** Runs while the other thread answers. */
async function withThread<T>(messageBytes: number, answers: Ring | null, requests: Ring, use: () => T): Promise<T> {
  const work: Work = { messageBytes, requests: requests.memory, answers: answers?.memory ?? null };
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: work });
  await once(worker, 'message'); // from here on it needs nothing of this thread, which will be busy
  const ended = once(worker, 'exit');
  try {
    return use();
  } finally {
    requests.stop();
    answers?.stop();
    await ended;
  }
}

export function ringRoundTrips(messageBytes: number, { warmMs, windowMs }: Window): Promise<RoundTrips> {
  const [requests, answers] = [new Ring(messageBytes), new Ring(messageBytes)];
  return withThread(messageBytes, answers, requests, () => {
    const pingPong = (forMs: number, times: Times) => {
      let now = performance.now();
      for (const end = now + forMs; now < end; ) {
        const sentAt = now;
        requests.put();
        answers.take();
        now = performance.now();
        times.add((now - sentAt) * 1000);
      }
      return times;
    };
    pingPong(warmMs, new Times());
    const times = new Times();
    const cpuBefore = cpuSecondsOf([process.pid]);
    pingPong(windowMs, times);
    return { ...times.latency(), cpuSeconds: cpuSecondsOf([process.pid]) - cpuBefore };
  });
}

export function ringStream(messageBytes: number, window: Window): Promise<Sample> {
  const requests = new Ring(messageBytes);
  return withThread(messageBytes, null, requests, () => repeat(messageBytes, window, () => requests.put()));
}

/** Between as much memory as the ring has. */
export function copies(messageBytes: number, window: Window): Sample {
  const source = new Uint8Array(messageBytes).fill(1);
  const targets = Array.from({ length: Ring.slotsOf(messageBytes) }, () => new Uint8Array(messageBytes).fill(1));
  let i = 0;
  return repeat(messageBytes, window, () => targets[i++ % targets.length]?.set(source));
}

/** @param act moves one message */
function repeat(messageBytes: number, { warmMs, windowMs }: Window, act: () => void): Sample {
  const run = (forMs: number): number => {
    let count = 0;
    for (const end = performance.now() + forMs; performance.now() < end; count += 16)
      for (let i = 0; i < 16; i++) act();
    return count;
  };
  run(warmMs);
  const [cpuBefore, before] = [cpuSecondsOf([process.pid]), performance.now()];
  const count = run(windowMs);
  const seconds = (performance.now() - before) / 1000;
  return { bytes: count * messageBytes, seconds, cpuSeconds: cpuSecondsOf([process.pid]) - cpuBefore };
}
