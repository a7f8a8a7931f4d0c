/** One thread signals, another one looks and sleeps, over memory that both have. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { storeInOrder } from './order.ts';
import { SignalReader, SignalWriter, signalAreaBytes, storesInto } from './signal-ring.ts';

const CAPACITY = 8;
const ROUNDS = 60_000;
/** A sleeper that nobody wakes. */
const LOST_MS = 5_000;

interface Shared {
  /** As its owner reads it. */
  readonly ofReader: Int32Array;
  readonly ofWriter: Int32Array;
  /** What a signal is about, by index. */
  readonly about: Int32Array;
  /** What of it the reader has seen. */
  readonly seen: Int32Array;
  /** 0: nobody has rung. */
  readonly doorbell: Int32Array;
}

const words = (count: number) => new Int32Array(new SharedArrayBuffer(4 * count));

/** Now and then the last one must have been seen, before any more is signalled that could stand in for it. */
function signalAll({ ofReader, ofWriter, about, seen, doorbell }: Shared): void {
  const writer = new SignalWriter(ofWriter, storesInto(ofReader), CAPACITY);
  let random = 1;
  for (let round = 1; round <= ROUNDS; round++) {
    random = (Math.imul(random, 1_103_515_245) + 12_345) | 0;
    const index = 1 + ((random >>> 16) & 3);
    storeInOrder(about, index, round);
    if (writer.signal(index, 3)) {
      Atomics.store(doorbell, 0, 1);
      Atomics.notify(doorbell, 0);
    }
    for (let pause = (random >>> 20) & 127; pause > 0; pause--) Atomics.load(about, 0);
    if (((random >>> 28) & 3) > 0) continue;
    for (let at = 1; at < CAPACITY; at++) {
      for (let looks = 0; Atomics.load(seen, at) !== Atomics.load(about, at); looks++)
        if (looks > 20_000) Atomics.wait(seen, 0, 0, 1);
    }
  }
}

if (!isMainThread && workerData?.ofReader !== undefined) {
  signalAll(workerData as Shared);
} else {
  test('what was signalled is looked at after the signal, and who sleeps is woken', async (t) => {
    const areaWords = signalAreaBytes(CAPACITY) / 4;
    const shared = {
      ofReader: words(areaWords),
      ofWriter: words(areaWords),
      about: words(CAPACITY),
      seen: words(CAPACITY),
      doorbell: words(1),
    };
    const { about, seen, doorbell } = shared;
    const reader = new SignalReader(shared.ofReader, storesInto(shared.ofWriter), CAPACITY);
    let sleeps = 0;
    const look = () =>
      reader.look((index, generation) => {
        assert.ok(index > 0 && index < CAPACITY && generation === 3);
        Atomics.store(seen, index, Atomics.load(about, index));
      });
    const worker = new Worker(new URL(import.meta.url), { workerData: shared });
    t.after(() => worker.terminate());
    const last = () => Math.max(...seen);
    while (last() < ROUNDS) {
      for (let nothing = 0; nothing < 50; ) nothing = look() > 0 ? 0 : nothing + 1;
      reader.sleep();
      if (look() === 0 && last() < ROUNDS) {
        sleeps++;
        assert.notEqual(Atomics.wait(doorbell, 0, 0, LOST_MS), 'timed-out', `lost after ${last()}`);
      }
      Atomics.store(doorbell, 0, 0);
      reader.wake();
    }
    assert.deepEqual(seen.subarray(1), about.subarray(1));
    assert.ok(sleeps > 0, 'it has slept');
  });

  test('entries that are not the next ones are a breach', () => {
    for (const number of [2, -1, CAPACITY + 1]) {
      const area = words(signalAreaBytes(CAPACITY) / 4);
      const reader = new SignalReader(area, storesInto(words(area.length)), CAPACITY);
      area[17] = number;
      assert.ok(!reader.hasWork());
      assert.throws(() => reader.look(() => {}), { code: 'ERR_ISTHMUS_PROTOCOL' });
    }
  });
}
