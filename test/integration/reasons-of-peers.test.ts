/** Reasons for which the other end, or the fabric, has to do something that programs of ours do not: here a partition of the test does it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { HostDevice } from '../../src/devices/host/index.ts';
import { findFabric } from '../../src/fabric/client.ts';
import type { FabricLimits } from '../../src/fabric/limits.ts';
import { encodeMessage, type MessageByName } from '../../src/fabric/protocol.ts';
import { askStatus } from '../../src/fabric/status.ts';
import { withMatch } from '../../src/net/matches.ts';
import { closeFd, connectPackets, sendPacket, streamSocketPair, testDoorbell } from '../../src/os/index.ts';
import { CLI, cannotMove } from './commands.ts';
import { fdOf, RawPartition } from './raw-partition.ts';
import { listening, othersMove, TALKER } from './talker.ts';
import { type Program, Stage } from './two-programs.ts';

const skip = cannotMove();

/** A program with a connection to a partition of the test, whose end is `socket`; that end is not read. */
interface Faced {
  readonly stage: Stage;
  readonly program: Program;
  readonly partition: RawPartition;
  readonly socket: Socket;
  /** How many announcements the fabric has had. */
  announced(): Promise<number>;
}

/** They wait most of the time, so they run side by side. */
function faced(what: string, body: (ends: Faced) => Promise<void>, env: NodeJS.ProcessEnv = {}): void {
  test(what, { skip }, async () => {
    await testDoorbell();
    const stage = new Stage();
    const server = createServer({ pauseOnConnect: true });
    const alive = setInterval(() => {}, 1000);
    const partition = new RawPartition();
    let socket: Socket | undefined;
    try {
      await once(server.listen(0, '127.0.0.1'), 'listening');
      const { port } = server.address() as { port: number };
      await partition.joins(stage.env());
      const program = stage.run(TALKER, [], env);
      program.tell(`connect ${port}`);
      [socket] = (await once(server, 'connection')) as [Socket];
      socket.on('error', () => {});
      const announced = async (): Promise<number> => {
        const { fd } = findFabric(stage.env()) as { fd: number };
        return await askStatus(fd).then((status) => JSON.parse(status).counters.announced, announced); // it may be busy
      };
      await body({ stage, program, partition, socket, announced });
    } finally {
      clearInterval(alive);
      partition.client?.close();
      for (const fd of partition.fds) closeFd(fd);
      socket?.destroy();
      server.close();
      await stage.close();
    }
  });
}

/** The test's end is announced and shown. */
async function isMatched(ends: Faced, claim: number): Promise<MessageByName<'MATCHED'>> {
  ends.partition.holds(claim, ends.socket);
  await ends.partition.hears({ type: 'MATCHED', claim });
  return ends.partition.messages.find(
    (message) => message.type === 'MATCHED' && (message as { claim: number }).claim === claim,
  ) as MessageByName<'MATCHED'>;
}

/** A program that gets our end from us, and reads it when it is told to take it. */
function holderOf({ stage, socket }: Faced, env: NodeJS.ProcessEnv = {}): Program {
  const takes = `${TALKER}
    told('take', () => {
      const socket = new net.Socket({ fd: 3, readable: true, writable: true });
      keep(socket);
      attach(socket, 'server');
    });`;
  return stage.run(takes, [], env, [], fdOf(socket));
}

/** As it is advised where a handshake came to nothing: once the other end is there, `accelerate` at both ends moves it. */
async function movesByAccelerate(ends: Faced, hint: string): Promise<void> {
  assert.match(hint, /this one when `accelerate` is called at both ends/);
  const holder = holderOf(ends, { ISTHMUS_POLICY: 'off' });
  ends.socket.destroy();
  holder.tell('take');
  await holder.says('connection');
  for (const one of [holder, ends.program]) one.tell('accelerate');
  for (const one of [holder, ends.program]) assert.equal(await one.says('accelerated '), 'SMC-D');
}

function deviceOf({ partition }: Faced): HostDevice {
  const { gid, chid } = partition.client.identity;
  const device = new HostDevice({ gid, chid });
  const { peer } = partition.messages.find(({ type }) => type === 'INTRODUCE') as MessageByName<'INTRODUCE'>;
  const [channelFd, wakeFd, ringFd] = partition.fds.splice(0) as [number, number, number];
  device.addPair({ peer, channelFd, wakeFd, ringFd });
  return device;
}

describe('a partition of the test', { concurrency: true }, () => {
  faced('that says nothing in the handshake: TIMEOUT', async (ends) => {
    await isMatched(ends, 1);
    const device = deviceOf(ends); // the pair is up
    assert.match((await ends.program.stays('CHECKING')).hint, /6 seconds/);
    const { hint } = await ends.program.stays('TIMEOUT');
    await device.close();
    await othersMove(ends.stage);
    await movesByAccelerate(ends, hint);
  });

  faced('that says in the handshake what is no message: PROTOCOL', async (ends) => {
    const { peer, match } = await isMatched(ends, 1);
    const device = deviceOf(ends);
    assert.ok(await device.queryRemoteGid(peer));
    device.sendMessage(peer, withMatch(match, Buffer.from('what is this')));
    const { hint } = await ends.program.stays('PROTOCOL');
    const [, advised = ''] = /`isthmus (--version)`/.exec(hint) ?? [];
    assert.match(String(spawnSync(process.execPath, [CLI, advised]).stdout), /^\d+\.\d+/);
    await device.close();
    await othersMove(ends.stage);
  });

  faced('that goes when it is introduced, and again: PAIRLOST', async (ends) => {
    for (const claim of [1, 2]) {
      await isMatched(ends, claim);
      for (const fd of ends.partition.fds.splice(0)) closeFd(fd);
    }
    const { hint } = await ends.program.stays('PAIRLOST');
    await othersMove(ends.stage);
    await movesByAccelerate(ends, hint);
  });

  faced(
    'that holds the same socket: SHARED; once it has let go of it, it moves',
    async (ends) => {
      // A second program has our end, too, and we announce it as well. It is not looked for yet: its peer is off.
      const { program, partition, socket } = ends;
      const holder = holderOf(ends);
      partition.announce(1, socket);
      holder.tell('take');
      const { hint } = await holder.stays('SHARED');
      await partition.hears({ type: 'DECLINED', claim: 1, reason: 1 });
      const [, advised = ''] = /`(ss [^`]+)`/.exec(hint) ?? [];
      assert.notEqual(advised, '');
      const { stdout } = spawnSync('sh', ['-c', advised], { encoding: 'utf8', maxBuffer: 1 << 30 }); // nothing where there is no iproute2
      for (const pid of stdout === '' ? [] : [process.pid, holder.pid])
        assert.match(stdout, new RegExp(`:${socket.remotePort} .*pid=${pid},`));
      socket.destroy();
      for (const one of [holder, program]) one.tell('accelerate');
      for (const one of [holder, program]) assert.equal(await one.says('accelerated '), 'SMC-D');
    },
    { ISTHMUS_POLICY: 'off' },
  );

  faced('whose peer is stopped while it is to show its socket, and again: MISMATCH', async (ends) => {
    const { program, partition, announced } = ends;
    let before = 0;
    for (const claim of [1, 2]) {
      while ((await announced()) === before) await new Promise((resolve) => setTimeout(resolve, 10));
      process.kill(program.pid, 'SIGSTOP');
      partition.holds(claim, ends.socket);
      await partition.hears({ type: 'RELEASED', claim });
      partition.client.send({ type: 'WITHDRAW', claim });
      before = await announced();
      process.kill(program.pid, 'SIGCONT');
    }
    await program.stays('MISMATCH');
    // Further connections move, and this one is announced anew.
    await othersMove(ends.stage);
    program.tell('accelerate');
    await program.stays('PEERNOSMC');
    partition.announce(3, ends.socket);
    await partition.hears({ type: 'SHOW', claim: 3 });
  });
});

describe('a fabric with limits', { concurrency: true }, () => {
  faced('more partitions than a user may have: FABRICBUSY, and it moves once they are fewer', async ({ stage }) => {
    const { fd, place } = findFabric(stage.env()) as { fd: number; place: { socket: string } };
    const { partitionsPerUser } = JSON.parse(await askStatus(fd)).limits;
    const joined: number[] = [];
    for (let i = 0; i < partitionsPerUser; i++) {
      const [doorbell, theirs] = streamSocketPair();
      const connection = connectPackets(place.socket);
      const hello = { versionMin: 1, versionMax: 1, thread: 0, program: 'many' };
      sendPacket(connection, encodeMessage({ type: 'HELLO', ...hello }), [theirs]);
      for (const one of [doorbell, theirs]) closeFd(one);
      joined.push(connection);
      if (i % 50 === 0) await askStatus(connectPackets(place.socket)); // it has taken those
    }
    const server = stage.run(TALKER);
    server.tell('listen');
    const client = stage.run(TALKER);
    client.tell(`connect ${await server.says('port ')}`);
    const { text, hint } = await client.stays('FABRICBUSY');
    assert.match(text, /too many partitions of this user/);
    const [, advised = ''] = /`isthmus (fabric status)`/.exec(hint) ?? [];
    const shown = spawnSync(process.execPath, [CLI, ...advised.split(' ')], { env: stage.env({ NODE_OPTIONS: '' }) });
    assert.match(String(shown.stdout), new RegExp(`\\b${process.pid}\\b.*\\bmany\\b`));
    for (const connection of joined) closeFd(connection);
    await Promise.all([client.moves(), server.moves()]);
  });

  /** One at the place of its own user, which allows less than usual. */
  async function fabricWith(stage: Stage, limits: Partial<FabricLimits>): Promise<void> {
    const run = JSON.stringify(new URL('../../src/fabric/run.js', import.meta.url).href);
    const program = `
      const [socket, limits] = process.argv.slice(2);
      const { runFabric } = await import(${run});
      runFabric({ socket, idleMs: null, limits: JSON.parse(limits) }, () => process.exit());
      console.log('runs');`;
    const args = [`${stage.directory}/fabric.sock`, JSON.stringify(limits)];
    await stage.run(program, args, { NODE_OPTIONS: '' }).says('runs');
  }

  test('more claims than a user may have: FABRICBUSY, and new connections move once they are fewer', {
    skip,
  }, async () => {
    const stage = new Stage();
    try {
      await fabricWith(stage, { claimsPerUser: 3 });
      const { port: lonely } = await listening(stage, { NODE_OPTIONS: '' });
      const { server, port } = await listening(stage);
      const [many, client] = [stage.run(TALKER), stage.run(TALKER)];
      for (let i = 0; i < 4; i++) many.tell(`connect ${lonely}`);
      const { text, hint } = await many.stays('FABRICBUSY');
      assert.match(text, /too many claims of this partition, or of its user/);
      client.tell(`connect ${port}`);
      for (const one of [client, server]) await one.stays('FABRICBUSY');
      const [, advised = ''] = /`isthmus (fabric status)`/.exec(hint) ?? [];
      const shown = spawnSync(process.execPath, [CLI, ...advised.split(' ')], { env: stage.env({ NODE_OPTIONS: '' }) });
      assert.match(String(shown.stdout), new RegExp(`\\b${many.pid}\\b.* 3\\b`));
      many.child.kill('SIGKILL');
      await many.exited;
      client.tell(`connect ${port}`);
      await Promise.all([client.moves(), server.moves()]);
    } finally {
      await stage.close();
    }
  });

  test('more announcements than a user may make: FABRICBUSY, and new connections move when they are fewer', {
    skip,
  }, async () => {
    const stage = new Stage();
    try {
      await fabricWith(stage, { announcementsPerSecond: 20, announcementBurst: 2 });
      const { port: lonely } = await listening(stage, { NODE_OPTIONS: '' });
      const many = stage.run(TALKER);
      for (let i = 0; i < 40; i++) many.tell(`connect ${lonely}`);
      const { text } = await many.stays('FABRICBUSY');
      assert.match(text, /too many announcements of this user/);
      await othersMove(stage);
    } finally {
      await stage.close();
    }
  });

  const noPrlimit =
    spawnSync('prlimit', ['--version']).error !== undefined && 'prlimit not found (Debian package util-linux)';
  // A partition takes two, its socket when it is shown another one, and a pair six.
  for (const [what, free] of [
    ['a partition', 0],
    ['the doorbell of a partition', 1],
    ['what is shown', 4],
    ['the second socket that is shown', 5],
    ['a pair', 7],
  ] as const)
    test(`no descriptors for ${what}: FABRICBUSY, and new connections move once the limit is raised`, {
      skip: skip || noPrlimit,
    }, async () => {
      const stage = new Stage();
      try {
        const socket = `${stage.directory}/named.sock`;
        const fabric = stage.start([process.execPath, CLI, 'fabric', '--socket', socket], { NODE_OPTIONS: '' });
        await fabric.says('fabric at');
        const open = new Set(readdirSync(`/proc/${fabric.pid}/fd`));
        let limit = 0;
        for (let left = free; left > 0 || open.has(String(limit)); limit++) if (!open.has(String(limit))) left--;
        spawnSync('prlimit', ['--pid', String(fabric.pid), `--nofile=${limit}:`]);
        const env = { ISTHMUS_FABRIC: socket };
        const { server, port } = await listening(stage, env);
        const client = stage.run(TALKER, [], env);
        client.tell(`connect ${port}`);
        const hints: string[] = [];
        for (const program of [client, server]) {
          const { text, hint } = await program.stays('FABRICBUSY');
          assert.match(text, /the fabric has no descriptors left/);
          hints.push(hint);
        }
        for (const hint of hints) {
          const [, advised = ''] = /`(prlimit [^`]+)`/.exec(hint) ?? [];
          assert.equal(spawnSync('sh', ['-c', advised]).status, 0, hint);
        }
        client.tell(`connect ${port}`);
        await Promise.all([client.moves(), server.moves()]);
      } finally {
        await stage.close();
      }
    });
});
