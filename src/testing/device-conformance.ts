/**
 * What a device does, as tests. Every device passes them; one written elsewhere can run them too:
 *
 *     deviceConformance('my device', async () => ({ a, b, stranger, abandon, close }));
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  type Client,
  type Device,
  type Dmb,
  type Gid,
  type IsmErrorCode,
  type IsmEvent,
  MAX_CLIENTS,
  parseToken,
  Registry,
  type RemoteDmb,
  randomGid,
  type Token,
} from '../ism/index.ts';

/** Three devices of one fabric: `a` and `b` talk, `stranger` reaches both and was told nothing. */
export interface DeviceFabric {
  readonly a: Device;
  readonly b: Device;
  readonly stranger: Device;
  /** Drops a device as if its process had been killed: no goodbye. */
  abandon(device: Device): void;
  /** Ends what is left; throws when a descriptor, mapping or the like remains. */
  close(): Promise<void>;
}

export type DeviceTest = (fabric: DeviceFabric) => Promise<void>;

export interface Deviation {
  /** The test, by reference: `deviceTests.isolation['a peer cannot read']`. */
  readonly test: DeviceTest;
  /** Why this device does otherwise. It is asserted to still do so. */
  readonly reason: string;
}

const WAIT_MS = 20_000;

/** Waits until something holds; fails with its last error or with `what`. */
export async function eventually(what: string, holds: () => boolean, limitMs = 60_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!holds()) {
    assert.ok(performance.now() < end, `not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** In one process, and well before the limit of a test. */
const soon = (what: string, holds: () => boolean) => eventually(what, holds, WAIT_MS);

/** Some turns of the event loop, in which something must not happen. */
async function aWhile(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 20));
  // After a busy turn the timer alone would come before the immediates of that turn.
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}

class Recorder implements Client {
  readonly name = 'recorder';
  readonly signals: Dmb[] = [];
  readonly events: IsmEvent[] = [];
  onSignal: (dmb: Dmb) => void = () => {};

  addDevice(): void {}
  removeDevice(): void {}
  handleSignal(_device: Device, dmb: Dmb): void {
    this.signals.push(dmb);
    this.onSignal(dmb);
  }
  handleEvent(_device: Device, event: IsmEvent): void {
    this.events.push(event);
  }
}

/** A recorder that hears of a device's signals and events. */
function recorderFor(device: Device): Recorder {
  const recorder = new Recorder();
  const registry = new Registry();
  registry.registerClient(recorder);
  registry.addDevice(device);
  return recorder;
}

const LENGTH = 16 * 1024;

function register(owner: Device, peer: Gid, client: Client, lengthBytes = LENGTH): Promise<Dmb> {
  return owner.registerDmb({ peer, lengthBytes, client });
}

/** A DMB of `a` that `b` has attached. */
async function joined(fabric: DeviceFabric): Promise<{ client: Recorder; dmb: Dmb; remote: RemoteDmb }> {
  const client = recorderFor(fabric.a);
  const dmb = await register(fabric.a, fabric.b.gid, client);
  return { client, dmb, remote: await attach(fabric.b, dmb.token) };
}

/** A token may travel faster than the device's own word of it. */
async function attach(device: Device, token: Token): Promise<RemoteDmb> {
  for (const end = Date.now() + WAIT_MS; ; await aWhile()) {
    try {
      return await device.attachDmb(token);
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}

function failsWith(code: IsmErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.equal((error as { code?: unknown }).code, code);
    return true;
  };
}

function pattern(length: number, seed: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => (i * 31 + seed) & 0xff));
}

const identity = {
  'has a GID and a CHID of its own': async ({ a, b, stranger }) => {
    assert.equal(new Set([a.gid, b.gid, stranger.gid]).size, 3);
    assert.equal(a.chid, b.chid);
  },
  'reaches its peers and nobody else': async ({ a, b }) => {
    assert.equal(await a.queryRemoteGid(b.gid), true);
    assert.equal(await b.queryRemoteGid(a.gid), true);
    assert.equal(await a.queryRemoteGid(randomGid()), false);
  },
  'no longer answers after it was closed': async ({ a, b }) => {
    const client = recorderFor(a);
    await a.close();
    await a.close();
    await assert.rejects(register(a, b.gid, client), failsWith('ERR_ISTHMUS_DEVICE_GONE'));
  },
} satisfies Record<string, DeviceTest>;

const dmbLife = {
  'a DMB comes zeroed, as long as wished, with a token of its own': async ({ a, b }) => {
    const client = recorderFor(a);
    const dmbs = await Promise.all([1, LENGTH, 3 * LENGTH].map((length) => register(a, b.gid, client, length)));
    assert.equal(new Set(dmbs.map((dmb) => dmb.token)).size, 3);
    assert.equal(new Set(dmbs.map((dmb) => dmb.index)).size, 3);
    for (const [i, length] of [1, LENGTH, 3 * LENGTH].entries()) {
      const dmb = dmbs[i];
      assert.ok(dmb && dmb.lengthBytes >= length && dmb.bytes.length === dmb.lengthBytes && dmb.generation > 0);
      assert.ok(dmb.bytes.every((byte) => byte === 0));
    }
    assert.equal(a.usage().dmbs, 3);
    assert.equal(a.dmbsOf(client), 3);
  },
  'a DMB for a peer that does not exist is refused': async ({ a }) => {
    await assert.rejects(register(a, randomGid(), recorderFor(a)), failsWith('ERR_ISTHMUS_PEER'));
  },
  'a length out of range is refused': async ({ a, b }) => {
    const client = recorderFor(a);
    for (const length of [0, -1, 1.5, a.capabilities.maxDmbBytes + 1]) {
      await assert.rejects(register(a, b.gid, client, length), failsWith('ERR_ISTHMUS_RANGE'));
    }
  },
  'unregistering twice does nothing': async ({ a, b }) => {
    const dmb = await register(a, b.gid, recorderFor(a));
    await a.unregisterDmb(dmb);
    await a.unregisterDmb(dmb);
    await soon('nothing in use', () => a.usage().dmbs + a.usage().quarantined === 0);
  },
  'detaching twice does nothing': async (fabric) => {
    const { remote } = await joined(fabric);
    fabric.b.detachDmb(remote);
    fabric.b.detachDmb(remote);
    assert.equal(fabric.b.usage().attached, 0);
  },
  'a client with DMBs cannot be unregistered, nor a ninth one registered': async ({ a, b }) => {
    const registry = new Registry();
    const clients = Array.from({ length: MAX_CLIENTS }, () => new Recorder());
    const [first] = clients;
    assert.ok(first);
    for (const client of clients) registry.registerClient(client);
    registry.addDevice(a);
    assert.throws(() => registry.registerClient(new Recorder()), failsWith('ERR_ISTHMUS_BUSY'));
    const dmb = await register(a, b.gid, first);
    assert.throws(() => registry.unregisterClient(first), failsWith('ERR_ISTHMUS_BUSY'));
    await a.unregisterDmb(dmb);
    registry.unregisterClient(first);
  },
} satisfies Record<string, DeviceTest>;

const moveData = {
  'bytes arrive where they were written, at any offset and length': async (fabric) => {
    const { dmb, remote } = await joined(fabric);
    const expected = Buffer.alloc(dmb.lengthBytes);
    for (const [offset, length] of [
      [0, 1],
      [1, 2],
      [3, 5],
      [64, 64],
      [1001, 4097],
      [LENGTH - 1, 1],
    ] as const) {
      const bytes = pattern(length, offset);
      remote.move(offset, bytes);
      expected.set(bytes, offset);
    }
    assert.ok(dmb.bytes.equals(expected));
  },
  'a word is stored whole, and where it was meant to be': async (fabric) => {
    const { dmb, remote } = await joined(fabric);
    for (const [offset, value] of [
      [0, 1],
      [4, -1],
      [LENGTH - 4, 0x12345678],
    ] as const) {
      remote.storeWord(offset, value);
      assert.equal(Atomics.load(dmb.words, offset / 4), value);
    }
  },
  'a long word is stored whole, and where it was meant to be': async (fabric) => {
    const { dmb, remote } = await joined(fabric);
    assert.equal(dmb.words.byteOffset % 8, 0);
    const longs = new BigInt64Array(dmb.words.buffer, dmb.words.byteOffset, LENGTH / 8);
    for (const [offset, value] of [
      [0, 1n],
      [8, -1n],
      [LENGTH - 8, 0x0123_4567_89ab_cdefn],
    ] as const) {
      remote.storeLong(offset, value);
      assert.equal(Atomics.load(longs, offset / 8), value);
    }
    assert.equal(Atomics.load(dmb.words, 4), 0);
  },
  'a word leaves the one beside it alone, whoever wrote that': async (fabric) => {
    const { dmb, remote } = await joined(fabric);
    const other = await fabric.b.attachDmb(dmb.token);
    for (const at of [0, 64, LENGTH - 24]) {
      remote.storeWord(at, 1);
      other.storeWord(at + 4, 2);
      remote.storeWord(at, 3);
      other.move(at + 8, Buffer.alloc(8, 0x11));
      remote.storeWord(at + 8, 4);
      other.storeLong(at + 16, -1n);
      remote.storeWord(at + 20, 5);
      assert.deepEqual([...dmb.words.subarray(at / 4, at / 4 + 6)], [3, 2, 4, 0x11111111, -1, 5]);
    }
    fabric.b.detachDmb(other);
  },
  'what leaves the DMB is refused and changes nothing': async (fabric) => {
    const { dmb, remote } = await joined(fabric);
    const { lengthBytes } = dmb;
    for (const [offset, size] of [
      [-1, 1],
      [lengthBytes, 1],
      [lengthBytes - 1, 2],
      [0, lengthBytes + 1],
      [2 ** 32, 1],
      [2 ** 53, 1],
      [0.5, 1],
      [Number.NaN, 1],
    ] as const) {
      assert.throws(() => remote.move(offset, Buffer.alloc(size, 1)), failsWith('ERR_ISTHMUS_RANGE'));
      assert.throws(
        () => fabric.b.moveData(dmb.token, offset, Buffer.alloc(size, 1), true),
        failsWith('ERR_ISTHMUS_RANGE'),
      );
    }
    assert.ok(dmb.bytes.every((byte) => byte === 0));
  },
  'a word that is not aligned or leaves the DMB is refused': async (fabric) => {
    const { dmb, remote } = await joined(fabric);
    for (const offset of [1, 2, 3, -4, dmb.lengthBytes, dmb.lengthBytes + 4, 2 ** 40]) {
      assert.throws(() => remote.storeWord(offset, 1), failsWith('ERR_ISTHMUS_RANGE'));
    }
    for (const offset of [1, 4, -8, dmb.lengthBytes - 4, dmb.lengthBytes, 2 ** 40]) {
      assert.throws(() => remote.storeLong(offset, 1n), failsWith('ERR_ISTHMUS_RANGE'));
    }
    assert.ok(dmb.bytes.every((byte) => byte === 0));
  },
  'moving by token copies, and signals only if told to': async (fabric) => {
    const { client, dmb } = await joined(fabric);
    fabric.b.moveData(dmb.token, 100, Buffer.from('quiet'), false);
    assert.equal(dmb.bytes.toString('latin1', 100, 105), 'quiet');
    await aWhile();
    assert.equal(client.signals.length, 0);
    fabric.b.moveData(dmb.token, 0, Buffer.alloc(0), true);
    await soon('signalled', () => client.signals.length === 1);
    assert.equal(client.signals[0], dmb);
  },
  'data is there before the word that publishes it': async (fabric) => {
    const { client, dmb, remote } = await joined(fabric);
    let bad = 0;
    let seen = 0;
    client.onSignal = () => {
      seen = Atomics.load(dmb.words, 0);
      if (!dmb.bytes.subarray(64, 4160).every((byte) => byte === (seen & 0xff))) bad++;
    };
    for (let round = 1; round <= 200; round++) {
      remote.move(64, Buffer.alloc(4096, round));
      remote.storeWord(0, round);
      remote.signal();
      await soon('seen', () => seen === round);
    }
    assert.equal(bad, 0);
  },
} satisfies Record<string, DeviceTest>;

const signals = {
  'a signal is delivered from the event loop, never inside the call': async (fabric) => {
    const { client, remote } = await joined(fabric);
    let inside = true;
    let delivered = 0;
    client.onSignal = () => {
      assert.equal(inside, false);
      delivered++;
    };
    for (let i = 0; i < 50; i++) {
      inside = true;
      remote.signal();
      inside = false;
      await soon('delivered', () => delivered === i + 1);
    }
  },
  'signals may be merged but none is lost': async (fabric) => {
    const { client, dmb, remote } = await joined(fabric);
    let seen = 0;
    client.onSignal = () => {
      seen = Atomics.load(dmb.words, 0);
    };
    let sent = 0;
    for (let burst = 0; burst < 300; burst++) {
      for (let i = 0; i <= burst % 7; i++) {
        remote.storeWord(0, ++sent);
        remote.signal();
      }
      if (burst % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
      if (burst % 50 === 0) await aWhile();
    }
    await soon('the last word was seen', () => seen === sent);
    assert.ok(client.signals.length <= sent);
  },
  'signals reach their DMB among many': async (fabric) => {
    const client = recorderFor(fabric.a);
    const dmbs = await Promise.all(Array.from({ length: 20 }, () => register(fabric.a, fabric.b.gid, client, 64)));
    const remotes = await Promise.all(dmbs.map((dmb) => attach(fabric.b, dmb.token)));
    for (const i of [3, 19, 3, 0]) remotes[i]?.signal();
    await soon('three DMBs signalled', () => new Set(client.signals).size === 3);
    await aWhile();
    assert.deepEqual(new Set(client.signals), new Set([dmbs[3], dmbs[19], dmbs[0]]));
  },
  'no signal is delivered for a DMB that was unregistered': async (fabric) => {
    const { client, dmb, remote } = await joined(fabric);
    remote.signal();
    await fabric.a.unregisterDmb(dmb);
    const before = client.signals.length;
    remote.signal();
    await aWhile();
    assert.equal(client.signals.length, before);
  },
  'both directions at once': async (fabric) => {
    const [forA, forB] = [recorderFor(fabric.a), recorderFor(fabric.b)];
    const dmbA = await register(fabric.a, fabric.b.gid, forA);
    const dmbB = await register(fabric.b, fabric.a.gid, forB);
    const [toA, toB] = [await attach(fabric.b, dmbA.token), await attach(fabric.a, dmbB.token)];
    let rounds = 0;
    forA.onSignal = () => {
      if (++rounds < 500) toB.signal();
    };
    forB.onSignal = () => toA.signal();
    toB.signal();
    await soon('500 rounds', () => rounds === 500);
  },
} satisfies Record<string, DeviceTest>;

const isolation = {
  'a stranger with the right token can do nothing': async (fabric) => {
    const { client, dmb } = await joined(fabric);
    const { stranger } = fabric;
    await assert.rejects(stranger.attachDmb(dmb.token), failsWith('ERR_ISTHMUS_TOKEN'));
    assert.throws(() => stranger.moveData(dmb.token, 0, Buffer.alloc(8, 1), true), failsWith('ERR_ISTHMUS_TOKEN'));
    await aWhile();
    assert.equal(client.signals.length, 0);
    assert.ok(dmb.bytes.every((byte) => byte === 0));
  },
  'a token that was never given is refused': async ({ b }) => {
    for (const token of [0n, 1n, 2n ** 64n - 1n].map(parseToken)) {
      await assert.rejects(b.attachDmb(token), failsWith('ERR_ISTHMUS_TOKEN'));
      assert.throws(() => b.moveData(token, 0, Buffer.alloc(1), false), failsWith('ERR_ISTHMUS_TOKEN'));
    }
  },
  'a token is dead once its DMB was unregistered': async ({ a, b }) => {
    const dmb = await register(a, b.gid, recorderFor(a));
    await a.unregisterDmb(dmb);
    await assert.rejects(async () => {
      await aWhile();
      await b.attachDmb(dmb.token);
    }, failsWith('ERR_ISTHMUS_TOKEN'));
  },
  'a peer cannot read': async (fabric) => {
    const { remote } = await joined(fabric);
    assert.equal(fabric.b.capabilities.peerCanRead, false);
    assert.equal(remote.bytes, null);
  },
} satisfies Record<string, DeviceTest>;

const quarantine = {
  'a late writer touches no later DMB': async (fabric) => {
    const { client, dmb, remote } = await joined(fabric);
    await fabric.a.unregisterDmb(dmb);
    assert.equal(fabric.a.usage().quarantined, 1);
    const later = await Promise.all(
      Array.from({ length: 8 }, () => register(fabric.a, fabric.b.gid, client, dmb.lengthBytes)),
    );
    remote.move(0, Buffer.alloc(64, 0xee));
    remote.storeWord(64, -1);
    remote.storeLong(72, -1n);
    remote.signal();
    await aWhile();
    for (const one of later) assert.ok(one.bytes.every((byte) => byte === 0));
    assert.equal(client.signals.length, 0);
  },
  'memory and index are used again after the writer has detached, zeroed and with another generation': async (
    fabric,
  ) => {
    const client = recorderFor(fabric.a);
    const seen = new Map<number, Set<number>>();
    for (let round = 0; round < 12; round++) {
      const dmb = await register(fabric.a, fabric.b.gid, client);
      assert.ok(dmb.bytes.every((byte) => byte === 0));
      const generations = seen.get(dmb.index) ?? new Set();
      assert.ok(!generations.has(dmb.generation), 'the same index with the same generation');
      seen.set(dmb.index, generations.add(dmb.generation));
      const remote = await attach(fabric.b, dmb.token);
      remote.move(0, Buffer.alloc(dmb.lengthBytes, round + 1));
      await fabric.a.unregisterDmb(dmb);
      fabric.b.detachDmb(remote);
      await soon('left quarantine', () => fabric.a.usage().quarantined === 0);
    }
    assert.ok(seen.size < 12, 'no index was used again');
  },
  'operations after detaching do nothing': async (fabric) => {
    const { client, dmb, remote } = await joined(fabric);
    fabric.b.detachDmb(remote);
    remote.move(0, Buffer.alloc(64, 0xee));
    remote.storeWord(64, -1);
    remote.storeLong(72, -1n);
    remote.signal();
    await aWhile();
    assert.ok(dmb.bytes.every((byte) => byte === 0));
    assert.equal(client.signals.length, 0);
  },
} satisfies Record<string, DeviceTest>;

const limits = {
  'the last DMB is followed by an error, and room comes back': async ({ a, b }) => {
    const client = recorderFor(a);
    const dmbs: Dmb[] = [];
    await assert.rejects(
      async () => {
        for (let i = 0; i <= a.capabilities.maxDmbs; i++) dmbs.push(await register(a, b.gid, client, 1));
      },
      (error) => {
        const { code } = error as { code?: unknown };
        return code === 'ERR_ISTHMUS_NO_DMB' || code === 'ERR_ISTHMUS_NO_MEMORY';
      },
    );
    assert.ok(dmbs.length > 0);
    for (const dmb of dmbs) await a.unregisterDmb(dmb);
    await soon('all given back', () => a.usage().dmbs + a.usage().quarantined === 0);
    await a.unregisterDmb(await register(a, b.gid, client, 1));
  },
} satisfies Record<string, DeviceTest>;

const events = {
  'a software event reaches the clients of that peer alone': async ({ a, b, stranger }) => {
    if (!a.capabilities.events) return;
    const [forB, forStranger] = [recorderFor(b), recorderFor(stranger)];
    a.signalEvent(b.gid, 0x80, 0x1234_5678_9abc_def0n);
    a.signalEvent(randomGid(), 1, 1n);
    await soon('the event', () => forB.events.length === 1);
    assert.deepEqual(forB.events, [{ type: 'software', gid: a.gid, code: 0x80, data: 0x1234_5678_9abc_def0n }]);
    assert.equal(forStranger.events.length, 0);
  },
  'closing a device tells its peers': async ({ a, b }) => {
    const forB = recorderFor(b);
    await b.queryRemoteGid(a.gid);
    await a.close();
    await soon('peer-gone', () => forB.events.some((event) => event.type === 'peer-gone' && event.gid === a.gid));
    assert.equal(await b.queryRemoteGid(a.gid), false);
  },
} satisfies Record<string, DeviceTest>;

const death = {
  'when the owner dies its peer is told, and its writes harm nobody': async (fabric) => {
    const { remote } = await joined(fabric);
    const forB = recorderFor(fabric.b);
    fabric.abandon(fabric.a);
    for (let i = 0; i < 20; i++) {
      remote.move(0, Buffer.alloc(1000, i));
      remote.storeWord(0, i);
      remote.signal();
    }
    await soon('peer-gone', () => forB.events.some((event) => event.type === 'peer-gone'));
    remote.move(0, Buffer.alloc(1000));
    remote.signal();
    fabric.b.detachDmb(remote);
    await soon('nothing attached', () => fabric.b.usage().attached === 0);
  },
  'when the writer dies its owner is told, and gets everything back': async (fabric) => {
    const { client, dmb } = await joined(fabric);
    const second = await register(fabric.a, fabric.b.gid, client);
    await attach(fabric.b, second.token);
    await fabric.a.unregisterDmb(second);
    fabric.abandon(fabric.b);
    await soon('peer-gone', () => client.events.some((event) => event.type === 'peer-gone'));
    await fabric.a.unregisterDmb(dmb);
    await soon('nothing in use', () => {
      const { dmbs, quarantined, bytes } = fabric.a.usage();
      return dmbs + quarantined + bytes === 0;
    });
    await assert.rejects(register(fabric.a, fabric.b.gid, client), failsWith('ERR_ISTHMUS_PEER'));
  },
  'others go on when one dies': async (fabric) => {
    const { dmb, remote } = await joined(fabric);
    fabric.abandon(fabric.stranger);
    await aWhile();
    remote.move(0, Buffer.from('alive'));
    assert.equal(dmb.bytes.toString('latin1', 0, 5), 'alive');
  },
} satisfies Record<string, DeviceTest>;

export const deviceTests = {
  identity,
  'DMB life': dmbLife,
  'move data': moveData,
  signals,
  isolation,
  quarantine,
  limits,
  events,
  death,
};

const TEST_TIMEOUT_MS = 60_000;

/** Declares the suite for one device with node:test. */
export function deviceConformance(
  name: string,
  makeFabric: () => Promise<DeviceFabric>,
  options: { deviations?: readonly Deviation[] } = {},
): void {
  describe(name, () => {
    for (const { section, title, run } of allDeviceTests()) {
      const deviation = options.deviations?.find((one) => one.test === run);
      if (deviation === undefined) {
        test(`${section}: ${title}`, { timeout: TEST_TIMEOUT_MS }, () => runDeviceTest(run, makeFabric));
      } else {
        test(`${section}: deviates from '${title}' because ${deviation.reason}`, { timeout: TEST_TIMEOUT_MS }, () =>
          assert.rejects(runDeviceTest(run, makeFabric), 'it no longer deviates'),
        );
      }
    }
  });
}

export function allDeviceTests(): { section: string; title: string; run: DeviceTest }[] {
  return Object.entries(deviceTests).flatMap(([section, tests]) =>
    Object.entries(tests).map(([title, run]) => ({ section, title, run })),
  );
}

/** Runs one test on a fresh fabric. */
export async function runDeviceTest(run: DeviceTest, makeFabric: () => Promise<DeviceFabric>): Promise<void> {
  const fabric = await makeFabric();
  try {
    await run(fabric);
  } finally {
    await fabric.close();
  }
}
