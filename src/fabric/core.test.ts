import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { beforeEach, test } from 'node:test';
import { type Gid, parseGid, parseUeid } from '../ism/index.ts';
import type { PendingChallenge, Verdict } from './challenge.ts';
import { FabricCore, type FabricIo } from './core.ts';
import { defaultEids, type EidTable } from './eids.ts';
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
  diskFull = false;
  readonly saved: EidTable[] = [];

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
  /** Challenges under way. */
  readonly challenges: {
    fds: [number, number];
    rounds: number;
    done: Parameters<FabricIo['challenge']>[3];
    hasSent: boolean;
    cancel(): void;
  }[] = [];
  challenge(...[one, other, rounds, done]: Parameters<FabricIo['challenge']>): PendingChallenge {
    assert.ok(this.open.has(one) && this.open.has(other), 'asked while both are held');
    const cancel = () => void this.challenges.splice(this.challenges.indexOf(challenge) >>> 0, 1);
    const challenge = { fds: [one, other] as [number, number], rounds, done, hasSent: false, cancel };
    this.challenges.push(challenge);
    return challenge;
  }
  /** What comes of the one challenge there is. */
  answer(verdict: Verdict, hasSent = verdict !== 'refuted'): number {
    const [challenge = assert.fail('nobody is asked')] = this.challenges.splice(0);
    challenge.hasSent = hasSent;
    challenge.done(verdict);
    this.settle();
    return challenge.rounds;
  }
  close(_user: string | null, fd: number, closed: () => void): void {
    assert.ok(this.open.delete(fd), 'closed once');
    this.closes.push(closed);
  }
  createPair(): ReturnType<FabricIo['createPair']> {
    if (this.descriptorsLeft <= 0) throw new Error('EMFILE');
    return { one: [1, 2, 3], other: [4, 5, 6] };
  }
  saveEids(table: EidTable): void {
    if (this.diskFull) throw new Error('ENOSPC');
    this.saved.push(table);
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

function start(limits: Partial<FabricLimits> = {}, eids = defaultEids(null)): void {
  world = new World();
  core = new FabricCore(world, eids, limits);
}
beforeEach(() => start());

/** As a partition of version 1. */
function join(id: number, uid = 1000, domain: string | null = null): void {
  core.hello(id, { pid: id, uid, domain }, { type: 'HELLO', versionMin: 1, versionMax: 1, thread: 0, program: 'test' });
  assert.deepEqual(world.types(id), ['WELCOME']);
}

/** As one of version 2; its GID. */
function joinV2(id: number, uid = 1000): Gid {
  core.hello(
    id,
    { pid: id, uid, domain: null },
    { type: 'HELLO', versionMin: 1, versionMax: 2, thread: 0, program: 'test' },
  );
  const [welcome, eids] = world.take(id) as [MessageByName<'WELCOME'>, FabricMessage];
  assert.deepEqual([welcome.type, welcome.version, eids.type], ['WELCOME', 2, 'EIDS']);
  return welcome.gid;
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
  world.sockets.set(
    fd,
    changes === null ? null : { ...announced, established: true, lingers: false, urgentInline: false, ...changes },
  );
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

test('a user with any number of false claims delays a connection of others twice, not its own', () => {
  join(1, 1000);
  join(2, 1000);
  join(3, 1001);
  for (let claim = 1; claim <= 50; claim++)
    core.message(3, end('client', { claim, socketCookie: BigInt(100 + claim) }), null);
  world.take(3); // most are declined at once
  core.message(2, end('server'), null);
  core.message(1, end('client'), null);
  const timeOut = () => {
    show(2, end('server'));
    for (const expired of [...world.timers]) expired();
    world.settle();
  };
  timeOut();
  assert.deepEqual(world.types(1), []);
  timeOut();
  assert.deepEqual(world.types(3), ['SHOW', 'DECLINED', 'SHOW', 'DECLINED']);
  assert.deepEqual(world.types(1), ['SHOW']);
  show(1, end('client'));
  show(2, end('server'));
  world.settle();
  assert.deepEqual(world.types(1), ['INTRODUCE', 'MATCHED']);
  // Programs of one user are one domain: their false claims are asked one after the other.
  join(4, 1001);
  core.message(4, end('server', { socketCookie: 44n }), null);
  assert.deepEqual(world.types(4), ['SHOW']);
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

test('a socket that is shown too late is closed; who shows one without being asked is refused', () => {
  join(1);
  join(2);
  core.message(1, end('client'), null);
  core.message(2, end('server'), null);
  for (const expired of world.timers) expired();
  assert.deepEqual(world.types(1), ['SHOW', 'DECLINED']);
  show(1, end('client'));
  world.settle();
  assert.deepEqual([world.open.size, world.types(1), core.isKnown(1)], [0, ['RELEASED'], true]);
  show(1, end('client'));
  world.settle();
  assert.equal(world.open.size, 0);
  assert.equal(core.isKnown(1), false);
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
  core.hello(
    3,
    { pid: 3, uid: 1000, domain: null },
    { type: 'HELLO', versionMin: 1, versionMax: 1, thread: 0, program: '' },
  );
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

test('the claims of all partitions of a user are limited together; one that is withdrawn makes room', () => {
  start({ claimsPerUser: 3 });
  join(1);
  join(2);
  join(3, 1001);
  const announce = (id: number, claim: number) => core.message(id, ends(claim)[0], null);
  for (const claim of [1, 2]) announce(1, claim);
  for (const claim of [3, 4]) announce(2, claim);
  assert.deepEqual(world.take(2), [{ type: 'DECLINED', claim: 4, reason: 5 }]);
  announce(3, 5);
  core.message(1, { type: 'WITHDRAW', claim: 1 }, null);
  announce(2, 6);
  assert.deepEqual([world.types(1), world.types(2), world.types(3)], [[], [], []]);
});

test('a user has a few claims to one end of a connection, so that nobody searches for long', () => {
  for (const id of [1, 2]) join(id, 1000);
  join(3, 1001);
  const claim = (id: number, claim: number) =>
    core.message(id, end('client', { claim, socketCookie: BigInt(100 + claim) }), null);
  for (let i = 1; i <= 10; i++) claim(1 + (i % 2), i);
  assert.deepEqual(world.take(2), [{ type: 'DECLINED', claim: 9, reason: 5 }]);
  assert.deepEqual(world.take(1), [{ type: 'DECLINED', claim: 10, reason: 5 }]);
  claim(3, 11);
  assert.deepEqual(world.take(3), []);
  core.message(1, { type: 'WITHDRAW', claim: 2 }, null);
  claim(1, 12);
  assert.deepEqual(world.take(1), []);
});

test('a client with one name on many connections is found by the names of each', () => {
  for (const id of [1, 2]) join(id);
  const many = 100;
  const server = (i: number) => ({ ...B, port: 5000 + i });
  for (let i = 1; i <= many; i++)
    core.message(1, end('client', { claim: i, peer: server(i), socketCookie: BigInt(i) }), null);
  for (const i of [1, many]) {
    core.message(2, end('server', { claim: i, local: server(i), socketCookie: BigInt(many + i) }), null);
    assert.deepEqual(world.take(1), [{ type: 'SHOW', claim: i }]);
    core.message(2, { type: 'GONE', claim: i }, null);
    core.message(1, { type: 'GONE', claim: i }, null);
    world.take(1);
  }
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
  core.hello(
    1,
    { pid: 1, uid: 1, domain: null },
    { type: 'HELLO', versionMin: 9, versionMax: 12, thread: 0, program: '' },
  );
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

test('a domain is one user, whatever its uids, and another one than any other', () => {
  start({ partitionsPerUser: 2, announcementsPerSecond: 10, announcementBurst: 3 });
  join(1, 1000, 'container');
  join(2, 65534, 'container');
  const hello = { type: 'HELLO', versionMin: 1, versionMax: 1, thread: 0, program: '' } as const;
  core.hello(3, { pid: 3, uid: 1001, domain: 'container' }, hello);
  assert.deepEqual(world.types(3), ['REFUSED']);
  join(4, 1000, 'another');
  join(5, 1000);
  core.message(1, end('client'), null);
  core.message(2, end('server'), null);
  assert.deepEqual(world.types(2), ['SHOW'], 'also one that is mapped to nobody');
  const announce = (id: number, claim: number) =>
    core.message(id, end('client', { claim, socketCookie: BigInt(100 + claim), local: { ...A, port: claim } }), null);
  for (const claim of [11, 12]) for (const id of [1, 4, 5]) announce(id, claim * 10 + id);
  const reasons = [1, 4, 5].map((id) => world.take(id).flatMap((one) => (one.type === 'DECLINED' ? [one.reason] : [])));
  assert.deepEqual(reasons, [[4], [], []]);
});

test('each partition is served in the version it speaks; messages of a later one are not for it', () => {
  for (const [min, max, version] of [
    [1, 1, 1],
    [1, 2, 2],
    [2, 2, 2],
    [2, 7, 3],
  ] as const) {
    start();
    core.hello(
      1,
      { pid: 1, uid: 1, domain: null },
      { type: 'HELLO', versionMin: min, versionMax: max, thread: 0, program: '' },
    );
    const [welcome, ...more] = world.take(1);
    assert.equal((welcome as MessageByName<'WELCOME'>).version, version);
    assert.deepEqual(
      more.map(({ type }) => type),
      version === 1 ? [] : ['EIDS'],
    );
  }
  for (const message of [
    { type: 'REACHABLE' },
    { type: 'REACH', peer: parseGid('01234567-89ab-4def-8899-aabbccddeeff') },
  ] as const) {
    start();
    join(1);
    core.message(1, message, null);
    assert.deepEqual(world.take(1), [{ type: 'REFUSED', reason: 3, text: 'a message that breaks the protocol' }]);
  }
});

// --- Enterprise ids ---

const errno = constants.errno;

/** What a connection outside of all partitions is answered. */
function change(number: number, ueid = ''): number {
  core.changeEids(9, { type: 'EID_CHANGE', change: number, ueid });
  const [answer, ...more] = world.take(9) as MessageByName<'EID_CHANGED'>[];
  assert.ok(answer?.type === 'EID_CHANGED' && more.length === 0);
  assert.equal(answer.text === '', answer.error === 0, answer.text);
  return answer.error;
}

function ueids(): string {
  core.showEids(8);
  return (world.take(8)[0] as MessageByName<'EIDS'>).ueids;
}

test('a change of the ids is stored, told to all partitions of version 2, and answered', () => {
  join(1);
  joinV2(2);
  joinV2(3);
  assert.equal(change(1, 'MY.OWN'), 0);
  const eids = { type: 'EIDS', ueids: 'ISTHMUS MY.OWN', seid: '', seidEnabled: 0 };
  assert.deepEqual([world.take(1), world.take(2), world.take(3)], [[], [eids], [eids]]);
  assert.deepEqual(world.saved.at(-1)?.ueids, ['ISTHMUS', 'MY.OWN']);
  // Who joins later hears the same; who changes it as a partition hears it before the answer.
  core.hello(
    4,
    { pid: 4, uid: 1000, domain: null },
    { type: 'HELLO', versionMin: 2, versionMax: 2, thread: 0, program: '' },
  );
  assert.deepEqual(world.take(4)[1], eids);
  core.changeEids(4, { type: 'EID_CHANGE', change: 3, ueid: '' });
  assert.deepEqual(world.types(4), ['EIDS', 'EID_CHANGED']);
  assert.equal(ueids(), '');
});

test('a change that is refused, or cannot be stored, is told to nobody but who asked', () => {
  joinV2(1);
  for (const [number, ueid, error] of [
    [1, 'ISTHMUS', errno.EEXIST],
    [1, 'isthmus', errno.EINVAL],
    [1, 'A\0B', errno.EINVAL],
    [1, 'X'.repeat(32_000), errno.EINVAL],
    [2, 'OTHER', errno.ENOENT],
    [4, '', errno.EOPNOTSUPP],
    [0, 'MY.OWN', errno.EINVAL],
    [255, 'MY.OWN', errno.EINVAL],
  ] as const)
    assert.equal(change(number, ueid), error, `${number} ${ueid}`);
  world.diskFull = true;
  assert.equal(change(1, 'MY.OWN'), errno.EIO);
  assert.deepEqual(world.sent, []);
  assert.deepEqual([ueids(), world.saved], ['ISTHMUS', []]);
});

test('the state of the fabric has the ids', () => {
  const seid = parseUeid('IBM-SYSZ-ISMSEID000000002B3C3906');
  start({}, defaultEids(seid));
  assert.equal(change(5), 0);
  assert.deepEqual(core.status().eids, { ueids: ['ISTHMUS'], seid, seidEnabled: false });
});

// --- Introductions by GID ---

function reach(asker: number, peer: Gid): FabricMessage[] {
  core.message(asker, { type: 'REACH', peer }, null);
  return world.take(asker);
}

const STRANGER = parseGid('01234567-89ab-4def-8899-aabbccddeeff');

test('who knows the GID of a partition that is reachable is introduced to it, once', () => {
  joinV2(1);
  const peer = joinV2(2, 1001);
  core.message(2, { type: 'REACHABLE' }, null);
  assert.deepEqual(world.types(2), []);
  const [introduce, reached] = reach(1, peer);
  assert.ok(introduce?.type === 'INTRODUCE' && introduce.peer === peer);
  assert.deepEqual([introduce.pid, introduce.uid], [2, 1001]);
  assert.deepEqual(reached, { type: 'REACHED', peer, reachable: 1 });
  const [other, ...more] = world.take(2);
  assert.ok(other?.type === 'INTRODUCE' && more.length === 0);
  assert.deepEqual([other.pair, other.pid, other.uid], [introduce.pair, 1, 1000]);
  // They are a pair: nothing but the answer; from the other side too, whether or not the first has said REACHABLE.
  assert.deepEqual(reach(1, peer), [reached]);
  core.message(1, { type: 'REACHABLE' }, null);
  assert.deepEqual(reach(2, other.peer), [{ type: 'REACHED', peer: other.peer, reachable: 1 }]);
  assert.deepEqual(world.sent, []);
  // After its end they are introduced anew.
  core.message(2, { type: 'PAIR_GONE', peer: other.peer, pair: other.pair }, null);
  assert.deepEqual(
    reach(1, peer).map(({ type }) => type),
    ['INTRODUCE', 'REACHED'],
  );
});

test('nobody is introduced to who is not there, is not reachable, or is the asker', () => {
  const own = joinV2(1);
  core.message(1, { type: 'REACHABLE' }, null);
  const silent = joinV2(2);
  const gone = joinV2(3);
  core.message(3, { type: 'REACHABLE' }, null);
  core.left(3);
  join(4); // of version 1, so it cannot say it
  const old = (core.status().partitions as { gid: Gid }[]).at(-1)?.gid as Gid;
  for (const peer of [own, silent, gone, old, STRANGER])
    assert.deepEqual(reach(1, peer), [{ type: 'REACHED', peer, reachable: 0 }]);
  assert.deepEqual(world.sent, []);
  assert.equal(core.counters.pairs, 0);
});

test('a match makes a pair whether or not its ends are reachable, and says nothing for REACH', () => {
  joinV2(1);
  const peer = joinV2(2);
  for (const [id, one] of [end('client'), end('server')].entries()) core.message(id + 1, one, null);
  for (const [id, one] of [end('client'), end('server')].entries()) show(id + 1, one);
  world.settle();
  assert.deepEqual(world.types(1), ['SHOW', 'INTRODUCE', 'MATCHED']);
  assert.deepEqual(reach(1, peer), [{ type: 'REACHED', peer, reachable: 0 }]);
  core.message(2, { type: 'REACHABLE' }, null);
  assert.deepEqual(reach(1, peer), [{ type: 'REACHED', peer, reachable: 1 }]);
});

test('users that the fabric does not know are introduced to nobody, and nobody to them', () => {
  const known = joinV2(1);
  const unknown = joinV2(2, 65534);
  const other = joinV2(3, 65534);
  for (const id of [1, 2, 3]) core.message(id, { type: 'REACHABLE' }, null);
  for (const [asker, peer] of [
    [1, unknown],
    [2, known],
    [2, other],
  ] as const)
    assert.deepEqual(reach(asker, peer), [{ type: 'REACHED', peer, reachable: 0 }]);
  assert.deepEqual(world.sent, []);
});

test('who asks for introductions too often is told no, as its user is limited in announcements', () => {
  start({ announcementsPerSecond: 10, announcementBurst: 3 });
  joinV2(1);
  joinV2(2);
  const peer = joinV2(3, 1001);
  core.message(3, { type: 'REACHABLE' }, null);
  const answers = (id: number) => reach(id, peer).map((one) => ('reachable' in one ? one.reachable : one.type));
  core.message(2, end('client'), null);
  assert.deepEqual([answers(1), answers(1), answers(1), answers(2)], [['INTRODUCE', 1], [1], [0], [0]]);
  world.clock += 1000;
  assert.deepEqual(answers(2), ['INTRODUCE', 1]);
});

test('without descriptors for a pair there is none, and the next question may have one', () => {
  joinV2(1);
  const peer = joinV2(2);
  core.message(2, { type: 'REACHABLE' }, null);
  world.descriptorsLeft = 0;
  assert.deepEqual(reach(1, peer), [{ type: 'REACHED', peer, reachable: 0 }]);
  assert.deepEqual(world.types(2), []);
  world.descriptorsLeft = 1000;
  assert.equal(reach(1, peer).length, 2);
});

// --- Across namespaces and address translation ---

const CLIENT = { address: '10.1.0.2', port: 5000 };
/** The client calls the server by an address that is translated. */
const FAR = {
  client: end('client', { local: CLIENT, peer: { address: '10.96.0.1', port: 80 }, netnsCookie: 6n }),
  server: end('server', { local: { address: '10.2.0.3', port: 8080 }, peer: CLIENT }),
};

function announceFar(uids: readonly [number, number] = [1000, 1000]): void {
  join(1, uids[0]);
  join(2, uids[1]);
  core.message(1, FAR.client, null);
  core.message(2, FAR.server, null);
  assert.deepEqual([world.types(1), world.types(2)], [['SHOW'], ['SHOW']]);
  show(1, FAR.client);
  show(2, FAR.server);
}

for (const [uids, rounds] of [
  [[1000, 1000], 3],
  [[1000, 1001], 8],
] as const) {
  test(`what the client's own name says is proven by urgent bytes: users ${uids}`, () => {
    announceFar(uids);
    assert.deepEqual(world.sent, []);
    assert.equal(world.answer('proven'), rounds);
    assert.deepEqual(
      [world.types(1), world.types(2)],
      [
        ['INTRODUCE', 'MATCHED'],
        ['INTRODUCE', 'MATCHED'],
      ],
    );
    assert.equal(world.open.size, 0);
  });
}

test('a stranger with the same names is not asked twice, and the right one is found', () => {
  announceFar();
  world.answer('refuted');
  assert.deepEqual([world.types(1), world.types(2)], [['RELEASED'], ['RELEASED']]);
  join(3);
  core.message(3, { ...FAR.server, socketCookie: 33n, netnsCookie: 9n }, null);
  assert.deepEqual([world.types(1), world.types(2), world.types(3)], [['SHOW'], [], ['SHOW']]);
  show(1, FAR.client);
  show(3, { ...FAR.server, socketCookie: 33n, netnsCookie: 9n });
  world.answer('proven');
  assert.deepEqual(world.types(3), ['INTRODUCE', 'MATCHED']);
});

test('who may have urgent bytes of ours unread in its stream is asked with nobody else, and found by its names', () => {
  announceFar();
  world.answer('refuted', true);
  for (const id of [1, 2]) assert.deepEqual(world.types(id), ['RELEASED']);
  join(3);
  join(4);
  core.message(3, { ...FAR.server, socketCookie: 33n, netnsCookie: 9n }, null);
  assert.deepEqual([world.types(1), world.types(3)], [[], []]);
  const near = { ...FAR.client, role: 1, local: FAR.client.peer, peer: FAR.client.local, socketCookie: 44n };
  core.message(4, near, null);
  assert.deepEqual([world.types(1), world.types(4)], [['SHOW'], ['SHOW']]);
  show(1, FAR.client);
  show(4, near);
  world.settle();
  assert.deepEqual(world.types(4), ['INTRODUCE', 'MATCHED']);
});

test('two that were asked in vain are asked again some time, as long as both announce it, and not for ever', () => {
  announceFar();
  const again = (ms: number): boolean => {
    world.answer('unseen');
    const isOver = !Number.isFinite(ms);
    for (const id of [1, 2]) assert.deepEqual(world.types(id), [isOver ? 'DECLINED' : 'RELEASED']);
    if (isOver) return false;
    world.clock += ms - 1;
    for (const expired of [...world.timers]) expired();
    assert.deepEqual(world.types(1), [], 'not before');
    world.clock += 1;
    for (const expired of [...world.timers]) expired();
    for (const id of [1, 2]) assert.deepEqual(world.types(id), ['SHOW']);
    show(1, FAR.client);
    show(2, FAR.server);
    return true;
  };
  assert.deepEqual([4000, 8000, 16_000, 32_000, Number.POSITIVE_INFINITY].map(again), [true, true, true, true, false]);
  start();
  announceFar();
  assert.ok(again(4000));
  world.answer('proven');
  assert.deepEqual(world.types(1), ['INTRODUCE', 'MATCHED']);
});

for (const verdict of ['unseen', 'later'] as const)
  test(`two of two users that were sent urgent bytes in vain are not asked again: ${verdict}`, () => {
    announceFar([1000, 1001]);
    world.answer(verdict);
    for (const id of [1, 2]) assert.deepEqual(world.types(id), ['RELEASED']);
    world.clock += 100_000;
    for (const expired of [...world.timers]) expired();
    for (const id of [1, 2]) assert.deepEqual(world.take(id), [{ type: 'DECLINED', claim: 7, reason: 9 }]);
  });

test('who leaves in the middle leaves the other one with the urgent bytes that were sent', () => {
  announceFar();
  (world.challenges[0] ?? assert.fail()).hasSent = true;
  core.left(1);
  world.settle();
  assert.deepEqual(world.types(2), ['RELEASED']);
  join(1);
  core.message(1, FAR.client, null);
  assert.deepEqual(world.types(1), []);
  assert.deepEqual(world.types(2), [], 'nobody else is asked with it');
});

test('a claim of a user whose sockets are all asked for keeps nobody from another one', () => {
  start({ shownPerUser: 1 });
  for (const [id, uid] of [
    [1, 1000],
    [2, 1001],
    [3, 1001],
    [4, 1002],
  ] as const)
    join(id, uid);
  const [busyClient, busyServer] = ends(1);
  core.message(2, busyClient, null);
  core.message(3, busyServer, null);
  assert.deepEqual([world.types(2), world.types(3)], [['SHOW'], ['SHOW']]);
  // That user claims the other end of what the first one announces, too.
  const [theirs, mine] = ends(2);
  core.message(2, theirs, null);
  core.message(1, mine, null);
  assert.deepEqual(world.types(1), [], 'it waits, since there is nobody else');
  core.message(4, { ...theirs, socketCookie: 99n }, null);
  assert.deepEqual([world.types(1), world.types(4)], [['SHOW'], ['SHOW']]);
});

test('who cannot be asked now is asked later, and given up at last', () => {
  announceFar();
  for (let tries = 1; ; tries++) {
    world.answer('later');
    const said = world.types(1);
    if (said.includes('DECLINED')) {
      assert.deepEqual(said, ['DECLINED']);
      assert.equal(tries, 6);
      return;
    }
    assert.deepEqual(said, ['RELEASED'], 'not at once');
    world.clock += 100_000;
    for (const expired of [...world.timers]) expired();
    assert.deepEqual(world.types(1), ['SHOW']);
    show(1, FAR.client);
    show(2, FAR.server);
  }
});

test('a partition that leaves ends the challenge before its descriptor is closed', () => {
  announceFar();
  core.left(1);
  assert.deepEqual(world.challenges, []);
  assert.equal(world.open.size, 0);
});

test('nobody is asked whose socket has urgent bytes in its stream', () => {
  join(1);
  join(2);
  core.message(1, FAR.client, null);
  core.message(2, FAR.server, null);
  show(1, FAR.client, { urgentInline: true });
  show(2, FAR.server);
  assert.deepEqual(world.challenges, []);
  assert.equal(world.open.size, 0);
});

test('in one namespace, too, the address of a server may be translated', () => {
  join(1);
  join(2);
  core.message(1, { ...FAR.client, netnsCookie: FAR.server.netnsCookie }, null);
  core.message(2, FAR.server, null);
  assert.deepEqual([world.types(1), world.types(2)], [['SHOW'], ['SHOW']]);
  show(1, { ...FAR.client, netnsCookie: FAR.server.netnsCookie });
  show(2, FAR.server);
  assert.equal(world.answer('proven'), 3);
  assert.deepEqual(world.types(1), ['INTRODUCE', 'MATCHED']);
});

test('a loopback address means nothing in another namespace', () => {
  join(1);
  join(2);
  core.message(1, end('client', { netnsCookie: 6n }), null);
  core.message(2, end('server', { peer: A, local: { ...B, port: 81 } }), null);
  assert.deepEqual(world.sent, []);
});
