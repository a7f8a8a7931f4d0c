import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { FabricCore, type FabricIo } from './core.ts';
import type { FabricLimits } from './limits.ts';
import type { Shown } from './match.ts';
import type { FabricMessage, MessageByName } from './protocol.ts';

/** A system in which descriptors are numbers and time is a variable. */
class World implements FabricIo {
  readonly sent: { to: number; message: FabricMessage }[] = [];
  readonly sockets = new Map<number, Shown>();
  readonly open = new Set<number>();
  readonly hungUp: number[] = [];
  readonly timers = new Set<() => void>();
  closes: (() => void)[] = [];
  clock = 0;
  descriptorsLeft = 1000;

  send(to: number, message: FabricMessage): void {
    this.sent.push({ to, message });
  }
  hangUp(id: number): void {
    this.hungUp.push(id);
  }
  inspect(fd: number): Shown {
    assert.ok(this.open.has(fd), 'looked at while it is held');
    return this.sockets.get(fd) ?? null;
  }
  close(fd: number, closed: () => void): void {
    assert.ok(this.open.delete(fd), 'closed once');
    this.closes.push(closed);
  }
  createPair(): ReturnType<FabricIo['createPair']> {
    if (this.descriptorsLeft <= 0) throw new Error('EMFILE');
    return { one: [1, 2, 3], other: [4, 5, 6] };
  }
  after(_delayMs: number, expired: () => void): { cancel(): void } {
    this.timers.add(expired);
    return { cancel: () => this.timers.delete(expired) };
  }
  now(): number {
    return this.clock;
  }

  /** Lets the helper thread close what it was given. */
  settle(): void {
    for (const closed of this.closes.splice(0)) closed();
  }
  take(to: number): FabricMessage[] {
    const mine = this.sent.filter((one) => one.to === to).map((one) => one.message);
    for (let i = this.sent.length - 1; i >= 0; i--) if (this.sent[i]?.to === to) this.sent.splice(i, 1);
    return mine;
  }
  types(to: number): string[] {
    return this.take(to).map(({ type }) => type);
  }
}

let world: World;
let core: FabricCore;
let nextFd = 100;

function start(limits: Partial<FabricLimits> = {}): void {
  world = new World();
  core = new FabricCore(world, limits);
}
beforeEach(() => start());

function join(id: number, uid = 1000): void {
  core.hello(id, { pid: id, uid }, { type: 'HELLO', versionMin: 1, versionMax: 1, thread: 0, program: 'test' });
  assert.deepEqual(world.types(id), ['WELCOME']);
}

const A = { address: '127.0.0.1', port: 1000 };
const B = { address: '127.0.0.1', port: 80 };

/** The client's end of the connection from A to B, or the server's. */
function end(side: 'client' | 'server', changes: Partial<MessageByName<'ANNOUNCE'>> = {}): MessageByName<'ANNOUNCE'> {
  const [local, peer, role, socketCookie] = side === 'client' ? [A, B, 0, 11n] : [B, A, 1, 22n];
  return { type: 'ANNOUNCE', claim: 7, role, local, peer, netnsCookie: 5n, socketCookie, ...changes } as const;
}

/** The two ends of a connection of their own: its claim is the client's port. */
function ends(claim: number) {
  const local = { ...A, port: claim };
  return [
    end('client', { claim, local, socketCookie: BigInt(claim) }),
    end('server', { claim, peer: local, socketCookie: BigInt(1000 + claim) }),
  ] as const;
}

function show(
  id: number,
  announced: MessageByName<'ANNOUNCE'>,
  changes: Partial<NonNullable<Shown>> | null = {},
): void {
  const fd = nextFd++;
  world.open.add(fd);
  world.sockets.set(fd, changes === null ? null : { ...announced, established: true, lingers: false, ...changes });
  core.message(id, { type: 'SHOWN', claim: announced.claim }, fd);
}

test('two ends are asked to show, proven, introduced and told', () => {
  join(1);
  join(2);
  core.message(1, end('client'), null);
  assert.deepEqual(world.types(1), []);
  core.message(2, end('server'), null);
  assert.deepEqual(world.types(1), ['SHOW']);
  assert.deepEqual(world.types(2), ['SHOW']);
  show(1, end('client'));
  show(2, end('server'));
  assert.deepEqual(world.sent, [], 'nothing is said before the sockets are closed');
  assert.equal(world.open.size, 0);
  world.settle();
  const [forOne, forTwo] = [world.take(1), world.take(2)];
  assert.deepEqual(
    forOne.map(({ type }) => type),
    ['INTRODUCE', 'MATCHED'],
  );
  assert.deepEqual(
    forTwo.map(({ type }) => type),
    ['INTRODUCE', 'MATCHED'],
  );
  const [one, two] = [forOne[1] as MessageByName<'MATCHED'>, forTwo[1] as MessageByName<'MATCHED'>];
  assert.equal(one.match, two.match);
  assert.deepEqual([one.role, two.role], [0, 1]);
});

test('a pair is introduced once, and again after it has ended', () => {
  join(1);
  join(2);
  const connect = (claim: number) => {
    const [client, server] = [end('client', { claim }), end('server', { claim })];
    core.message(1, client, null);
    core.message(2, server, null);
    show(1, client);
    show(2, server);
    world.settle();
    const introduced = world.take(1).find(({ type }) => type === 'INTRODUCE') as MessageByName<'INTRODUCE'> | undefined;
    assert.equal(world.types(2).includes('INTRODUCE'), introduced !== undefined);
    return introduced;
  };
  const first = connect(1);
  assert.ok(first !== undefined);
  assert.equal(connect(2), undefined);
  const { peer, pair } = first;
  core.message(1, { type: 'PAIR_GONE', peer, pair }, null);
  const second = connect(3);
  assert.ok(second !== undefined && second.pair !== pair);
  core.message(1, { type: 'PAIR_GONE', peer, pair }, null);
  assert.equal(connect(4), undefined, 'the end of an older pair was taken for that of the new one');
});

test('a claim whose socket is gone does not match a later connection with the same names', () => {
  join(1);
  join(2);
  join(3);
  core.message(1, end('client'), null); // its socket dies unnoticed, and the names live again in process 3
  core.message(2, end('server'), null);
  core.message(3, end('client', { claim: 9, socketCookie: 33n }), null);
  show(2, end('server'));
  core.message(1, { type: 'GONE', claim: 7 }, null);
  world.settle();
  assert.deepEqual(world.types(1), ['SHOW']);
  assert.deepEqual(world.types(2), ['SHOW', 'RELEASED', 'SHOW']);
  assert.deepEqual(world.types(3), ['SHOW'], 'the other claim is tried');
  show(2, end('server'));
  show(3, end('client', { claim: 9, socketCookie: 33n }));
  world.settle();
  assert.deepEqual(world.types(1), []);
  assert.deepEqual(world.types(3), ['INTRODUCE', 'MATCHED']);
});

for (const [what, changes, reason] of [
  ['another socket than was announced', { socketCookie: 99n }, 2],
  ['a socket with other names', { local: { address: '127.0.0.1', port: 1001 } }, 2],
  ['a socket of another network namespace', { netnsCookie: 6n }, 2],
  ['a socket that is not established', { established: false }, 2],
  ['a socket that lingers', { lingers: true }, 3],
  ['no TCP socket at all', null, 2],
] as const) {
  test(`who shows ${what} is declined, and the other end waits on`, () => {
    join(1);
    join(2);
    core.message(1, end('client'), null);
    core.message(2, end('server'), null);
    show(1, end('client'), changes);
    show(2, end('server'));
    world.settle();
    assert.deepEqual(world.take(1).at(-1), { type: 'DECLINED', claim: 7, reason });
    assert.deepEqual(world.types(2), ['SHOW', 'RELEASED']);
    assert.equal(world.open.size, 0);
    // With the true one it comes to its match.
    core.message(1, end('client'), null);
    show(1, end('client'));
    show(2, end('server'));
    world.settle();
    assert.deepEqual(world.types(2), ['SHOW', 'INTRODUCE', 'MATCHED']);
  });
}

test('a false claim of an end does not keep the true one away', () => {
  for (const id of [1, 2, 3]) join(id);
  core.message(1, end('client', { socketCookie: 99n }), null);
  core.message(2, end('server'), null);
  core.message(3, end('client'), null);
  show(1, end('client'));
  show(2, end('server'));
  world.settle();
  assert.deepEqual(world.types(1), ['SHOW', 'DECLINED']);
  assert.deepEqual(world.types(2), ['SHOW', 'RELEASED', 'SHOW']);
  show(2, end('server'));
  show(3, end('client'));
  world.settle();
  assert.deepEqual(world.types(3), ['SHOW', 'INTRODUCE', 'MATCHED']);
});

test('one socket in two processes is refused to both', () => {
  join(1);
  join(2);
  core.message(1, end('client'), null);
  core.message(2, end('client', { claim: 3 }), null);
  assert.deepEqual(world.take(1), [{ type: 'DECLINED', claim: 7, reason: 1 }]);
  assert.deepEqual(world.take(2), [{ type: 'DECLINED', claim: 3, reason: 1 }]);
});

test('a socket that is connected to itself is declined', () => {
  join(1);
  core.message(1, end('client', { peer: A }), null);
  assert.deepEqual(world.take(1), [{ type: 'DECLINED', claim: 7, reason: 7 }]);
});

test('who does not show in time is declined, what the other one showed is closed', () => {
  join(1);
  join(2);
  core.message(1, end('client'), null);
  core.message(2, end('server'), null);
  show(1, end('client'));
  for (const expired of world.timers) expired();
  world.settle();
  assert.deepEqual(world.types(1), ['SHOW', 'RELEASED']);
  assert.deepEqual(world.types(2), ['SHOW', 'DECLINED']);
  assert.equal(world.open.size, 0);
});

test('a partition that leaves in the middle of a proof leaves nothing behind', () => {
  join(1);
  join(2);
  core.message(1, end('client'), null);
  core.message(2, end('server'), null);
  show(1, end('client'));
  core.left(1);
  world.settle();
  assert.equal(world.open.size, 0);
  assert.equal(core.status().claims, 1);
  core.left(2);
  assert.equal(core.status().claims, 0);
  assert.equal(core.partitionCount, 0);
});

test('a socket that is shown without being asked for is closed', () => {
  join(1);
  show(1, end('client'));
  world.settle();
  assert.equal(world.open.size, 0);
  assert.deepEqual(world.types(1), ['RELEASED']);
});

test('both ends in one partition are none of the fabric', () => {
  join(1);
  core.message(1, end('client'), null);
  core.message(1, end('server', { claim: 8 }), null);
  assert.deepEqual(world.types(1), []);
});

test('limits of a user: partitions, claims, announcements per second', () => {
  start({ partitionsPerUser: 2, claimsPerPartition: 3, announcementsPerSecond: 10, announcementBurst: 5 });
  join(1);
  join(2);
  core.hello(3, { pid: 3, uid: 1000 }, { type: 'HELLO', versionMin: 1, versionMax: 1, thread: 0, program: '' });
  assert.deepEqual(world.types(3), ['REFUSED']);
  assert.deepEqual(world.hungUp, [3]);
  join(4, 1001);
  const announce = (id: number, claim: number) =>
    core.message(id, end('client', { claim, socketCookie: BigInt(100 + claim), local: { ...A, port: claim } }), null);
  for (let claim = 1; claim <= 6; claim++) announce(1, claim);
  assert.deepEqual(
    world.take(1).map((message) => (message as MessageByName<'DECLINED'>).reason),
    [5, 5, 4],
  );
  announce(2, 20);
  assert.equal((world.take(2)[0] as MessageByName<'DECLINED'>).reason, 4, 'the user is limited, not the partition');
  announce(4, 20);
  assert.deepEqual(world.types(4), []);
  world.clock += 1000;
  announce(2, 21);
  assert.deepEqual(world.types(2), []);
});

test('proofs of one user wait for each other', () => {
  start({ shownPerUser: 2 });
  for (const id of [1, 2]) join(id);
  for (const claim of [1, 2]) for (const [i, one] of ends(claim).entries()) core.message(i + 1, one, null);
  assert.deepEqual(world.take(1), [{ type: 'SHOW', claim: 1 }]);
  world.take(2);
  for (const [i, one] of ends(1).entries()) show(i + 1, one);
  world.settle();
  assert.deepEqual(world.types(1), ['SHOW', 'INTRODUCE', 'MATCHED']);
});

test('a proof that waits is not forgotten when those before it have been withdrawn', () => {
  start({ shownPerUser: 2 });
  for (const id of [1, 2]) join(id);
  for (let claim = 1; claim <= 20; claim++)
    for (const [i, one] of ends(claim).entries()) core.message(i + 1, one, null);
  for (let claim = 2; claim <= 10; claim++)
    for (const id of [1, 2]) core.message(id, { type: 'WITHDRAW', claim }, null);
  const matched = new Set<number>();
  for (let rounds = 0; rounds < 30; rounds++) {
    for (const id of [1, 2]) {
      for (const message of world.take(id)) {
        if (message.type === 'SHOW') show(id, ends(message.claim)[id - 1] as MessageByName<'ANNOUNCE'>);
        if (message.type === 'MATCHED') matched.add(message.claim);
      }
    }
    world.settle();
  }
  assert.equal(matched.size, 11);
});

test('without descriptors for a pair both ends are told', () => {
  world.descriptorsLeft = 0;
  join(1);
  join(2);
  core.message(1, end('client'), null);
  core.message(2, end('server'), null);
  show(1, end('client'));
  show(2, end('server'));
  world.settle();
  for (const id of [1, 2]) assert.deepEqual(world.take(id).at(-1), { type: 'DECLINED', claim: 7, reason: 6 });
});

test('a message that only the fabric may send ends the partition', () => {
  join(1);
  core.message(1, { type: 'SHOW', claim: 1 }, null);
  assert.deepEqual(world.types(1), ['REFUSED']);
  assert.equal(core.partitionCount, 0);
});

test('versions that do not overlap are refused', () => {
  core.hello(1, { pid: 1, uid: 1 }, { type: 'HELLO', versionMin: 9, versionMax: 12, thread: 0, program: '' });
  assert.deepEqual(world.types(1), ['REFUSED']);
});

test('pairs are of users that the fabric knows; of different ones, too', () => {
  const connect = (one: number, other: number) => {
    start();
    join(1, one);
    join(2, other);
    core.message(1, end('client'), null);
    core.message(2, end('server'), null);
    return [world.take(1), world.take(2)].map((all) => all.map((one) => [one.type, 'reason' in one ? one.reason : 0]));
  };
  const [shows, declined] = [[['SHOW', 0]], [['DECLINED', 8]]];
  assert.deepEqual(connect(1000, 1001), [shows, shows]);
  assert.deepEqual(connect(0, 1001), [shows, shows]);
  assert.deepEqual(connect(65534, 65534), [declined, declined]);
  assert.deepEqual(connect(1000, 65534), [[], declined]);
});
