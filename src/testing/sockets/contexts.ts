/** Around the listeners: in which async context they run, and what becomes of what they throw. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { Agent, createServer, request } from 'node:http';
import type { Socket } from 'node:net';
import { count, type SocketScenario } from './scene.ts';

/** Listeners set in a context of their own, which must not matter; what context each saw. */
function watchContexts(storage: AsyncLocalStorage<string>, socket: Socket): () => Record<string, string> {
  const seen: Record<string, Set<string>> = {};
  storage.run('where listeners are set', () => {
    for (const event of ['data', 'end', 'finish', 'close']) {
      socket.on(event, () => {
        seen[event] ??= new Set();
        seen[event].add(storage.getStore() ?? 'none');
      });
    }
  });
  return () => Object.fromEntries(Object.entries(seen).map(([event, stores]) => [event, [...stores].join()]));
}

export const contexts = {
  'listeners of a client run in the context of connect': async (scene) => {
    const storage = new AsyncLocalStorage<string>();
    const { client, server } = await storage.run('connect', () => scene.pair());
    const seen = watchContexts(storage, client);
    server.resume();
    for (let i = 0; i < 5; i++) {
      storage.run('writer', () => server.write(Buffer.alloc(30_000)));
      await scene.quiet();
    }
    storage.run('ender', () => server.end());
    await scene.quiet();
    return seen();
  },
  'listeners of a server run in one context, whoever writes': async (scene) => {
    const storage = new AsyncLocalStorage<string>();
    const { client, server } = await storage.run('listen', () => scene.pair());
    const seen = watchContexts(storage, server);
    client.resume();
    for (let i = 0; i < 5; i++) {
      storage.run('writer', () => client.write(Buffer.alloc(30_000)));
      await scene.quiet();
    }
    storage.run('ender', () => client.end());
    await scene.quiet();
    return seen();
  },
  'listeners of a client that http.Agent uses again run in the context of each request': async (scene) => {
    const storage = new AsyncLocalStorage<string>();
    const { client, server } = await storage.run('connect', () => scene.pair());
    const seen: string[] = [];
    const see = (what: string) => seen.push(`${what}: ${storage.getStore() ?? 'none'}`);
    client.on('data', () => see('data')).on('error', () => see('error'));
    const web = createServer((asked, response) =>
      asked.url === '/end' ? server.resetAndDestroy() : response.end('x'),
    );
    web.emit('connection', server);
    const agent = Object.assign(new Agent({ keepAlive: true, maxSockets: 1 }), { createConnection: () => client });
    for (const path of ['/first', '/second', '/third', '/end']) {
      await storage.run(path, async () => {
        const asked = request({ agent, host: 'there', path });
        asked.on('response', (response) => response.resume()).on('error', () => see('error of a request'));
        asked.end();
      });
      await scene.quiet();
    }
    agent.destroy();
    return seen;
  },
  'callbacks of writes run in the context of the write': async (scene) => {
    const storage = new AsyncLocalStorage<string>();
    const { client, server } = await storage.run('connect', () => scene.pair());
    const seen: string[] = [];
    server.pause();
    // One at a time: how many are joined into one depends on the way.
    const write = (length: number) =>
      new Promise<void>((resolve) =>
        storage.run(`write of ${length}`, () =>
          client.write(Buffer.alloc(length), () => {
            seen.push(storage.getStore() ?? 'none');
            resolve();
          }),
        ),
      );
    await write(10);
    const stuck = write(12_000_000); // longer than what any way holds
    await scene.quiet();
    storage.run('reader', () => server.resume());
    await stuck;
    await scene.quiet();
    return seen;
  },
  'an uncaught exception of a listener loses nothing': async (scene) => {
    const pair = await scene.pair();
    const { client, server } = pair;
    const log = scene.watch(pair);
    const caught = scene.log();
    const got = count(server);
    const threw = new Set<string>();
    for (const event of ['data', 'end', 'finish']) {
      server.on(event, () => {
        if (threw.has(event)) return;
        threw.add(event);
        throw new Error(event);
      });
    }
    client.resume();
    process.setUncaughtExceptionCaptureCallback((error) => caught.add(error.message));
    try {
      for (let i = 0; i < 3; i++) client.write(Buffer.alloc(60_000));
      await scene.quiet();
      client.write('x');
      await scene.quiet();
      client.end();
      await scene.quiet();
      // At the last byte, when the end may have come, too.
      const other = await scene.pair();
      const [last, otherLog] = [count(other.server), scene.watch(other)];
      other.server.on('data', () => {
        if (last.bytes === 40_000) throw new Error('at the last byte');
      });
      other.client.resume().end(Buffer.alloc(40_000));
      await scene.quiet();
      return { bytes: got.bytes, caught: caught.lines, log: log(), last: last.bytes, otherLog: otherLog() };
    } finally {
      process.setUncaughtExceptionCaptureCallback(null);
    }
  },
} satisfies Record<string, SocketScenario>;
