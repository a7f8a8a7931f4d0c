/** Two ends of a connection in one event loop, over every device and in every layout. Not a test itself. */
import assert from 'node:assert/strict';
import { makeHostFabric } from '../devices/host/host.test.helper.ts';
import { LoopbackFabric } from '../devices/loopback/index.ts';
import type { Client, Device, Dmb, RemoteDmb, Token } from '../ism/index.ts';
import { eventually } from '../testing/index.ts';
import { type Connection, openConnection } from './connection.ts';
import type { LayoutName } from './layout.ts';

/** The smallest DMB there is in SMC. */
export const DMB_BYTES = 16384;

export interface End {
  readonly connection: Connection;
  readonly device: Device;
  readonly dmb: Dmb;
  /** The peer's DMB. */
  readonly remote: RemoteDmb;
  /** How often this end was signalled. */
  readonly signals: { count: number };
}

export interface Ground {
  readonly a: Device;
  readonly b: Device;
  /** As if b's process had been killed. */
  kill(): void;
  close(): Promise<void>;
}

async function loopback(): Promise<Ground> {
  const fabric = new LoopbackFabric();
  const [a, b] = [fabric.createDevice(), fabric.createDevice()];
  return {
    a,
    b,
    kill: () => void b.close(),
    close: async () => {
      await a.close();
      await b.close();
    },
  };
}

function host(access: 'mapped' | 'store'): () => Promise<Ground> {
  return async () => {
    const fabric = await makeHostFabric(access, 0)();
    const { a, b } = fabric;
    return { a, b, kill: () => fabric.abandon(b), close: () => fabric.close() };
  };
}

export const DEVICES: Readonly<Record<string, () => Promise<Ground>>> = {
  loopback,
  'host, mapped': host('mapped'),
  'host, store': host('store'),
};

/** It counts how often it is signalled. */
export function countingClient(signals: { count: number }): Client {
  return {
    name: 'test',
    addDevice() {},
    removeDevice() {},
    handleSignal: () => void signals.count++,
    handleEvent() {},
  };
}

/** Bytes of a stream, from one place on. */
export function streamOf(from: number, length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => ((from + i) * 31 + ((from + i) >>> 8)) & 0xff));
}

async function attach(device: Device, token: Token): Promise<RemoteDmb> {
  let remote: RemoteDmb | null = null;
  // A token may travel faster than the device's own word of it.
  await eventually('the DMB can be attached', () => {
    void device.attachDmb(token).then(
      (one) => {
        if (remote === null) remote = one;
        else device.detachDmb(one);
      },
      () => {},
    );
    return remote !== null;
  });
  return remote as unknown as RemoteDmb;
}

/** Two ends, as they are after the handshake. */
export async function connect(
  layout: LayoutName,
  ground: Ground | null = null,
  lengthBytes = DMB_BYTES,
  maxDmbBytes = lengthBytes,
): Promise<readonly [End, End]> {
  const { a, b } = ground ?? (await loopback());
  const signals: readonly [End['signals'], End['signals']] = [{ count: 0 }, { count: 0 }];
  const dmbA = await a.registerDmb({ peer: b.gid, lengthBytes, client: countingClient(signals[0]) });
  const dmbB = await b.registerDmb({ peer: a.gid, lengthBytes, client: countingClient(signals[1]) });
  const [remoteB, remoteA] = [await attach(a, dmbB.token), await attach(b, dmbA.token)];
  const end = (device: Device, dmb: Dmb, remote: RemoteDmb, i: 0 | 1): End => ({
    connection: openConnection({ device, dmb, remote, layout, maxDmbBytes }, 0),
    device,
    dmb,
    remote,
    signals: signals[i],
  });
  return [end(a, dmbA, remoteB, 0), end(b, dmbB, remoteA, 1)];
}

export function look(...ends: readonly End[]): void {
  for (const { connection } of ends) connection.look();
}

/** Two ends of which both directions are in the rings. */
export async function moved(
  layout: LayoutName,
  ground: Ground | null = null,
  maxDmbBytes = DMB_BYTES,
  lengthBytes = DMB_BYTES,
): Promise<readonly [End, End]> {
  const ends = await connect(layout, ground, lengthBytes, maxDmbBytes);
  for (const { connection } of ends) connection.in.arm();
  look(...ends);
  for (const { out } of ends.map(({ connection }) => connection)) if (out.mayCut) out.cut(0);
  look(...ends);
  return ends;
}

/** Everything that is there to be taken. */
export function takeAll({ connection }: End): Buffer {
  const chunks: Buffer[] = [];
  for (let chunk = connection.in.take(5000); chunk !== null; chunk = connection.in.take(5000)) chunks.push(chunk);
  connection.in.taken();
  return Buffer.concat(chunks);
}

/** One of what any end can do, by name: for tests that play at random. */
export function act(connection: Connection, what: 'look' | 'back' | 'end' | 'tcpEnd' | 'close' | 'die'): void {
  switch (what) {
    case 'look':
      connection.look();
      break;
    case 'back':
      connection.out.back();
      break;
    case 'end':
      connection.end();
      break;
    case 'tcpEnd':
      connection.in.tcpEnd();
      break;
    case 'close':
      assert.doesNotThrow(() => connection.close(false));
      break;
    case 'die':
      assert.doesNotThrow(() => connection.die());
      break;
    default:
      what satisfies never;
  }
}
