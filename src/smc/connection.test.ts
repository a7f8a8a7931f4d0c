import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LoopbackFabric } from '../devices/loopback/index.ts';
import type { Client, Dmb, RemoteDmb } from '../ism/index.ts';
import { type Connection, openConnection } from './connection.ts';
import { PeerFault } from './errors.ts';
import { FLAG, HEAD_BYTES, WORD } from './head.ts';
import { CLOSE, STATE_NAMES } from './states.ts';

const nobody: Client = { name: 'test', addDevice() {}, removeDevice() {}, handleSignal() {}, handleEvent() {} };
const RING_BYTES = 256;

interface End {
  readonly connection: Connection;
  readonly dmb: Dmb;
  /** The peer's DMB. */
  readonly remote: RemoteDmb;
}

async function connect(): Promise<readonly [End, End]> {
  const fabric = new LoopbackFabric();
  const [a, b] = [fabric.createDevice(), fabric.createDevice()];
  const lengthBytes = HEAD_BYTES + RING_BYTES;
  const dmbA = await a.registerDmb({ peer: b.gid, lengthBytes, client: nobody });
  const dmbB = await b.registerDmb({ peer: a.gid, lengthBytes, client: nobody });
  const [remoteB, remoteA] = [await a.attachDmb(dmbB.token), await b.attachDmb(dmbA.token)];
  return [
    {
      connection: openConnection({ device: a, dmb: dmbA, remote: remoteB }, 0),
      dmb: dmbA,
      remote: remoteB,
    },
    {
      connection: openConnection({ device: b, dmb: dmbB, remote: remoteA }, 0),
      dmb: dmbB,
      remote: remoteA,
    },
  ];
}

function look(...ends: readonly End[]): void {
  for (const { connection } of ends) connection.look();
}

async function moved(): Promise<readonly [End, End]> {
  const [a, b] = await connect();
  for (const { connection } of [a, b]) connection.in.arm();
  look(a, b);
  for (const { connection } of [a, b]) connection.out.cut(0);
  look(a, b);
  return [a, b];
}

test('every state of closing has a row for every event, and a name', () => {
  const events = new Set(Object.keys(CLOSE.INIT));
  for (const [state, rows] of Object.entries(CLOSE)) {
    assert.deepEqual(new Set(Object.keys(rows)), events, state);
    assert.ok(STATE_NAMES[state as keyof typeof STATE_NAMES]);
  }
});

test('active and passive close', async () => {
  const [a, b] = await moved();
  a.connection.close(false);
  assert.equal(a.connection.state, 'PEERCLOSEWAIT1');
  look(b);
  assert.equal(b.connection.state, 'APPCLOSEWAIT1');
  b.connection.close(false);
  assert.equal(b.connection.state, 'CLOSED');
  look(a);
  assert.equal(a.connection.state, 'CLOSED');
});

test('half close from either side, then close', async () => {
  const [a, b] = await moved();
  a.connection.end();
  look(b);
  assert.deepEqual([a.connection.state, b.connection.state], ['PEERCLOSEWAIT1', 'APPCLOSEWAIT1']);
  b.connection.end();
  look(a);
  assert.deepEqual([a.connection.state, b.connection.state], ['PEERCLOSEWAIT2', 'APPCLOSEWAIT2']);
  a.connection.close(false);
  look(b);
  b.connection.close(false);
  look(a);
  assert.deepEqual([a.connection.state, b.connection.state], ['CLOSED', 'CLOSED']);
});

test('both close at once', async () => {
  const [a, b] = await moved();
  a.connection.close(false);
  b.connection.close(false);
  look(a, b);
  assert.deepEqual([a.connection.state, b.connection.state], ['CLOSED', 'CLOSED']);
});

test('an abort is told, and answered by the close of the program', async () => {
  const [a, b] = await moved();
  a.connection.close(true);
  look(b);
  assert.equal(b.connection.state, 'PROCESSABORT');
  assert.equal(b.connection.endsWithReset(), true);
  b.connection.close(false);
  look(a);
  assert.deepEqual([a.connection.state, b.connection.state], ['CLOSED', 'CLOSED']);
});

test('a peer that dies without a goodbye: reset if it left bytes of ours, else an end', async () => {
  const [a, b] = await moved();
  assert.equal(a.connection.endsWithReset(), false);
  a.connection.out.write(Buffer.alloc(10));
  assert.equal(a.connection.endsWithReset(), true);
  look(b);
  assert.equal(b.connection.in.take(100)?.length, 10);
  look(a);
  assert.equal(a.connection.endsWithReset(), false);
  a.connection.die();
  assert.equal(a.connection.state, 'PEERABORTWAIT');
});

test('words of another generation are ignored', async () => {
  const [a, b] = await connect();
  b.remote.storeWord(4 * WORD.GENERATION, a.dmb.generation + 1);
  b.remote.storeWord(4 * WORD.READY, 77);
  b.remote.storeWord(4 * WORD.FLAGS, FLAG.CLOSED);
  b.remote.storeWord(4 * WORD.NEWS, 99);
  a.connection.look();
  assert.equal(a.connection.state, 'ACTIVE');
  assert.equal(a.connection.out.state, 'TCP');
});

for (const [what, words] of [
  ['READY of an epoch to come', [['READY', 2]]],
  ['more consumed than was produced', [['CONSUMED', 1]]],
  [
    'a cut that lies in the past',
    [
      ['CUT_AT_LOW', -1],
      ['CUT_AT_HIGH', -1],
      ['CUT', 1],
    ],
  ],
] as const) {
  test(`a peer that says ${what} is at fault`, async () => {
    const [a, b] = await connect();
    a.connection.in.tcpBytes(Buffer.alloc(5));
    a.connection.in.arm();
    look(b);
    for (const [word, value] of [...words, ['NEWS', 99]] as const) b.remote.storeWord(4 * WORD[word], value);
    if (what.startsWith('a cut')) {
      // 2^64 - 1 is no past, but a number that never comes: the connection waits for it, and its end is missed bytes.
      a.connection.look();
      assert.throws(() => a.connection.in.tcpEnd(), PeerFault);
    } else {
      assert.throws(() => a.connection.look(), PeerFault);
    }
  });
}

test('whatever a peer writes into whatever word: a fault of the peer or bytes of its ring, nothing else', async () => {
  const word = fc.constantFrom(...Object.values(WORD), 13, 14, 15);
  const value = fc.oneof(fc.integer({ min: -3, max: 600 }), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }));
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.tuple(fc.constant('store' as const), word, value) },
    { weight: 3, arbitrary: fc.tuple(fc.constant('look' as const)) },
    { weight: 2, arbitrary: fc.tuple(fc.constant('take' as const)) },
    { weight: 1, arbitrary: fc.tuple(fc.constant('tcp' as const), fc.integer({ min: 1, max: 50 })) },
    { weight: 1, arbitrary: fc.tuple(fc.constant('write' as const), fc.integer({ min: 1, max: 400 })) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        ['arm'] as const,
        ['retract'] as const,
        ['back'] as const,
        ['cut'] as const,
        ['end'] as const,
        ['tcpEnd'] as const,
        ['close'] as const,
        ['die'] as const,
      ),
    },
  );
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(step, { maxLength: 60, size: 'max' }), async (isMoved, steps) => {
      const [victim, attacker] = isMoved ? await moved() : await connect();
      const { connection } = victim;
      let taken = 0;
      try {
        for (const one of steps) {
          switch (one[0]) {
            case 'store':
              attacker.remote.storeWord(4 * one[1], one[2]);
              break;
            case 'look':
              connection.look();
              break;
            case 'take': {
              const bytes = connection.in.take(1000);
              connection.in.taken();
              assert.ok(bytes === null || bytes.length <= RING_BYTES + 50 * steps.length);
              taken += bytes?.length ?? 0;
              break;
            }
            case 'tcp':
              connection.in.tcpBytes(Buffer.alloc(one[1]));
              break;
            case 'write':
              if (connection.out.isMoved) assert.ok(connection.out.write(Buffer.alloc(one[1])) <= RING_BYTES);
              break;
            case 'arm':
              connection.in.arm();
              break;
            case 'retract':
              connection.in.retract();
              break;
            case 'back':
              connection.out.back();
              break;
            case 'cut':
              if (connection.out.mayCut) connection.out.cut(0);
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
          }
        }
      } catch (error) {
        if (!(error instanceof PeerFault)) throw error;
      }
      assert.ok(taken < 1e6);
    }),
    { numRuns: 3000 },
  );
});
