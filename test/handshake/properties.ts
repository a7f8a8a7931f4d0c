/** What holds for any handshake and any message, as properties: a few hundred runs in the tests, any number in `npm run fuzz`. */
import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import fc from 'fast-check';
import type { Eid } from '../../src/ism/index.ts';
import {
  acceptConfirm,
  checkAny,
  decline,
  mutated,
  proposal,
  vectors,
  withLength,
} from '../../src/smc/clc/clc.test.helper.ts';
import { type ClcMessage, decodeClc, encodeClc } from '../../src/smc/clc/index.ts';
import { type Connection, openConnection } from '../../src/smc/connection.ts';
import type { LayoutName } from '../../src/smc/layout.ts';
import { REASONS } from '../../src/smc/reasons.ts';
import { type Host, hosts, type Meeting, meet, shakeHands, type Wire, wires } from './ends.ts';

export const UEIDS = ['A.1', 'B.2', 'C.3', 'D.4'] as Eid[];
export const SEID = 'IBM-SYSZ-ISMSEID0000000012348561' as Eid;
export const DATA = Buffer.from('what the program sends');

// --- What is asserted ---

export function partsOf(outcome: Meeting['client']) {
  assert.ok('parts' in outcome, inspect(outcome));
  return outcome;
}

/** Both have the connection, and each writes into the other's DMB. */
export function assertConnected({ client, server }: Meeting): void {
  const [a, b] = [partsOf(client), partsOf(server)];
  assert.equal(a.parts.remote.token, b.parts.dmb.token);
  assert.equal(b.parts.remote.token, a.parts.dmb.token);
  assert.equal(a.parts.layout, b.parts.layout);
  assert.equal(a.group.eid, b.group.eid);
}

export function release({ client, server }: Pick<Meeting, 'client' | 'server'>): void {
  for (const { parts } of [client, server].filter((outcome) => 'parts' in outcome)) {
    parts.device.detachDmb(parts.remote);
    void parts.device.unregisterDmb(parts.dmb);
  }
}

export async function assertNothingLeft(...ends: Host[]): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  for (const { device } of ends) {
    const { dmbs, attached, quarantined } = device.usage();
    assert.deepEqual({ dmbs, attached, quarantined }, { dmbs: 0, attached: 0, quarantined: 0 });
  }
}

/** What is under way comes in the next turns of the event loop. */
export async function arrived(): Promise<void> {
  for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Both are on TCP, and nothing of the handshake is left in the stream. */
export async function assertPlain(client: Wire, server: Wire): Promise<void> {
  for (const wire of [client, server]) wire.transit = (bytes) => [bytes];
  client.send(DATA);
  server.send(DATA);
  await arrived();
  assert.deepEqual([client.rest, server.rest], [DATA, DATA]);
}

/** Bytes both ways, through the rings. */
function assertDelivers(meeting: Meeting, chunks: readonly Uint8Array[]): void {
  const [a, b] = [meeting.client, meeting.server].map((one) => openConnection(partsOf(one).parts, 0)) as [
    Connection,
    Connection,
  ];
  for (const { in: inbound } of [a, b]) inbound.arm();
  for (const one of [a, b, a, b]) {
    one.look();
    if (one.out.mayCut) one.out.cut(0);
  }
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    const taken: Buffer[] = [];
    for (const chunk of chunks) {
      for (let sent = 0, idle = 0; sent < chunk.length; idle++) {
        assert.ok(idle < 10_000, 'a writer that waits is let go on');
        sent += from.out.write(chunk, sent);
        to.look();
        for (let bytes = to.in.take(7000); bytes !== null; bytes = to.in.take(7000)) taken.push(bytes);
        to.in.taken();
        from.look();
      }
    }
    assert.ok(Buffer.concat(taken).equals(Buffer.concat(chunks)), 'all bytes in their order');
  }
}

// --- Properties ---

type Property = fc.IRawProperty<unknown>;

const end = fc.record({
  ueids: fc.subarray([...UEIDS, 'ISTHMUS' as Eid]).map((list) => list.slice(0, 4)),
  seid: fc.constantFrom(null, SEID),
  layouts: fc.constantFrom<LayoutName[]>(['isthmus'], ['kernel'], ['isthmus', 'kernel']),
  dmbBytes: fc.constantFrom(16384, 65536, 1 << 20),
  refusal: fc.oneof({ weight: 9, arbitrary: fc.constant(null) }, fc.constant(REASONS.OFF)),
});
const cuts = fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 6 });
const chunks = fc.array(fc.uint8Array({ minLength: 1, maxLength: 40_000 }), { maxLength: 4 });

function cutAt(bytes: Buffer, at: readonly number[]): Buffer[] {
  const edges = [...new Set([0, ...at.filter((edge) => edge < bytes.length), bytes.length])].sort((a, b) => a - b);
  return edges.slice(1).map((edge, i) => bytes.subarray(edges[i], edge));
}

/** A byte of one message is another one on its way. */
const damage = fc.record({
  message: fc.nat(2),
  /** From the beginning, or from the end. */
  at: fc.integer({ min: -60, max: 330 }),
  value: fc.nat(255),
});

export const PROPERTIES: Readonly<Record<string, () => Property>> = {
  'whatever two ends have, they agree: both have the connection and all bytes arrive, or both are on TCP': () =>
    fc.asyncProperty(end, end, cuts, fc.nat(2), chunks, async (clientHas, serverHas, at, rounds, sent) => {
      const { client, server } = hosts(clientHas, serverHas);
      for (let i = 0; i <= rounds; i++) {
        const [clientWire, serverWire] = wires();
        for (const wire of [clientWire, serverWire]) wire.transit = (bytes) => cutAt(bytes, at);
        const meeting = await meet(client.context, server.context, [clientWire, serverWire]);
        if ('parts' in meeting.client) {
          assertConnected(meeting);
          assertDelivers(meeting, sent);
        } else {
          assert.ok('reason' in meeting.client && 'reason' in meeting.server, inspect(meeting));
          assert.notEqual(meeting.client.byPeer, meeting.server.byPeer);
          await assertPlain(clientWire, serverWire);
        }
        release(meeting);
      }
      await assertNothingLeft(client, server);
    }),

  'whatever happens to a message on its way, both ends come to an end and keep nothing': () =>
    fc.asyncProperty(end, end, damage, async (clientHas, serverHas, { message, at, value }) => {
      const { client, server } = hosts(clientHas, serverHas);
      const [clientWire, serverWire] = wires();
      let count = 0;
      for (const wire of [clientWire, serverWire]) {
        wire.transit = (bytes) => {
          if (count++ !== message) return [bytes];
          const damaged = Buffer.from(bytes);
          damaged[((at % bytes.length) + bytes.length) % bytes.length] = value;
          return [damaged];
        };
      }
      const ends = [
        shakeHands('client', clientWire, client.context),
        shakeHands('server', serverWire, server.context),
      ] as const;
      await arrived();
      for (const wire of [clientWire, serverWire]) wire.end();
      const [atClient, atServer] = await Promise.all(ends);
      release({ client: atClient, server: atServer });
      await assertNothingLeft(client, server);
    }),

  'any message encodes to bytes that decode to it': () =>
    fc.property(fc.oneof<fc.Arbitrary<ClcMessage>[]>(proposal, acceptConfirm, decline), (message) => {
      assert.deepEqual(decodeClc(encodeClc(message)), message);
    }),

  'any bytes are a message that encodes to them, or a ClcWireError': () =>
    fc.property(
      fc
        .constantFrom(...vectors)
        .chain(({ bytes }) => fc.tuple(mutated(bytes), fc.nat(bytes.length), fc.boolean()))
        .map(([bytes, length, isCut]) => withLength(isCut ? bytes.subarray(0, length) : bytes)),
      (bytes) => void checkAny(bytes),
    ),
};
