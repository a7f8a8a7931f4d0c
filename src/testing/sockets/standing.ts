/** What a socket tells of itself, and its timeouts. */
import type { NetConnectOpts } from 'node:net';
import { type SocketScenario, wait } from './scene.ts';

export const standing = {
  'addresses, counters and options are as before': async (scene) => {
    const { client, server } = await scene.pair();
    const from = [client.bytesWritten, client.bytesRead, server.bytesRead, server.bytesWritten];
    client.resume();
    server.resume();
    client.write('1234');
    await scene.quiet();
    const counters = [client.bytesWritten, client.bytesRead, server.bytesRead, server.bytesWritten];
    return {
      chained:
        client.setNoDelay(true) === client &&
        client.setKeepAlive(true, 1000) === client &&
        client.unref().ref() === client,
      same: client.localPort === server.remotePort && client.remotePort === server.localPort,
      addresses: [client.remoteAddress, client.remoteFamily, client.localAddress, client.readyState, client.pending],
      counters: counters.map((counter, i) => counter - (from[i] ?? 0)),
      lengths: [client.writableLength, client.readableLength, client.bufferSize],
    };
  },
  'counters survive the close, and addresses that were asked for': async (scene) => {
    const { client, server } = await scene.pair();
    const from = [client.bytesWritten, server.bytesRead] as const;
    void client.remoteAddress;
    server.resume();
    client.resume();
    client.end('12345');
    await scene.quiet();
    return {
      counters: [client.bytesWritten - from[0], server.bytesRead - from[1]],
      destroyed: [client.destroyed, server.destroyed],
      addresses: [client.remoteAddress, client.localAddress, client.address()],
      state: client.readyState,
    };
  },
  'what waits is counted as written': async (scene) => {
    const { client, server } = await scene.pair();
    const from = client.bytesWritten;
    server.pause();
    client.cork();
    client.write('corked');
    const corked = client.bytesWritten - from;
    client.uncork();
    for (let i = 0; i < 40; i++) client.write(Buffer.alloc(200_000));
    await scene.quiet();
    return { corked, written: client.bytesWritten - from, waits: client.writableLength > 0 };
  },
  'the options noDelay and keepAlive of connect and listen': async (scene) => {
    const wanted = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 1000 };
    const pair = await scene.pair({ connect: wanted, listen: wanted });
    const log = scene.watch(pair);
    pair.client.resume();
    pair.server.resume();
    pair.client.write('x');
    await scene.quiet();
    pair.client.end();
    await scene.quiet();
    return log();
  },
  'a small high-water mark': async (scene) => {
    const listen = { highWaterMark: 10 };
    const { client, server } = await scene.pair({ connect: listen as Partial<NetConnectOpts>, listen });
    server.pause();
    const answers = [client.write('x'.repeat(9)), client.write('y')];
    await scene.quiet();
    return {
      answers,
      marks: [client.readableHighWaterMark, client.writableHighWaterMark, server.readableHighWaterMark],
    };
  },
  'timeout when idle, put off by every byte': async (scene) => {
    const { client, server } = await scene.pair();
    client.resume();
    server.resume();
    let fired = 0;
    let longestMs = 0;
    client.on('timeout', () => fired++);
    // Of a process that was stopped timers come before bytes.
    do {
      [fired, longestMs] = [0, 0];
      client.setTimeout(1000);
      for (let i = 0, last = performance.now(); i < 12; i++) {
        await wait(100);
        (i < 6 ? server : client).write('k'); // what is received counts, and what is sent
        const now = performance.now();
        longestMs = Math.max(longestMs, now - last);
        last = now;
      }
    } while (longestMs > 700);
    const early = fired;
    await wait(1500);
    return { early, fired, timeout: client.timeout };
  },
  'timeout of a writer that is stuck': async (scene) => {
    const { client, server } = await scene.pair();
    server.pause();
    let fired = 0;
    client.setTimeout(150, () => fired++);
    for (let i = 0; i < 60; i++) client.write(Buffer.alloc(200_000));
    await scene.quiet();
    await wait(400);
    return fired > 0;
  },
} satisfies Record<string, SocketScenario>;
