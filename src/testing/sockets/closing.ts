/** How a connection ends, and what is seen of it at either end. */
import { once } from 'node:events';
import { createServer, type NetConnectOpts } from 'node:net';
import { count, outcome, pattern, type SocketScenario, wait } from './scene.ts';

const HALF_OPEN = { connect: { allowHalfOpen: true }, listen: { allowHalfOpen: true } } as const;

export const closing = {
  'half close with allowHalfOpen: the other direction goes on': async (scene) => {
    const pair = await scene.pair(HALF_OPEN);
    const { client, server } = pair;
    const log = scene.watch(pair);
    const got = count(client);
    server.resume();
    let state = '';
    server.on('end', async () => {
      state = server.readyState;
      for (let i = 0; i < 5; i++) {
        server.write(Buffer.alloc(50_000));
        await wait(1);
      }
      server.end();
    });
    client.end('last');
    await scene.quiet();
    return { log: log(), bytes: got.bytes, state };
  },
  'half close without allowHalfOpen ends both': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    pair.client.resume();
    const got = count(pair.server);
    pair.client.write(Buffer.alloc(100_000));
    pair.client.end('bye');
    await scene.quiet();
    return { log: log(), bytes: got.bytes };
  },
  'both end at once': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    const got = [count(pair.client), count(pair.server)];
    pair.client.end('from the client');
    pair.server.end('from the server');
    await scene.quiet();
    return { log: log(), bytes: got.map(({ bytes }) => bytes) };
  },
  'end() twice': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    const calls = scene.log();
    pair.client.resume();
    pair.server.resume();
    pair.client.end('x', () => calls.add('first'));
    pair.client.end((error?: Error) => calls.add(`second ${outcome(error)}`));
    await scene.quiet();
    pair.client.end((error?: Error) => calls.add(`third ${outcome(error)}`));
    await scene.quiet();
    return { log: log(), calls: calls.lines };
  },
  'the end waits behind unread bytes while paused': async (scene) => {
    const pair = await scene.pair();
    const { client, server } = pair;
    const log = scene.watch(pair);
    server.pause();
    const got = count(server);
    server.pause();
    client.write(Buffer.alloc(8_000)); // fits into any ring
    client.end();
    await scene.quiet();
    const before = { log: log(), bytes: got.bytes };
    server.resume();
    await scene.quiet();
    return { before, after: log(), bytes: got.bytes };
  },
  'destroy while nothing is under way': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    pair.client.resume();
    pair.server.resume();
    pair.client.destroy();
    await scene.quiet();
    return { log: log(), states: [pair.client.readyState, pair.server.readyState] };
  },
  'destroy after a write that has left': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    const got = count(pair.server);
    pair.client.write(Buffer.alloc(10_000));
    await scene.quiet();
    pair.client.destroy();
    await scene.quiet();
    return { log: log(), bytes: got.bytes };
  },
  'destroy in the tick of a small write: it still arrives': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    const got = count(pair.server);
    pair.client.write(Buffer.alloc(10_000));
    pair.client.destroy();
    await scene.quiet();
    return { log: log(), bytes: got.bytes };
  },
  'destroy after a write that the kernel takes whole: it arrives': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    const got = count(pair.server);
    pair.client.write(pattern(210_000));
    pair.client.destroy();
    await scene.quiet();
    return { log: log(), bytes: got.bytes };
  },
  'destroy with an error': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    pair.server.resume();
    pair.client.destroy(Object.assign(new Error('mine'), { code: 'EMINE' }));
    await scene.quiet();
    return log();
  },
  'destroy with bytes unread: the peer is reset': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    pair.server.resume();
    pair.client.pause();
    pair.server.write(Buffer.alloc(400_000));
    await scene.quiet();
    pair.client.destroy();
    await scene.quiet();
    return log();
  },
  'destroy with writes pending': async (scene) => {
    const pair = await scene.pair();
    const results: string[] = [];
    pair.server.pause();
    const write = (bytes: number) => pair.client.write(Buffer.alloc(bytes), (error) => results.push(outcome(error)));
    write(60_000_000); // more than any system's TCP takes
    for (let i = 0; i < 3; i++) write(200_000);
    await scene.quiet();
    pair.client.destroy();
    await scene.quiet();
    return results;
  },
  'destroy inside a data listener': async (scene) => {
    const pair = await scene.pair();
    let calls = 0;
    pair.client.on('error', () => {});
    pair.server.on('data', () => {
      calls++;
      pair.server.destroy();
    });
    pair.client.resume();
    pair.client.write('x');
    await scene.quiet();
    if (!pair.client.destroyed) pair.client.write('y');
    await scene.quiet();
    return { calls, ended: pair.client.destroyed };
  },
  'destroy inside a data listener: what was written is called back before close': async (scene) => {
    const seen: string[][] = [];
    for (const length of [100, 12_000_000]) {
      const pair = await scene.pair();
      const calls = scene.log();
      pair.client.on('error', () => {}).resume();
      pair.server.on('error', () => {}).on('close', () => calls.add('close'));
      pair.server.once('data', () => {
        pair.server.write(Buffer.alloc(length), () => calls.add('written'));
        pair.server.destroy();
      });
      pair.client.write('x');
      await scene.quiet();
      seen.push(calls.lines);
    }
    return seen;
  },
  'destroy while a write waits: it is called back before close': async (scene) => {
    const pair = await scene.pair();
    const { client, server } = pair;
    const calls = scene.log();
    client.on('error', () => {}).pause();
    server.on('error', () => {}).on('close', () => calls.add('close'));
    server.write(Buffer.alloc(12_000_000), () => calls.add('written')); // longer than what any way holds
    await scene.quiet();
    server.once('data', () => server.destroy());
    client.write('x');
    await scene.quiet();
    return calls.lines;
  },
  'destroySoon sends everything first': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    const got = count(pair.server);
    pair.client.write(Buffer.alloc(1_000_000));
    pair.client.destroySoon();
    await scene.quiet();
    return { log: log(), bytes: got.bytes };
  },
  'an AbortSignal destroys': async (scene) => {
    const abort = new AbortController();
    const pair = await scene.pair({ connect: { signal: abort.signal } as Partial<NetConnectOpts> });
    const log = scene.watch(pair);
    const got = count(pair.server);
    pair.client.resume();
    pair.client.write('before');
    await scene.quiet();
    abort.abort();
    await scene.quiet();
    return { log: log(), bytes: got.bytes };
  },
  resetAndDestroy: async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    pair.server.resume();
    pair.client.resetAndDestroy();
    await scene.quiet();
    return log();
  },
  'resetAndDestroy after a write: the bytes come first': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    const got = count(pair.server);
    pair.client.write('hello');
    await scene.quiet();
    pair.client.resetAndDestroy();
    await scene.quiet();
    return { log: log(), bytes: got.bytes };
  },
  'a reset behind unread bytes, of a reader that is paused': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    pair.server.pause();
    const got = count(pair.server);
    pair.server.pause();
    pair.client.write(Buffer.alloc(8_000));
    await scene.quiet();
    pair.client.resetAndDestroy();
    await scene.quiet();
    const before = { log: log(), bytes: got.bytes };
    pair.server.resume();
    await scene.quiet();
    return { before, after: log(), bytes: got.bytes };
  },
  'a reset behind more than a paused reader holds': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    pair.server.pause();
    const got = count(pair.server);
    pair.server.pause();
    pair.client.write(Buffer.alloc(300_000));
    await scene.quiet();
    pair.client.resetAndDestroy();
    await scene.quiet();
    pair.server.resume();
    await scene.quiet();
    // How many bytes were on their way depends on what the ways hold.
    return { log: log(), some: got.bytes > 0 };
  },
  'write to a peer that is gone': async (scene) => {
    const pair = await scene.pair({ connect: { allowHalfOpen: true } });
    const { client, server } = pair;
    const log = scene.watch(pair);
    client.resume();
    server.destroy();
    await scene.quiet();
    const results: string[] = [];
    for (let i = 0; i < 5 && !client.destroyed; i++) {
      client.write('abc', (error) => results.push(outcome(error)));
      await scene.quiet();
    }
    return { log: log(), results };
  },
  'write after end': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    const results: string[] = [];
    pair.client.resume();
    pair.client.end();
    pair.client.write('x', (error) => results.push(outcome(error)));
    await scene.quiet();
    return { log: log(), results };
  },
  'write after destroy': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    const results: string[] = [];
    pair.client.resume();
    pair.server.resume();
    pair.client.destroy();
    const goesOn = pair.client.write('x', (error) => results.push(outcome(error)));
    await scene.quiet();
    pair.client.write('y', (error) => results.push(outcome(error)));
    await scene.quiet();
    return { log: log(), results, goesOn };
  },
  'write after the peer has ended': async (scene) => {
    const pair = await scene.pair();
    const results: string[] = [];
    pair.server.resume();
    pair.server.on('error', () => {});
    pair.client.end();
    await scene.quiet();
    pair.server.write('x', (error) => results.push(outcome(error)));
    await scene.quiet();
    return results;
  },
  'a client that has closed connects again': async (scene) => {
    const { client, server } = await scene.pair();
    server.resume();
    client.resume();
    client.write('first');
    await scene.quiet();
    const got = scene.log();
    client.on('data', (chunk) => got.add(`data ${chunk}`));
    for (const event of ['end', 'close', 'error']) client.on(event, () => got.add(event));
    const listener = createServer((socket) => {
      socket.on('data', (chunk) => socket.write(chunk)).on('error', () => {});
    });
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    scene.atEnd(() => listener.close());
    const { port } = listener.address() as { port: number };
    client.end();
    for (const again of ['second', 'third', 'fourth']) {
      if (again === 'third')
        client.destroy(); // and connects in the same tick
      else await scene.quiet();
      got.add(`closed ${client.destroyed}`);
      client.connect(port, '127.0.0.1');
      await once(client, 'connect');
      client.write(again);
      await scene.quiet();
      got.add(`${client.bytesRead} ${client.bytesWritten}`);
      if (again === 'third') client.end('.');
    }
    return { got: got.lines, own: OVERRIDABLE.filter((name) => Object.hasOwn(client, name)) };
  },
} satisfies Record<string, SocketScenario>;

const OVERRIDABLE = ['write', 'push', 'destroy', '_destroy', '_final', '_writeGeneric', 'emit'];
