/** Pairs of connected sockets whose bytes can go through shared memory, for tests that compare them with plain ones. */
import assert from 'node:assert/strict';
import { AsyncResource } from 'node:async_hooks';
import { connect, createServer, type NetConnectOpts, type ServerOpts, type Socket } from 'node:net';
import type { HandshakeOption } from 'isthmus';
import { HostDevice } from '../../src/devices/host/index.ts';
import { type Internals, testInternals } from '../../src/net/internals.ts';
import { Mover } from '../../src/net/mover.ts';
import { Partition } from '../../src/net/partition.ts';
import { type AccessMode, DEFAULT_POLICY, type Policy } from '../../src/net/policy.ts';
import { eventually, type SocketPair, type SocketPairOptions, socketPair } from '../../src/testing/index.ts';

export interface MovablePair extends SocketPair {
  /** Client's, server's. */
  readonly movers: readonly [Mover, Mover];
}

/** Where the ends of a pair meet. Null for both: in the partition of this loop. */
export type Grounds = () => Promise<readonly [client: Partition, server: Partition]>;

const internals = testInternals() as Internals;
/** Of servers, as in every program: that in which this is loaded. */
const noContext = new AsyncResource('ISTHMUS');

/** Rings that wrap, run full and grow. */
const SMALL = { ...DEFAULT_POLICY, dmbBytes: 16384 };
/** Rings that wrap and run full. */
export const SMALL_FOREVER = { ...SMALL, maxDmbBytes: 16384 };

/** Both ends in one partition: loopback. */
export function onePartition(policy: Policy): Grounds {
  let partition: Promise<Partition> | undefined;
  return async () => {
    partition ??= Partition.create(policy, () => {});
    return [await partition, await partition];
  };
}
export const oneLoop = onePartition(SMALL);

/**
 * Two partitions in this loop, which a fabric introduces as it does any two: memory, doorbells and pipes of the host device are between
 * them. It starts where ISTHMUS_RUNTIME_DIR says.
 */
export function twoPartitions(access: AccessMode, policy: Policy = SMALL): Grounds {
  let both: Promise<readonly [Partition, Partition]> | undefined;
  const create = () => Partition.create({ ...policy, access }, () => {});
  return () => {
    both ??= Promise.all([create(), create()]);
    return both;
  };
}

/** On their way to shared memory, but with no byte passed yet. */
export async function movablePair(options?: SocketPairOptions, grounds: Grounds = oneLoop): Promise<MovablePair> {
  const [ofClient, ofServer] = await grounds();
  let context = noContext;
  const pair = await socketPair(options, {
    createServer,
    connect: (one) => {
      context = new AsyncResource('ISTHMUS');
      return connect(one);
    },
  });
  const movers = [
    new Mover(pair.client, 'client', ofClient, internals, context),
    new Mover(pair.server, 'server', ofServer, internals, noContext),
  ] as const;
  for (const mover of movers) mover.start();
  return { ...pair, movers };
}

/** Waits until both directions have moved. A byte must have passed. */
export async function moveNow({ movers }: MovablePair): Promise<void> {
  await eventually('both directions moved', () => movers.every((mover) => mover.isWhollyMoved));
}

/** Writes at both ends, and reads without leaving a listener, as long as it is wanted; then until all is read and no write is open. */
async function exchange({ client, server }: SocketPair, lengthBytes: number, goesOn: () => boolean): Promise<void> {
  const ends = [client, server] as const;
  const isAllRead = () => client.bytesRead === server.bytesWritten && server.bytesRead === client.bytesWritten;
  do for (const socket of ends) if (socket.writableLength === 0) socket.write(Buffer.alloc(lengthBytes, 1));
  while (await turn(ends).then(goesOn));
  await eventually('everything is read', () => {
    for (const socket of ends) socket.read();
    // Who wrote last learns after the reader that it is done.
    return isAllRead() && ends.every((socket) => socket.readableLength === 0 && socket.writableLength === 0);
  });
}

/** A socket with `onread` reads by itself. */
function turn(ends: readonly Socket[]): Promise<void> {
  for (const socket of ends) socket.read();
  return new Promise((resolve) => setImmediate(resolve));
}

/** When a pair moves, and with how much behind it. */
export const MOVES = {
  /** As soon as it can. */
  'moved at the first byte': async (pair) => {
    await exchange(pair, 1, () => false);
    await moveNow(pair);
  },
  /** Under load in both directions. */
  'moved in mid-stream': async (pair) => {
    let rounds = 0;
    await exchange(pair, 30_000, () => {
      if (rounds === 0) assert.ok(!pair.movers.some((mover) => mover.isMoved), 'bytes pass before it moves');
      return ++rounds < 10 || !pair.movers.every((mover) => mover.isWhollyMoved);
    });
  },
  'moved and moved back': async (pair) => {
    await exchange(pair, 1, () => false);
    await moveNow(pair);
    await exchange(pair, 30_000, () => false);
    await pair.movers[0].restore();
    assert.ok(!pair.movers.some((mover) => mover.isMoved));
  },
  /** A scenario's own bytes make it move. */
  'moving meanwhile': async () => {},
} as const satisfies Record<string, (pair: MovablePair) => Promise<void>>;

export type Move = keyof typeof MOVES;

export function movedPair(
  move: Move,
  grounds: Grounds = oneLoop,
): (options?: SocketPairOptions) => Promise<MovablePair> {
  return async (options) => {
    const pair = await movablePair(options, grounds);
    await MOVES[move](pair);
    return pair;
  };
}

/** Fails unless the bytes go through a device between partitions. */
export function assertHost({ movers }: MovablePair): void {
  for (const mover of movers) assert.ok(mover.group?.device instanceof HostDevice);
}

/** Shakes hands in-band: moved from the first byte on. Read when Isthmus is loaded: the settings in process.env. */
export async function inBandPair({ connect, listen }: SocketPairOptions = {}): Promise<SocketPair> {
  const handshake = { handshake: 'in-band' } satisfies HandshakeOption;
  const isthmus = await import('isthmus');
  const pair = await socketPair(
    {
      connect: { ...connect, ...handshake } as Partial<NetConnectOpts>,
      listen: { ...listen, ...handshake } as ServerOpts,
    },
    isthmus,
  );
  assert.deepEqual(
    [pair.client, pair.server].map((socket) => isthmus.info(socket).mode),
    ['SMC-D', 'SMC-D'],
  );
  return pair;
}
