/**
 * Random lives of connections between two programs, played over plain TCP and over whatever Isthmus makes of them at the same time.
 * What TCP itself leaves open is only bounded; all else has to come out the same.
 *
 * ISTHMUS_TEST_RUNS sets the number of runs of each property, ISTHMUS_TEST_SEED the seed.
 */
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { cannotMove } from './commands.ts';
import type { Act, Command, Last, Outcome, Report, Script } from './life.ts';
import { type Program, Stage } from './two-programs.ts';

const PLAYER = new URL('./player.js', import.meta.url).href;
const skip = cannotMove();

/** Programs differ in more than when they want to move, so that rings of different lengths meet. */
const KINDS = {
  eager: { ISTHMUS_POLICY: 'eager', ISTHMUS_DMB_BYTES: '16384' },
  lazy: { ISTHMUS_POLICY: 'lazy', ISTHMUS_LAZY_BYTES: '20000', ISTHMUS_LAZY_MS: '5', ISTHMUS_ACCESS: 'store' },
  /** Moves when it is told to. */
  off: { ISTHMUS_POLICY: 'off', ISTHMUS_DMB_BYTES: '131072' },
  /** Without Isthmus. */
  plain: { NODE_OPTIONS: '' },
} as const;
type Kind = keyof typeof KINDS;
const MOVING: readonly Kind[] = ['eager', 'lazy', 'off'];

/** A program tells itself of a connection that does not close, sooner. */
const LIMIT_MS = 40_000;

let stage: Stage;
/** Programs that live on: by kind, one that connects and one that accepts. */
const standing = new Map<Kind, readonly [Player, Player]>();
/** So that the lives are known to do what they are for. */
const seen = { lives: 0, moved: 0, outShm: 0 };

/** One program that plays what it is told. */
class Player {
  readonly program: Program;
  readonly #waiting = new Map<string, (report: Report) => void>();
  readonly #failed: Promise<never>;

  constructor(kind: Kind) {
    this.program = stage.run(`await import(${JSON.stringify(PLAYER)});`, [kind], {
      ISTHMUS_LINGER_MS: '2000',
      ...KINDS[kind],
    });
    createInterface(this.program.child.stdout as NodeJS.ReadableStream).on('line', (line) => {
      const report = JSON.parse(line) as Report;
      if ('dying' in report) this.#waiting.get('dying')?.(report);
      else this.#waiting.get(`${report.id} ${Object.keys(report).find((key) => key !== 'id')}`)?.(report);
    });
    this.#failed = this.program.exited.then((how) => {
      throw new Error(`a program ended: ${JSON.stringify(how)} ${this.program.stderr}`);
    });
    this.#failed.catch(() => {});
  }

  tell(command: Command): void {
    this.program.tell(JSON.stringify(command));
  }

  /** The report on a life that has this key; rejects when the program ends before. */
  async reports<Key extends 'port' | 'connected' | 'outcome'>(
    id: number,
    key: Key,
  ): Promise<Extract<Report, Record<Key, unknown>>> {
    return (await this.#heard(`${id} ${key}`)) as Extract<Report, Record<Key, unknown>>;
  }

  async dies(): Promise<Map<number, Outcome>> {
    const { dying } = (await this.#heard('dying')) as Extract<Report, { dying: unknown }>;
    await this.program.exited;
    return new Map(dying.map(({ id, outcome }) => [id, outcome]));
  }

  #heard(key: string): Promise<Report> {
    let limit: NodeJS.Timeout | undefined;
    const heard = new Promise<Report>((resolve, reject) => {
      this.#waiting.set(key, resolve);
      limit = setTimeout(() => reject(new Error(`not heard: ${key} ${this.program.stderr}`)), LIMIT_MS);
    });
    return Promise.race([heard, this.#failed]).finally(() => {
      clearTimeout(limit);
      this.#waiting.delete(key);
    });
  }
}

before(() => {
  stage = new Stage();
  if (skip === false)
    for (const kind of [...MOVING, 'plain'] as const) standing.set(kind, [new Player(kind), new Player(kind)]);
});
after(() => stage.close());

interface Life {
  readonly client: Script;
  readonly server: Script;
}
interface Outcomes {
  readonly client: Outcome;
  readonly server: Outcome;
}

let nextId = 1;

/** Plays lives at once; each between the programs that are given for it. `mortal`: the one that dies of them. */
async function play(
  lives: readonly Life[],
  players: readonly (readonly [client: Player, server: Player])[],
  mortal: Player | null = null,
): Promise<Outcomes[]> {
  const ids = lives.map(() => nextId++);
  const dying = mortal?.dies();
  dying?.catch(() => {});
  const rows = lives.map(({ client, server }, i) => {
    const [clients, servers] = players[i] as readonly [Player, Player];
    return { id: ids[i] as number, client, server, clients, servers };
  });
  const outcomeOf = async (player: Player, id: number): Promise<Outcome> => {
    const report = player.reports(id, 'outcome').then(({ outcome }) => outcome);
    if (player !== mortal || dying === undefined) return await report;
    // Some of its connections may be over before.
    return await Promise.any([report, dying.then((all) => all.get(id) ?? Promise.reject(new Error('not told')))]);
  };
  const over = rows.map(async ({ id, clients, servers }) => {
    const [client, server] = await Promise.all([outcomeOf(clients, id), outcomeOf(servers, id)]);
    return { client, server };
  });
  for (const one of over) one.catch(() => {});
  await Promise.all(
    rows.map(async ({ id, client, server, clients, servers }) => {
      const both = [clients.reports(id, 'connected'), servers.reports(id, 'connected')];
      for (const one of both) one.catch(() => {});
      const port = servers.reports(id, 'port');
      servers.tell({ does: 'serve', id, script: server, salts: [2 * id, 2 * id + 1] });
      clients.tell({ does: 'connect', id, script: client, salts: [2 * id + 1, 2 * id], port: (await port).port });
      await Promise.all(both);
    }),
  );
  for (const player of new Set(rows.flatMap(({ clients, servers }) => [clients, servers]))) player.tell({ does: 'go' });
  return await Promise.all(over);
}

// --- What is asked of outcomes, over TCP and otherwise ---

const IN_ORDER = ['end', 'close'];

/** Holds for every life. `dead`: the end whose program died. */
function judge({ client, server }: Life, outcomes: Outcomes, dead: 'client' | 'server' | null = null): void {
  for (const [mine, other, name, script, peers] of [
    [outcomes.client, outcomes.server, 'client', client, server],
    [outcomes.server, outcomes.client, 'server', server, client],
  ] as const) {
    assert.equal(mine.wrongAt, null, 'a wrong byte');
    assert.ok(mine.received <= other.written, `${mine.received} bytes received of ${other.written}`);
    assert.equal(mine.outOfTurn, 0, 'callbacks out of turn');
    if (name === dead) continue;
    assert.equal(mine.stuck, null, 'it does not close');
    const { events } = mine;
    const errors = events.filter((event) => event.startsWith('error'));
    assert.match(events.join(), /^(end,)?(error (ECONNRESET|EPIPE),close hadError|close)$/);
    if (errors.length > 0)
      assert.ok(
        [script.last, peers.last].some((last) => last !== 'end'),
        'an error',
      );
    // Nothing comes from here that the other one could leave unread: it loses nothing of what it was told is on its way.
    if (wholeWrites(script) === 0 && script.last === 'end') {
      if (peers.last === 'destroy' || peers.last === 'kill')
        assert.ok(mine.received >= other.acknowledged, 'lost bytes');
      else if (peers.last !== 'reset') assert.equal(mine.received, other.written, 'lost bytes');
      // Killed while it waited for room: no clean end.
      const isCutShort = peers.last === 'kill' && mine.received < other.written;
      if (peers.last !== 'reset' && !isCutShort) assert.deepEqual(events, IN_ORDER);
    }
  }
  if (client.last === 'end' && server.last === 'end' && dead === null) {
    for (const [mine, other] of [
      [outcomes.client, outcomes.server],
      [outcomes.server, outcomes.client],
    ] as const) {
      assert.equal(mine.received, other.written);
      assert.deepEqual(mine.events, IN_ORDER);
      assert.deepEqual(
        [mine.bytesRead, mine.bytesWritten, mine.acknowledged, mine.unanswered],
        [mine.received, mine.written, mine.written, 0],
      );
    }
  }
}

function wholeWrites({ acts }: Script): number {
  return acts.reduce((sum, act) => sum + (act[0] === 'write' || act[0] === 'text' ? act[1] : 0), 0);
}

/** What TCP leaves no choice about: the same in every run. Ends that follow the other's end may write less or more. */
function determined({ client, server }: Life, outcomes: Outcomes): unknown {
  if (client.last !== 'end' || server.last !== 'end' || !client.halfOpen || !server.halfOpen) return null;
  return (['client', 'server'] as const).map((name) => {
    const { outShm: _, stuck: __, ...rest } = outcomes[name];
    return rest;
  });
}

function count(outcomes: readonly Outcomes[]): void {
  for (const { client, server } of outcomes) {
    seen.lives++;
    seen.outShm += client.outShm + server.outShm;
    if (client.outShm + server.outShm > 0) seen.moved++;
  }
}

// --- Random lives ---

const length = fc.oneof(
  { weight: 4, arbitrary: fc.nat(200) },
  { weight: 3, arbitrary: fc.nat(20_000) },
  { weight: 2, arbitrary: fc.nat(300 * 1024) },
);
const other: fc.Arbitrary<Act> = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(fc.constant('wait' as const), fc.nat(6)) },
  { weight: 2, arbitrary: fc.constant(['drain'] as const) },
  { weight: 1, arbitrary: fc.constantFrom(['cork'] as const, ['uncork'] as const, ['pause'] as const) },
  { weight: 2, arbitrary: fc.constant(['resume'] as const) },
  { weight: 1, arbitrary: fc.constant(['restore'] as const) },
  { weight: 2, arbitrary: fc.constant(['accelerate'] as const) },
);
const writing: fc.Arbitrary<Act> = fc.tuple(fc.constantFrom('write', 'write', 'text'), length);
const talk = fc.oneof({ weight: 1, arbitrary: writing }, { weight: 1, arbitrary: other });
interface Shape {
  readonly lasts: readonly Last[];
  readonly silent?: boolean;
  readonly accepted?: boolean;
  readonly maxActs?: number;
}

function script({ lasts, silent = false, accepted = false, maxActs = 16 }: Shape): fc.Arbitrary<Script> {
  return fc
    .record({
      acts: fc.array(silent ? other : talk, { maxLength: maxActs, size: 'max' }),
      last: fc.constantFrom(...lasts),
      reading: fc.constantFrom('data', 'data', 'readable', accepted ? 'data' : 'onread'),
      halfOpen: fc.boolean(),
      highWaterMark: fc.constantFrom(65_536, 65_536, 1000, 500_000),
    })
    .map((one) => one as Script);
}

/** Both ends come to their ends in the given ways. */
function life(client: Shape, server: Shape): fc.Arbitrary<Life> {
  return fc
    .record({ warm: fc.boolean(), client: script(client), server: script({ ...server, accepted: true }) })
    .map(({ warm, ...scripts }) => (warm ? warmedUp(scripts) : scripts));
}

/** Moves before the rest begins. A connection moves when bytes pass after it was looked at. */
function warmedUp({ client, server }: Life, limitMs = 100): Life {
  const before = (script: Script): readonly Act[] =>
    wholeWrites(script) === 0
      ? [['accelerate'], ['settle', limitMs]]
      : [['write', 3], ['accelerate'], ['wait', limitMs / 10], ['write', 3], ['settle', limitMs]];
  return {
    client: { ...client, acts: [...before(client), ...client.acts] },
    server: { ...server, acts: [...before(server), ...server.acts] },
  };
}

const kinds = fc.tuple(fc.constantFrom(...MOVING), fc.constantFrom(...MOVING));
const atOnce = (one: fc.Arbitrary<Life>) => fc.array(fc.tuple(one, kinds), { minLength: 1, maxLength: 6, size: 'max' });

function parameters(numRuns: number): fc.Parameters<unknown> {
  const { ISTHMUS_TEST_RUNS, ISTHMUS_TEST_SEED } = process.env;
  return {
    numRuns: ISTHMUS_TEST_RUNS ? Number(ISTHMUS_TEST_RUNS) : numRuns,
    ...(ISTHMUS_TEST_SEED ? { seed: Number(ISTHMUS_TEST_SEED) } : {}),
    // What fails once in a while does not get smaller by trying.
    endOnFailure: true,
  };
}

const of = (kind: Kind) => standing.get(kind) as readonly [Player, Player];

async function sameAsTcp(batch: readonly (readonly [Life, readonly [Kind, Kind]])[]): Promise<void> {
  const lives = batch.map(([one]) => one);
  const [plain, moving] = await Promise.all([
    play(
      lives,
      lives.map(() => of('plain')),
    ),
    play(
      lives,
      batch.map(([, [client, server]]) => [of(client)[0], of(server)[1]]),
    ),
  ]);
  for (const [i, one] of lives.entries()) {
    const [over, here] = [plain[i] as Outcomes, moving[i] as Outcomes];
    try {
      judge(one, over);
    } catch (error) {
      throw new Error(`over plain TCP: ${JSON.stringify(over)}`, { cause: error });
    }
    try {
      judge(one, here);
      assert.deepEqual(determined(one, here), determined(one, over));
    } catch (error) {
      throw new Error(`life ${i}: ${JSON.stringify(here)}`, { cause: error });
    }
  }
  count(moving);
}

test('connections that end in order: all is as on TCP', { skip }, async () => {
  const ordered = life({ lasts: ['end'] }, { lasts: ['end'] });
  await fc.assert(fc.asyncProperty(atOnce(ordered), sameAsTcp), parameters(60));
});

test('connections that end in any way: what arrives is a beginning of what was sent, and both close', {
  skip,
}, async () => {
  const lasts = ['end', 'destroy', 'destroySoon', 'reset'] as const;
  const any = life({ lasts }, { lasts });
  await fc.assert(fc.asyncProperty(atOnce(any), sameAsTcp), parameters(60));
});

test('who ends without having left anything unread loses nothing that was on its way', { skip }, async () => {
  const lasts = ['destroy', 'destroySoon', 'reset'] as const;
  const silent = { lasts: ['end'], silent: true } as const;
  const oneSided = fc.oneof(life({ lasts }, silent), life(silent, { lasts }));
  await fc.assert(fc.asyncProperty(atOnce(oneSided), sameAsTcp), parameters(45));
});

/** More than a kernel keeps for a connection is lost at `process.exit()`, also on TCP. */
const KERNEL_KEEPS = 1_000_000;

test('a program that dies: what it wrote arrives as on TCP, and the other one goes on', { skip }, async () => {
  const deaths = fc.constantFrom<Last>('exit', 'exit', 'throw', 'kill');
  const batch = fc.record({
    /** Which end's program it is. */
    mortal: fc.constantFrom('client' as const, 'server' as const),
    how: deaths,
    lives: fc.array(
      fc.tuple(
        script({ lasts: ['end'], maxActs: 8 }),
        fc.oneof(
          script({ lasts: ['end'], silent: true, accepted: true, maxActs: 8 }),
          script({ lasts: ['end'], accepted: true, maxActs: 8 }),
        ),
      ),
      { minLength: 1, maxLength: 4, size: 'max' },
    ),
    kinds,
    warm: fc.boolean(),
  });
  const run = async (mortal: 'client' | 'server', lives: readonly Life[], dying: Kind, surviving: Kind) => {
    const one = new Player(dying);
    const [asClient, asServer] = of(surviving);
    const pair: readonly [Player, Player] = mortal === 'client' ? [one, asServer] : [asClient, one];
    return await play(
      lives,
      lives.map(() => pair),
      one,
    );
  };
  await fc.assert(
    fc.asyncProperty(batch, async ({ mortal, how, lives: scripts, warm, kinds: [dying, surviving] }) => {
      const lives = scripts.map(([dies, survives], i): Life => {
        // The first one's end is the end of all.
        const acts = dies.acts.filter(([act]) => act !== 'cork'); // what is held back is lost, also on TCP
        const mine = { ...dies, acts, last: i === 0 ? how : 'end', reading: 'data' } as const;
        const other = { ...survives, reading: 'data' } as const;
        const both = mortal === 'client' ? { client: mine, server: other } : { client: other, server: mine };
        return warm ? warmedUp(both, 500) : both; // the program has just begun
      });
      fc.pre(lives.every(({ [mortal]: one }) => wholeWrites(one) <= KERNEL_KEEPS));
      const [plain, moving] = await Promise.all([
        run(mortal, lives, 'plain', 'plain'),
        run(mortal, lives, dying, surviving),
      ]);
      for (const [i, one] of lives.entries()) {
        // All ends of that program died like the first one's.
        const died = { ...one, [mortal]: { ...one[mortal], last: how } };
        for (const [name, outcomes] of [
          ['over plain TCP', plain],
          ['moving', moving],
        ] as const) {
          const outcome = outcomes[i] as Outcomes;
          try {
            judge(died, outcome, mortal);
          } catch (error) {
            throw new Error(`${name}, life ${i}: ${JSON.stringify(outcome)}`, { cause: error });
          }
        }
      }
      count(moving);
    }),
    parameters(12),
  );
});

test('many of them moved, and no program said anything', { skip }, (t) => {
  t.diagnostic(JSON.stringify(seen));
  assert.ok(seen.moved > seen.lives / 10, JSON.stringify(seen));
  for (const [client, server] of standing.values()) assert.equal(client.program.stderr + server.program.stderr, '');
});
