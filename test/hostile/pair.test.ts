import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import fc from 'fast-check';
import { HostDevice, PIECE_BYTES, SIGNAL_CAPACITY } from '../../src/devices/host/index.ts';
import { encodePairMessage, PAIR_VERSION, type PairMessage } from '../../src/devices/host/messages.ts';
import {
  type Client,
  type IsmEvent,
  parseToken,
  Registry,
  randomGid,
  SignalWriter,
  storesInto,
  virtualChid,
} from '../../src/ism/index.ts';
import { declare } from '../../src/os/ffi.ts';
import {
  closeFd,
  createPipe,
  createSharedMemory,
  map,
  openWriteOnly,
  packetSocketPair,
  receivePacket,
  ringPipe,
  sendPacket,
  streamSocketPair,
  testDoorbell,
} from '../../src/os/index.ts';
import { eventually } from '../../src/testing/index.ts';
import { lingeringPair } from './linger.ts';

await testDoorbell();
const chid = virtualChid(7);

const OPEN = {
  type: 'OPEN',
  version: PAIR_VERSION,
  access: 'mapped',
  capacity: SIGNAL_CAPACITY,
  lengthBytes: PIECE_BYTES,
} as const;

/** A peer that is played by hand: it has its three descriptors and sends what it likes. */
class Attacker {
  readonly gid = randomGid();
  readonly memory = createSharedMemory('attacker', PIECE_BYTES);
  readonly #channel: number;
  readonly #ring: number;
  readonly #wake: number;
  /** The victim's first piece. */
  area: Int32Array | null = null;

  constructor(victim: HostDevice) {
    const [mine, theirs] = packetSocketPair();
    const [toVictim, toMe] = [createPipe(), createPipe()];
    this.#channel = mine;
    this.#ring = toVictim.writeFd;
    this.#wake = toMe.readFd;
    victim.addPair({ peer: this.gid, channelFd: theirs, wakeFd: toVictim.readFd, ringFd: toMe.writeFd });
  }

  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    try {
      sendPacket(this.#channel, bytes, fds);
      ringPipe(this.#ring);
    } catch {
      // hung up on
    }
  }

  say(message: PairMessage, fds: readonly number[] = []): void {
    this.send(encodePairMessage(message), fds);
  }

  open(): void {
    this.say(OPEN, [this.memory]);
  }

  /** Takes the victim's memory. */
  async takeArea(): Promise<void> {
    await eventually('the victim has opened', () => {
      const packet = receivePacket(this.#channel);
      if (packet === null || packet === 'end') return false;
      const [fd] = packet.fds;
      if (fd === undefined) return false;
      this.area = new Int32Array(map(fd, PIECE_BYTES));
      closeFd(fd);
      return true;
    });
  }

  ring(): void {
    ringPipe(this.#ring);
  }

  /** As an honest peer writes them, once it has the victim's area. */
  signals(): SignalWriter {
    const victims = storesInto(this.area as Int32Array);
    return new SignalWriter(new Int32Array(map(this.memory, PIECE_BYTES)), victims, SIGNAL_CAPACITY);
  }

  close(): void {
    for (const fd of [this.#channel, this.#ring, this.#wake, this.memory]) closeFd(fd);
  }
}

let victim: HostDevice;
let friend: HostDevice;
let events: IsmEvent[];
let descriptors = 0;
const afterwards: number[] = [];

const listener: Client = {
  name: 'test',
  addDevice() {},
  removeDevice() {},
  handleSignal() {},
  handleEvent: (_device, event) => void events.push(event),
};

beforeEach(async () => {
  descriptors = readdirSync('/proc/self/fd').length;
  events = [];
  victim = new HostDevice({ gid: randomGid(), chid });
  friend = new HostDevice({ gid: randomGid(), chid });
  const registry = new Registry();
  registry.registerClient(listener);
  registry.addDevice(victim);
  const [one, other] = packetSocketPair();
  const [toVictim, toFriend] = [createPipe(), createPipe()];
  victim.addPair({ peer: friend.gid, channelFd: one, wakeFd: toVictim.readFd, ringFd: toFriend.writeFd });
  friend.addPair({ peer: victim.gid, channelFd: other, wakeFd: toFriend.readFd, ringFd: toVictim.writeFd });
  assert.ok(await victim.queryRemoteGid(friend.gid));
});

afterEach(async () => {
  // Others go on, whatever one peer did.
  let heard = '';
  friend.setMessageListener((_peer, bytes) => {
    heard = bytes.toString();
  });
  victim.sendMessage(friend.gid, Buffer.from('still here'));
  await eventually('the friend still hears us', () => heard === 'still here');
  await victim.close();
  await friend.close();
  for (const fd of afterwards.splice(0)) closeFd(fd);
  await eventually('no descriptor is left', () => readdirSync('/proc/self/fd').length === descriptors);
});

/** No descriptor can be opened or received meanwhile. */
async function withoutDescriptors(act: () => Promise<void>): Promise<void> {
  const limits = Buffer.alloc(16);
  prlimit(0, RLIMIT_NOFILE, null, limits);
  const none = Buffer.from(limits);
  none.writeBigUInt64LE(0n, 0);
  prlimit(0, RLIMIT_NOFILE, none, null);
  try {
    await act();
  } finally {
    prlimit(0, RLIMIT_NOFILE, limits, null);
  }
}
const prlimit = declare('prlimit', 'i32', ['i32', 'i32', 'ptr', 'ptr']);
const RLIMIT_NOFILE = 7;

const gone = (attacker: Attacker) => events.some((event) => event.type === 'peer-gone' && event.gid === attacker.gid);

async function isThrownOut(act: (attacker: Attacker) => void | Promise<void>): Promise<void> {
  const attacker = new Attacker(victim);
  await act(attacker);
  await eventually('the attacker is thrown out', () => gone(attacker));
  attacker.close();
}

/** The victim has the last descriptor of it. */
function lingers(send: (fd: number) => void): void {
  const [one, other] = lingeringPair();
  send(one);
  closeFd(one);
  afterwards.push(other);
}

const dmb = {
  type: 'DMB',
  token: parseToken(5n),
  index: 1,
  generation: 1,
  piece: 0,
  offset: 1 << 20,
  lengthBytes: 65536,
} as const;

for (const [what, act] of Object.entries<(attacker: Attacker) => void | Promise<void>>({
  'nonsense instead of a record': (one) => one.send(Buffer.from('nonsense')),
  'a record that is cut off': (one) => one.send(Buffer.from([1, 0, 12, 0, 1])),
  'OPEN without memory': (one) => one.say(OPEN),
  'OPEN with a pipe for memory': (one) => {
    const { readFd, writeFd } = createPipe();
    one.say(OPEN, [readFd]);
    closeFd(readFd);
    closeFd(writeFd);
  },
  'OPEN with a socket for memory': (one) => {
    const [left, right] = streamSocketPair();
    one.say(OPEN, [left]);
    closeFd(left);
    closeFd(right);
  },
  'OPEN with memory of another size': (one) => one.say({ ...OPEN, lengthBytes: 4096 }, [one.memory]),
  'OPEN of another version': (one) => one.say({ ...OPEN, version: 9 }, [one.memory]),
  'OPEN with another signal area': (one) => one.say({ ...OPEN, capacity: 2 }, [one.memory]),
  'OPEN twice': (one) => {
    one.open();
    one.open();
  },
  'too many descriptors': (one) => one.send(Buffer.alloc(16, 1), [one.memory, one.memory, one.memory]),
  'a DMB in a piece that is not there': (one) => {
    one.open();
    one.say({ ...dmb, piece: 3 });
  },
  'a DMB that leaves its piece': (one) => {
    one.open();
    one.say({ ...dmb, offset: PIECE_BYTES - 4096 });
  },
  'a DMB with an odd length': (one) => {
    one.open();
    one.say({ ...dmb, lengthBytes: 65537 });
  },
  'a DMB with the index of the channel': (one) => {
    one.open();
    one.say({ ...dmb, index: 0 });
  },
  'the same token twice': (one) => {
    one.open();
    one.say(dmb);
    one.say(dmb);
  },
  'UNREGISTERED of an unknown token': (one) => {
    one.open();
    one.say({ type: 'UNREGISTERED', token: parseToken(99n) });
  },
  'DETACHED of an unknown token': (one) => {
    one.open();
    one.say({ type: 'DETACHED', token: parseToken(99n) });
  },
  'a piece out of order': (one) => {
    one.open();
    one.say({ type: 'PIECE', piece: 5, lengthBytes: PIECE_BYTES }, [one.memory]);
  },
  'OPEN with a socket that lingers for memory': (one) => lingers((fd) => one.say(OPEN, [fd])),
  'nonsense, and behind it a socket that lingers, which is never taken': (one) =>
    lingers((fd) => {
      one.send(Buffer.from('nonsense'));
      one.send(Buffer.from('more'), [fd]);
    }),
  'a signal that is not the next one': async (one) => {
    one.open();
    await one.takeArea();
    Atomics.store(one.area as Int32Array, 17, 2);
    one.ring();
  },
})) {
  test(`thrown out: ${what}`, () => isThrownOut(act));
}

test('memory that takes no store any more ends its pair', async () => {
  await isThrownOut(async (attacker) => {
    const writeOnly = openWriteOnly(attacker.memory);
    attacker.say({ ...OPEN, access: 'store' }, [writeOnly]);
    assert.ok(await victim.queryRemoteGid(attacker.gid));
    assert.equal(victim.writeAccess(attacker.gid), 'store');
    const { setAppend } = await import('./memfd.ts');
    setAppend(writeOnly); // it is sealed: nothing can be appended
    closeFd(writeOnly);
    await eventually('it has stored something', () => {
      attacker.ring();
      return gone(attacker);
    });
  });
});

test('memory that can shrink is not taken', async () => {
  const { memfd } = await import('./memfd.ts');
  await isThrownOut((one) => {
    const fd = memfd(PIECE_BYTES);
    one.say(OPEN, [fd]);
    closeFd(fd);
  });
});

test('signals for DMBs that do not exist are passed over', async () => {
  const attacker = new Attacker(victim);
  attacker.open();
  await attacker.takeArea();
  const area = attacker.area as Int32Array;
  for (let i = 0; i < 100; i++) {
    Atomics.store(area, 16 + 2 * i, (i * 977) | (i << 17));
    Atomics.store(area, 17 + 2 * i, i + 1);
  }
  attacker.ring();
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok(!gone(attacker));
  attacker.close();
  await eventually('gone', () => gone(attacker));
});

test('whatever stands in the signal area, the victim lives', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.nat(40), fc.integer())), async (stores) => {
      const attacker = new Attacker(victim);
      attacker.open();
      await attacker.takeArea();
      for (const [word, value] of stores) {
        Atomics.store(attacker.area as Int32Array, word, value);
        attacker.ring();
        victim.sendMessage(attacker.gid, Buffer.from('x'));
        if (word % 5 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
      attacker.close();
      await eventually('gone', () => gone(attacker));
    }),
    { numRuns: 60 },
  );
});

test('memory for which there is no descriptor left costs the DMBs in it, and nothing else', async () => {
  const peer = new Attacker(victim);
  peer.open();
  assert.ok(await victim.queryRemoteGid(peer.gid));
  await peer.takeArea();
  const signals = peer.signals();
  const tell = (message: PairMessage, fds: readonly number[] = []) => {
    peer.say(message, fds);
    signals.signal(0, 1);
    peer.ring();
  };
  await withoutDescriptors(async () => {
    tell({ type: 'PIECE', piece: 1, lengthBytes: PIECE_BYTES }, [peer.memory]);
    tell({ ...dmb, piece: 1 });
    tell({ type: 'EVENT', code: 1, data: 2n });
    await eventually('it has come', () => events.some(({ type }) => type === 'software'));
  });
  await assert.rejects(victim.attachDmb(dmb.token), { code: 'ERR_ISTHMUS_TOKEN' });
  tell({ ...dmb, token: parseToken(6n), index: 2 });
  victim.detachDmb(await victim.attachDmb(parseToken(6n)));
  assert.ok(!gone(peer));
  peer.close();
  await eventually('the pair has ended', () => gone(peer));
});
