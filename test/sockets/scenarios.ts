/**
 * What a program can see of a connection, as scenarios that give a log. The same scenario on a plain and on a moved connection gives the
 * same log. Each begins with one byte each way, so that a connection that wants to move has moved before the scenario proper.
 */
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { MakePair, PairOptions, SocketPair } from './pairs.ts';

export type Scenario = (make: (options?: PairOptions) => Promise<SocketPair>) => Promise<unknown>;

export const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Long enough for everything that is under way, also on a busy machine. */
const SETTLE_MS = 120;
const settle = () => wait(SETTLE_MS);

const EVENTS = ['end', 'finish', 'close', 'timeout', 'error'] as const;

/** Events of both ends, told apart; what happens at one end is ordered, the two ends against each other are not. */
function watch({ client, server }: SocketPair): () => unknown {
  const logs = { client: [] as string[], server: [] as string[] };
  for (const [name, socket] of [
    ['client', client],
    ['server', server],
  ] as const) {
    for (const event of EVENTS) {
      socket.on(event, (value?: NodeJS.ErrnoException | boolean) => {
        const detail =
          value instanceof Error
            ? `${(value as NodeJS.ErrnoException).code} ${(value as NodeJS.ErrnoException).syscall}`
            : (value ?? '');
        logs[name].push(`${event} ${detail}`.trim());
      });
    }
  }
  return () => ({ client: logs.client.join(', '), server: logs.server.join(', ') });
}

function count(socket: Socket): { bytes: number } {
  const got = { bytes: 0 };
  socket.on('data', (chunk: Buffer) => {
    got.bytes += chunk.length;
  });
  return got;
}

const pattern = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff));

export const scenarios: Readonly<Record<string, Scenario>> = {
  'half close with allowHalfOpen: the other direction goes on': async (make) => {
    const pair = await make({ connect: { allowHalfOpen: true }, listen: { allowHalfOpen: true } });
    const { client, server } = pair;
    const log = watch(pair);
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
    await settle();
    await settle();
    return { log: log(), bytes: got.bytes, state };
  },
  'half close without allowHalfOpen ends both': async (make) => {
    const pair = await make();
    const log = watch(pair);
    pair.client.resume();
    const got = count(pair.server);
    pair.client.write(Buffer.alloc(100_000));
    pair.client.end('bye');
    await settle();
    return { log: log(), bytes: got.bytes };
  },
  'destroy while nothing is under way': async (make) => {
    const pair = await make();
    const log = watch(pair);
    pair.client.resume();
    pair.server.resume();
    pair.client.destroy();
    await settle();
    return { log: log(), states: [pair.client.readyState, pair.server.readyState] };
  },
  'destroy after a write that has left': async (make) => {
    const pair = await make();
    const log = watch(pair);
    const got = count(pair.server);
    pair.client.write(Buffer.alloc(10_000));
    await wait(20);
    pair.client.destroy();
    await settle();
    return { log: log(), bytes: got.bytes };
  },
  'destroy in the tick of a small write: it still arrives': async (make) => {
    const pair = await make();
    const log = watch(pair);
    const got = count(pair.server);
    pair.client.write(Buffer.alloc(10_000));
    pair.client.destroy();
    await settle();
    return { log: log(), bytes: got.bytes };
  },
  'destroy with an error': async (make) => {
    const pair = await make();
    const log = watch(pair);
    pair.server.resume();
    pair.client.destroy(Object.assign(new Error('mine'), { code: 'EMINE' }));
    await settle();
    return log();
  },
  'destroy with bytes unread: the peer is reset': async (make) => {
    const pair = await make();
    const log = watch(pair);
    pair.server.resume();
    pair.client.pause();
    pair.server.write(Buffer.alloc(400_000));
    await wait(40);
    pair.client.destroy();
    await settle();
    return log();
  },
  resetAndDestroy: async (make) => {
    const pair = await make();
    const log = watch(pair);
    pair.server.resume();
    pair.client.resetAndDestroy();
    await settle();
    return log();
  },
  'resetAndDestroy after a write: the bytes come first': async (make) => {
    const pair = await make();
    const log = watch(pair);
    const got = count(pair.server);
    pair.client.write('hello');
    await wait(20);
    pair.client.resetAndDestroy();
    await settle();
    return { log: log(), bytes: got.bytes };
  },
  'write to a peer that is gone': async (make) => {
    const pair = await make({ connect: { allowHalfOpen: true } });
    const { client, server } = pair;
    const log = watch(pair);
    client.resume();
    server.destroy();
    await wait(30);
    const results = new Set<string>();
    for (let i = 0; i < 5 && !client.destroyed; i++) {
      client.write('abc', (error) => results.add((error as NodeJS.ErrnoException | null | undefined)?.code ?? 'ok'));
      await wait(10);
    }
    await settle();
    return { log: log(), failed: [...results].some((one) => one !== 'ok') };
  },
  'write after end': async (make) => {
    const pair = await make();
    const log = watch(pair);
    pair.client.resume();
    pair.client.end();
    let code: string | undefined;
    pair.client.write('x', (error) => {
      code = (error as NodeJS.ErrnoException | null | undefined)?.code;
    });
    await settle();
    return { log: log(), code };
  },
  'write after the peer has ended': async (make) => {
    const pair = await make();
    pair.server.resume();
    pair.server.on('error', () => {});
    pair.client.end();
    await wait(30);
    let code: string | undefined;
    pair.server.write('x', (error) => {
      code = (error as NodeJS.ErrnoException | null | undefined)?.code;
    });
    await settle();
    return code;
  },
  'callbacks of writes and end come in order': async (make) => {
    const pair = await make();
    const { client, server } = pair;
    client.resume();
    server.resume();
    const log: string[] = [];
    client
      .on('finish', () => log.push('finish'))
      .on('end', () => log.push('end'))
      .on('close', () => log.push('close'));
    for (let i = 0; i < 4; i++) client.write(`x${i}`, () => log.push(`written ${i}`));
    client.end('z', () => log.push('ended'));
    await settle();
    return log;
  },
  'back pressure: write says false, drain comes, the lengths are told': async (make) => {
    const { client, server } = await make();
    server.pause();
    let total = 0;
    let drains = 0;
    client.on('drain', () => drains++);
    for (let stuck = 0; stuck < 3 && total < 40e6; ) {
      const goesOn = client.write(Buffer.alloc(65_536));
      total += 65_536;
      if (goesOn) continue;
      await wait(10);
      if (client.writableLength > 0) stuck++;
    }
    const before = { needsDrain: client.writableNeedDrain, waits: client.writableLength > 0 };
    const got = count(server);
    server.resume();
    await settle();
    await settle();
    return {
      before,
      all: got.bytes === total,
      waits: client.writableLength,
      drained: drains > 0,
      counted: client.bytesWritten === total + 1,
    };
  },
  'cork and strings of many encodings': async (make) => {
    const { client, server } = await make();
    const got: Buffer[] = [];
    server.on('data', (chunk: Buffer) => got.push(chunk));
    client.cork();
    client.write('aé', 'utf8');
    client.write('deadbeef', 'hex');
    client.write(Buffer.from([1, 2]));
    client.write('é', 'latin1');
    client.write('QUJD', 'base64');
    client.write('zz', 'utf16le');
    client.uncork();
    await settle();
    return Buffer.concat(got).toString('hex');
  },
  'setEncoding joins characters that are cut': async (make) => {
    const { client, server } = await make();
    let text = '';
    server.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    for (const byte of Buffer.from('héllo wörld €')) {
      client.write(Buffer.from([byte]));
      await wait(1);
    }
    await settle();
    return text;
  },
  'pipe and pipeline echo': async (make) => {
    const { client, server } = await make({ listen: { allowHalfOpen: true } });
    server.pipe(server);
    const sent = pattern(500_000);
    const got: Buffer[] = [];
    client.on('data', (chunk: Buffer) => got.push(chunk));
    await pipeline(Readable.from([sent.subarray(0, 100_000), sent.subarray(100_000)]), client);
    await settle();
    return Buffer.concat(got).equals(sent);
  },
  'async iteration': async (make) => {
    const { client, server } = await make();
    server.write('abc');
    setTimeout(() => server.end('def'), 20);
    let text = '';
    for await (const chunk of client) text += chunk;
    return { text, destroyed: client.destroyed };
  },
  'read() in readable': async (make) => {
    const { client, server } = await make();
    const pieces: string[] = [];
    client.on('readable', () => {
      for (let piece = client.read(4); piece !== null; piece = client.read(4)) pieces.push(String(piece));
    });
    server.write('aaaab');
    await wait(20);
    server.write('bbbcccc');
    await wait(20);
    server.end('dd');
    await settle();
    return pieces;
  },
  'unshift and pause': async (make) => {
    const { client, server } = await make();
    let text = '';
    client.once('data', (chunk: Buffer) => {
      client.pause();
      client.unshift(chunk);
      client.on('data', (one: Buffer) => {
        text += one;
      });
      client.resume();
    });
    server.write('one');
    await wait(20);
    server.write('two');
    await settle();
    return text;
  },
  'the end waits behind unread bytes while paused': async (make) => {
    const pair = await make();
    const { client, server } = pair;
    const log = watch(pair);
    let bytes = 0;
    server.pause();
    server.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    server.pause();
    client.write(Buffer.alloc(8_000)); // fits into any ring
    client.end();
    await settle();
    const before = { log: log(), bytes };
    server.resume();
    await settle();
    return { before, after: log(), bytes };
  },
  'timeout when idle, put off by every byte': async (make) => {
    const { client, server } = await make();
    client.resume();
    server.resume();
    const from = Date.now();
    let after = 0;
    client.setTimeout(300, () => {
      after = Date.now() - from;
    });
    for (let i = 0; i < 4; i++) {
      await wait(100);
      server.write('k');
    }
    await wait(500);
    return after > 600;
  },
  'timeout of a writer that is stuck': async (make) => {
    const { client, server } = await make();
    server.pause();
    let timedOut = false;
    client.setTimeout(150, () => {
      timedOut = true;
    });
    for (let i = 0; i < 60; i++) client.write(Buffer.alloc(200_000));
    await wait(500);
    return timedOut;
  },
  'destroy with writes pending': async (make) => {
    const pair = await make();
    const results: string[] = [];
    pair.server.pause();
    for (let i = 0; i < 60; i++) {
      pair.client.write(Buffer.alloc(200_000), (error) =>
        results.push((error as NodeJS.ErrnoException | null | undefined)?.code ?? 'ok'),
      );
    }
    await wait(60);
    results.length = 0;
    pair.client.destroy();
    await settle();
    // How many succeed in the last moment depends on what the ways hold.
    return [...new Set(results)].filter((result) => result !== 'ok');
  },
  'destroy after a write that the kernel takes whole: it arrives': async (make) => {
    const pair = await make();
    const log = watch(pair);
    const got = count(pair.server);
    pair.client.write(pattern(210_000));
    pair.client.destroy();
    await settle();
    return { log: log(), bytes: got.bytes };
  },

  'destroySoon sends everything first': async (make) => {
    const pair = await make();
    const log = watch(pair);
    const got = count(pair.server);
    pair.client.write(Buffer.alloc(1_000_000));
    pair.client.destroySoon();
    await settle();
    return { log: log(), bytes: got.bytes };
  },
  'destroy inside a data listener': async (make) => {
    const pair = await make();
    let calls = 0;
    pair.client.on('error', () => {});
    pair.server.on('data', () => {
      calls++;
      pair.server.destroy();
    });
    pair.client.resume();
    pair.client.write('x');
    await wait(20);
    if (!pair.client.destroyed) pair.client.write('y');
    await settle();
    return { calls, ended: pair.client.destroyed };
  },
  'addresses, counters and options are as before': async (make) => {
    const { client, server } = await make();
    client.resume();
    server.resume();
    client.write('1234');
    await settle();
    return {
      chained:
        client.setNoDelay(true) === client &&
        client.setKeepAlive(true, 1000) === client &&
        client.unref().ref() === client,
      same: client.localPort === server.remotePort && client.remotePort === server.localPort,
      addresses: [client.remoteAddress, client.remoteFamily, client.localAddress, client.readyState, client.pending],
      counters: [client.bytesWritten, client.bytesRead, server.bytesRead, server.bytesWritten],
      lengths: [client.writableLength, client.readableLength, client.bufferSize],
    };
  },
  'counters survive the close': async (make) => {
    const { client, server } = await make();
    server.resume();
    client.resume();
    client.end('12345');
    await settle();
    return [client.bytesWritten, server.bytesRead, client.destroyed, server.destroyed];
  },
  'onread with one buffer, stopped and resumed': async (make) => {
    const got: Buffer[] = [];
    let calls = 0;
    let socket: Socket | undefined;
    const buffer = Buffer.alloc(1000);
    const onread = {
      buffer,
      callback(length: number, bytes: Uint8Array) {
        calls++;
        got.push(Buffer.from(bytes.subarray(0, length)));
        if (calls !== 3) return true;
        setTimeout(() => socket?.resume(), 20);
        return false;
      },
    };
    const { client, server } = await make({ connect: { onread } as PairOptions['connect'] & object });
    socket = client;
    client.resume();
    server.write(pattern(20_000));
    await settle();
    await settle();
    const all = Buffer.concat(got);
    return { equal: all.subarray(-20_000).equals(pattern(20_000)), calls: calls > 10 };
  },
  'an uncaught exception of a data listener loses nothing': async (make) => {
    const { client, server } = await make();
    let bytes = 0;
    let caught = 0;
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', () => caught++);
    try {
      server.on('data', (chunk: Buffer) => {
        const first = bytes === 0;
        bytes += chunk.length;
        if (first) throw new Error('of the program');
      });
      for (let i = 0; i < 3; i++) client.write(Buffer.alloc(60_000));
      await settle();
      client.write('x');
      await settle();
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of listeners) process.on('uncaughtException', listener);
    }
    return { bytes, caught };
  },
};

/** A pair of which one byte each way has passed and was read; both have moved if they are going to. */
export function warmed(make: MakePair, moved: (pair: SocketPair) => Promise<void>): MakePair {
  return async (options) => {
    const pair = await make(options);
    const reads = [pair.client, pair.server].map((socket) => readOne(socket));
    pair.client.write('a');
    pair.server.write('b');
    await Promise.all(reads);
    await moved(pair);
    return pair;
  };
}

/** Takes one byte off without leaving a listener; a socket with `onread` counts by itself. */
async function readOne(socket: Socket): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    if (socket.read(1) !== null || socket.bytesRead > 0) return;
    await wait(1);
  }
  throw new Error('no byte');
}

/** What a scenario says of such pairs, which are closed afterwards. */
export async function run(scenario: Scenario, make: MakePair): Promise<unknown> {
  const pairs: SocketPair[] = [];
  try {
    return await scenario(async (options) => {
      const pair = await make(options);
      pairs.push(pair);
      return pair;
    });
  } finally {
    for (const pair of pairs) await pair.close();
  }
}
