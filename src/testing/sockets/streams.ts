/** Reading and writing: chunks, encodings, back pressure, and the many ways of node:stream. */
import type { OnReadOpts, Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { collect, count, outcome, pattern, type SocketScenario, wait } from './scene.ts';

export const reading = {
  'setEncoding joins characters that are cut': async (scene) => {
    const { client, server } = await scene.pair();
    let text = '';
    server.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    for (const byte of Buffer.from('héllo wörld €')) {
      client.write(Buffer.from([byte]));
      await wait(1);
    }
    await scene.quiet();
    return text;
  },
  'async iteration': async (scene) => {
    const { client, server } = await scene.pair();
    server.write('abc');
    setTimeout(() => server.end('def'), 20);
    let text = '';
    for await (const chunk of client) text += chunk;
    return { text, destroyed: client.destroyed };
  },
  'async iteration that breaks off destroys': async (scene) => {
    const pair = await scene.pair();
    const log = scene.watch(pair);
    pair.server.resume();
    pair.server.write('abc');
    let text = '';
    for await (const chunk of pair.client) {
      text += chunk;
      break;
    }
    await scene.quiet();
    return { text, log: log(), destroyed: pair.client.destroyed };
  },
  'read() in readable': async (scene) => {
    const { client, server } = await scene.pair();
    const pieces: string[] = [];
    client.on('readable', () => {
      for (let piece = client.read(4); piece !== null; piece = client.read(4)) pieces.push(String(piece));
    });
    server.write('aaaab');
    await scene.quiet();
    server.write('bbbcccc');
    await scene.quiet();
    server.end('dd');
    await scene.quiet();
    return pieces;
  },
  'unshift and pause': async (scene) => {
    const { client, server } = await scene.pair();
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
    await scene.quiet();
    server.write('two');
    await scene.quiet();
    return text;
  },
  'a paused reader gets nothing, holds little, and then everything': async (scene) => {
    const { client, server } = await scene.pair();
    client.pause();
    const got = count(client);
    client.pause();
    const sent = 3_000_000;
    server.write(Buffer.alloc(sent));
    await scene.quiet();
    const held = {
      bytes: got.bytes,
      // A chunk is at most 64 KiB long, and the stream takes one more than it wants.
      little: client.readableLength <= client.readableHighWaterMark + 65_536,
      some: client.readableLength > 0,
    };
    client.resume();
    await scene.quiet();
    return { held, bytes: got.bytes - sent, left: client.readableLength };
  },
  'pause and resume at every chunk': async (scene) => {
    const { client, server } = await scene.pair();
    const got = collect(client);
    client.on('data', () => {
      client.pause();
      setImmediate(() => client.resume());
    });
    const sent = pattern(300_000);
    server.write(sent);
    await scene.quiet();
    return got.bytes.equals(sent);
  },
  'listeners that change while bytes come': async (scene) => {
    const { client, server } = await scene.pair();
    const text: string[] = [];
    client.once('data', (chunk: Buffer) => {
      text.push(`first ${chunk}`);
      client.on('data', (next: Buffer) => text.push(`then ${next}`));
    });
    server.write('1');
    await scene.quiet();
    server.write('2');
    await scene.quiet();
    client.removeAllListeners('data');
    const flowing = client.readableFlowing;
    client.on('data', (chunk: Buffer) => text.push(`last ${chunk}`));
    server.write('3');
    await scene.quiet();
    return { text, flowing };
  },
  'pipe and pipeline echo': async (scene) => {
    const { client, server } = await scene.pair({ listen: { allowHalfOpen: true } });
    server.pipe(server);
    const sent = pattern(500_000);
    const got = collect(client);
    await pipeline(Readable.from([sent.subarray(0, 100_000), sent.subarray(100_000)]), client);
    await scene.quiet();
    return got.bytes.equals(sent);
  },
  'onread with one buffer, stopped and resumed': async (scene) => {
    const got: Buffer[] = [];
    let calls = 0;
    let socket: Socket | undefined;
    const callback = (length: number, bytes: Uint8Array): boolean => {
      if (socket === undefined) return true; // bytes from before the scenario
      calls++;
      got.push(Buffer.from(bytes.subarray(0, length)));
      if (calls !== 3) return true;
      setTimeout(() => socket?.resume(), 20);
      return false;
    };
    const onread: OnReadOpts = { buffer: Buffer.alloc(1000), callback };
    const pair = await scene.pair({ connect: { onread } });
    const log = scene.watch(pair);
    socket = pair.client;
    socket.resume();
    pair.server.write(pattern(20_000));
    await scene.quiet();
    socket.pause();
    await scene.quiet();
    const before = calls;
    pair.server.write('while paused');
    await scene.quiet();
    const held = calls - before;
    socket.resume();
    pair.server.end();
    await scene.quiet();
    const all = Buffer.concat(got);
    const equal = all.equals(Buffer.concat([pattern(20_000), Buffer.from('while paused')]));
    return { equal, many: calls > 10, held, log: log() };
  },
  'onread with buffers that are made': async (scene) => {
    const got: Uint8Array[] = [];
    let started = false;
    const callback = (length: number, bytes: Uint8Array): boolean => {
      if (started) got.push(bytes.subarray(0, length));
      return true;
    };
    const onread: OnReadOpts = { buffer: () => Buffer.alloc(4096), callback };
    const { client, server } = await scene.pair({ connect: { onread } });
    started = true;
    client.resume();
    server.write(pattern(50_000));
    await scene.quiet();
    return { equal: Buffer.concat(got).equals(pattern(50_000)), many: got.length > 10 };
  },
} satisfies Record<string, SocketScenario>;

export const writing = {
  'callbacks of writes and end come in order': async (scene) => {
    const { client, server } = await scene.pair();
    client.resume();
    server.resume();
    const log = scene.log();
    for (const event of ['finish', 'end', 'close']) client.on(event, () => log.add(event));
    for (let i = 0; i < 4; i++) client.write(`x${i}`, () => log.add(`written ${i}`));
    client.end('z', () => log.add('ended'));
    await scene.quiet();
    return log.lines;
  },
  'a write in the callback of a write': async (scene) => {
    const { client, server } = await scene.pair();
    const got = collect(server);
    const log = scene.log();
    const next = (i: number) => {
      const isLast = i === 20;
      client.write(`${i},`, () => {
        log.add(String(i));
        if (!isLast) next(i + 1);
      });
    };
    next(0);
    process.nextTick(() => log.add('tick'));
    await scene.quiet();
    return { text: got.text, log: log.lines };
  },
  'back pressure: write says false, drain comes, the lengths are told': async (scene) => {
    const { client, server } = await scene.pair();
    const from = client.bytesWritten;
    server.pause();
    let total = 0;
    let drains = 0;
    client.on('drain', () => drains++);
    for (let stuck = false; !stuck && total < 40e6; ) {
      const goesOn = client.write(Buffer.alloc(65_536));
      total += 65_536;
      if (goesOn) continue;
      await wait(10);
      if (client.writableLength > 0) await scene.quiet(); // buffers may grow
      stuck = client.writableLength > 0;
    }
    const before = {
      needsDrain: client.writableNeedDrain,
      waits: client.writableLength > 0,
      size: client.bufferSize === client.writableLength,
    };
    const got = count(server);
    server.resume();
    await scene.quiet();
    return {
      before,
      all: got.bytes === total,
      waits: client.writableLength,
      drained: drains > 0,
      counted: client.bytesWritten - from === total,
    };
  },
  'a write ends with no tick waiting': async (scene) => {
    // What is written in a listener goes out in a tick in http, which remembers how much waited before.
    const { client, server } = await scene.pair();
    client.pause();
    for (let i = 0; i < 100; i++) server.write(Buffer.alloc(100_000));
    let meanwhile = 0;
    let inBetween = 0;
    server.on('data', () => {
      const before = server.writableLength;
      if (before > 0) meanwhile++;
      process.nextTick(() =>
        queueMicrotask(() => process.nextTick(() => (inBetween += before - server.writableLength))),
      );
    });
    client.on('data', () => client.write('x')).resume();
    await scene.quiet();
    return { meanwhile: meanwhile > 0, inBetween, waits: server.writableLength };
  },
  'cork and strings of many encodings': async (scene) => {
    const { client, server } = await scene.pair();
    const got = collect(server);
    client.cork();
    client.write('aé', 'utf8');
    client.write('deadbeef', 'hex');
    client.write(Buffer.from([1, 2]));
    client.write('é', 'latin1');
    client.write('QUJD', 'base64');
    client.write('zz', 'utf16le');
    client.uncork();
    await scene.quiet();
    return got.bytes.toString('hex');
  },
  'what was corked arrives as one chunk': async (scene) => {
    const { client, server } = await scene.pair();
    const got = collect(server);
    const written = scene.log();
    client.cork();
    for (let i = 0; i < 10; i++) client.write(`piece ${i};`, (error) => written.add(outcome(error)));
    const length = client.writableLength;
    process.nextTick(() => client.uncork());
    await scene.quiet();
    return { chunks: got.chunks.map(String), length, written: written.lines };
  },
  'Uint8Array, empty chunks and a default encoding': async (scene) => {
    const { client, server } = await scene.pair();
    const got = collect(server);
    const written = scene.log();
    client.write(new Uint8Array([9, 8]));
    client.write('', (error) => written.add(`empty string ${outcome(error)}`));
    client.write(Buffer.alloc(0), (error) => written.add(`empty buffer ${outcome(error)}`));
    client.setDefaultEncoding('hex');
    client.write('414243', (error) => written.add(`hex ${outcome(error)}`));
    await scene.quiet();
    return { hex: got.bytes.toString('hex'), written: written.lines };
  },
  'what cannot be written is refused by a throw': async (scene) => {
    const { client } = await scene.pair();
    return [null, 5, {}].map((chunk) => {
      try {
        return client.write(chunk as unknown as string);
      } catch (error) {
        return (error as NodeJS.ErrnoException).code;
      }
    });
  },
  'much in both directions at once': async (scene) => {
    const { client, server } = await scene.pair();
    const got = [collect(client), collect(server)];
    const sent = pattern(700_000);
    for (const socket of [client, server]) {
      for (let i = 0; i < 7; i++) socket.write(sent.subarray(i * 100_000, (i + 1) * 100_000));
    }
    await scene.quiet();
    return got.map(({ bytes }) => bytes.equals(sent));
  },
  'both read only when their writes are done': async (scene) => {
    const { client, server } = await scene.pair();
    const sent = pattern(400_000); // less than TCP's buffers hold
    const got: { readonly bytes: Buffer }[] = [];
    for (const socket of [client, server]) {
      socket.pause();
      socket.write(sent.subarray(0, 200_000));
      socket.write(sent.subarray(200_000), () => {
        got.push(collect(socket));
        socket.resume();
      });
    }
    await scene.quiet();
    return got.map(({ bytes }) => bytes.equals(sent));
  },
  'both read only when they have finished': async (scene) => {
    const { client, server } = await scene.pair({ connect: { allowHalfOpen: true }, listen: { allowHalfOpen: true } });
    const sent = pattern(400_000);
    const got: { readonly bytes: Buffer }[] = [];
    for (const socket of [client, server]) {
      socket.pause().once('finish', () => {
        got.push(collect(socket));
        socket.resume();
      });
      socket.end(sent);
    }
    await scene.quiet();
    return got.map(({ bytes }) => bytes.equals(sent));
  },
  'an end behind writes that wait, of two that do not read': async (scene) => {
    const pair = await scene.pair();
    const { client, server } = pair;
    const sent = pattern(400_000);
    for (const socket of [client, server]) socket.pause().write(sent);
    await scene.quiet();
    const log = scene.watch(pair);
    const seen = () => Object.values(log()).map((events) => events.split(', ').sort()); // in an order of moments
    const got = [client, server].map((socket) => collect(socket));
    client.end('end');
    server.end('end');
    for (const socket of [client, server]) socket.resume();
    await scene.quiet();
    return { seen: seen(), whole: got.map(({ bytes }) => bytes.equals(Buffer.concat([sent, Buffer.from('end')]))) };
  },
} satisfies Record<string, SocketScenario>;
