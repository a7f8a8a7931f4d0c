/** What only Isthmus' own layout has: its words, and what a peer may write into them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ringBytes } from '../ism/index.ts';
import { act, connect, DMB_BYTES, look, moved } from './connection.test.helper.ts';
import { PeerFault } from './errors.ts';
import { FLAG, WORD } from './head.ts';

test('words of another generation are ignored', async () => {
  const [a, b] = await connect('isthmus');
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
    const [a, b] = await connect('isthmus');
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
      const [victim, attacker] = isMoved ? await moved('isthmus') : await connect('isthmus');
      const { connection } = victim;
      let taken = 0;
      try {
        for (const one of steps) {
          switch (one[0]) {
            case 'store':
              attacker.remote.storeWord(4 * one[1], one[2]);
              break;
            case 'take': {
              const bytes = connection.in.take(1000);
              connection.in.taken();
              assert.ok(bytes === null || bytes.length <= ringBytes(DMB_BYTES) + 50 * steps.length);
              taken += bytes?.length ?? 0;
              break;
            }
            case 'tcp':
              connection.in.tcpBytes(Buffer.alloc(one[1]));
              break;
            case 'write':
              if (connection.out.isMoved) assert.ok(connection.out.write(Buffer.alloc(one[1])) <= ringBytes(DMB_BYTES));
              break;
            case 'arm':
              connection.in.arm();
              break;
            case 'retract':
              connection.in.retract();
              break;
            case 'cut':
              if (connection.out.mayCut) connection.out.cut(0);
              break;
            default:
              act(connection, one[0]);
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
