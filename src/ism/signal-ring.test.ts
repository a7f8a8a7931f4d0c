/** One thread signals, another one looks and sleeps, over memory that both have. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { SignalReader, SignalWriter, type StoreToArea, signalAreaBytes } from './signal-ring.ts';

const CAPACITY = 8;
const ROUNDS = 200_000;
/** A sleeper that nobody wakes. */
const LOST_MS = 5_000;

interface Shared {
  /** As its owner reads it. */
  readonly ofReader: Int32Array;
  readonly ofWriter: Int32Array;
  /** What a signal is about, by index. */
  readonly about: Int32Array;
  /** 0: nobody has rung. */
  readonly doorbell: Int32Array;
}

const words = (count: number) => new Int32Array(new SharedArrayBuffer(4 * count));

function storeTo(area: Int32Array): StoreToArea {
  const word = (offset: number, value: number) => void Atomics.store(area, offset / 4, value);
  return {
    word,
    words(offset, first, second) {
      word(offset, first);
      word(offset + 4, second);
    },
  };
}

function signalAll({ ofReader, ofWriter, about, doorbell }: Shared): void {
  const writer = new SignalWriter(ofWriter, storeTo(ofReader), CAPACITY);
  let random = 1;
  for (let round = 1; round <= ROUNDS; round++) {
    random = (Math.imul(random, 1_103_515_245) + 12_345) | 0;
    const index = 1 + ((random >>> 16) % (CAPACITY - 1));
    Atomics.store(about, index, round);
    if (writer.signal(index, 3)) {
      Atomics.store(doorbell, 0, 1);
      Atomics.notify(doorbell, 0);
    }
    for (let pause = (random >>> 24) % 16 === 0 ? random >>> 22 : 0; pause > 0; pause--) Atomics.load(about, 0);
  }
}

if (!isMainThread && workerData?.ofReader !== undefined) {
  signalAll(workerData as Shared);
} else {
  test('what was signalled is looked at after the signal, and who sleeps is woken', async () => {
    const areaWords = signalAreaBytes(CAPACITY) / 4;
    const shared = {
      ofReader: words(areaWords),
      ofWriter: words(areaWords),
      about: words(CAPACITY),
      doorbell: words(1),
    };
    const { about, doorbell } = shared;
    const reader = new SignalReader(shared.ofReader, storeTo(shared.ofWriter), CAPACITY);
    const seen = new Int32Array(CAPACITY);
    let sleeps = 0;
    const look = () =>
      reader.look((index, generation) => {
        assert.ok(index > 0 && index < CAPACITY && generation === 3);
        seen[index] = Atomics.load(about, index);
      });
    const worker = new Worker(new URL(import.meta.url), { workerData: shared });
    while (Math.max(...seen) < ROUNDS) {
      for (let nothing = 0; nothing < 50; ) nothing = look() > 0 ? 0 : nothing + 1;
      reader.sleep();
      if (look() === 0 && Math.max(...seen) < ROUNDS) {
        sleeps++;
        assert.notEqual(Atomics.wait(doorbell, 0, 0, LOST_MS), 'timed-out', `lost after ${Math.max(...seen)}`);
      }
      Atomics.store(doorbell, 0, 0);
      reader.wake();
    }
    assert.deepEqual(seen.subarray(1), about.subarray(1));
    assert.ok(sleeps > 0, 'it has slept');
    await new Promise((resolve) => worker.once('exit', resolve));
  });

  test('entries that are not the next ones are a breach', () => {
    for (const number of [2, -1, CAPACITY + 1]) {
      const area = words(signalAreaBytes(CAPACITY) / 4);
      const reader = new SignalReader(area, storeTo(words(area.length)), CAPACITY);
      area[17] = number;
      assert.ok(!reader.hasWork());
      assert.throws(() => reader.look(() => {}), { code: 'ERR_ISTHMUS_PROTOCOL' });
    }
  });
}
