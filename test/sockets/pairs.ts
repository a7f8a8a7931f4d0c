/** Pairs of connected sockets, plain or moved, for tests that compare the two. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type NetConnectOpts, type Server, type ServerOpts, type Socket } from 'node:net';
import type { HandshakeOption } from '../../src/index.ts';
import { type Internals, testInternals } from '../../src/net/internals.ts';
import { Mover } from '../../src/net/mover.ts';
import { Partition } from '../../src/net/partition.ts';
import { DEFAULT_POLICY } from '../../src/net/policy.ts';
import { eventually } from '../../src/testing/index.ts';

export interface SocketPair {
  readonly client: Socket;
  readonly server: Socket;
  /** Of a pair that can move: client's, server's. */
  readonly movers: readonly [Mover, Mover] | null;
  close(): Promise<void>;
}

export interface PairOptions {
  readonly connect?: Partial<NetConnectOpts> & HandshakeOption;
  readonly listen?: ServerOpts & HandshakeOption;
}

export type MakePair = (options?: PairOptions) => Promise<SocketPair>;

let partition: Promise<Partition> | undefined;

/** @param dmbBytes small, so that rings wrap and run full */
export function partitionOf(dmbBytes = 16384): Promise<Partition> {
  partition ??= Partition.create({ ...DEFAULT_POLICY, dmbBytes }, () => {});
  return partition;
}

export const plainPair: MakePair = (options) => pairBy({ createServer, connect }, options);

/** Shakes hands in-band: moved from the first byte on. Read when Isthmus is loaded: the settings in process.env. */
export const inBandPair: MakePair = async ({ connect, listen } = {}) => {
  const handshake = 'in-band';
  const isthmus = await import('../../src/index.ts');
  const pair = await pairBy(isthmus, { connect: { ...connect, handshake }, listen: { ...listen, handshake } });
  const modes = [pair.client, pair.server].map((socket) => isthmus.info(socket).mode);
  assert.deepEqual(modes, ['SMC-D', 'SMC-D']);
  return pair;
};

interface Way {
  createServer(options: ServerOpts): Server;
  connect(options: NetConnectOpts): Socket;
}

async function pairBy({ createServer, connect }: Way, options: PairOptions = {}): Promise<SocketPair> {
  const listener = createServer(options.listen ?? {});
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as { port: number };
  const client = connect({ ...options.connect, port, host: '127.0.0.1' } as NetConnectOpts);
  const [[server]] = (await Promise.all([once(listener, 'connection'), once(client, 'connect')])) as [
    [Socket],
    unknown,
  ];
  return {
    client,
    server,
    movers: null,
    async close() {
      const open = [client, server].filter((socket) => !socket.closed);
      for (const socket of open) socket.on('error', () => {}).destroy();
      await Promise.all(open.map((socket) => once(socket, 'close')));
      listener.close();
    },
  };
}

/** Both ends in this loop, on their way to shared memory but with no byte passed yet. */
export const movablePair: MakePair = async (options) => {
  const pair = await plainPair(options);
  const ground = await partitionOf();
  const internals = testInternals() as Internals;
  const movers = [
    new Mover(pair.client, 'client', ground, internals),
    new Mover(pair.server, 'server', ground, internals),
  ] as const;
  for (const mover of movers) mover.start();
  return { ...pair, movers };
};

/** Waits until both directions have moved. A byte must have passed. */
export async function moveNow({ movers }: SocketPair): Promise<void> {
  await eventually('both directions moved', () => movers?.every((mover) => mover.isWhollyMoved) ?? true);
}
