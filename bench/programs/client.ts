/** The client of the benchmark: plain node:net and node:http. That it asks which way its bytes go is all it knows of Isthmus. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { type EventEmitter, once } from 'node:events';
import { Agent, get } from 'node:http';
import type { Socket } from 'node:net';
import { load } from '../packages.ts';
import { cpuSecondsOf } from '../process-facts.ts';
import { type Address, collectGarbage, type Expectation, type Sample, sleep, type Window } from './control.ts';
import { closed, dial, open } from './dial.ts';
import { type Path, pathFor, sampleOn } from './path.ts';
import { Reading, type ReadingWay } from './reading.ts';
import { type Latency, type RoundTrips, Times } from './times.ts';
import { Writer } from './writer.ts';

interface To {
  readonly to: Address;
}
interface Expects {
  readonly expects: Expectation;
}
interface Messages {
  readonly messageBytes: number;
}
/** Of both ends, whose CPU time is asked for. */
interface Pids {
  readonly pids: readonly number[];
}

/** What is used of the package ws, which comes without types. */
interface WsPackage {
  readonly WebSocket: new (url: string, options: object) => WebSocket;
}
interface WebSocket extends EventEmitter {
  readonly _socket: Socket;
  send(message: Buffer): void;
  terminate(): void;
}

/** Between two looks whether the connection has moved. */
const SETTLE_MS = 10;

export const clientCommands = {
  /** Ping-pong, one message at a time. */
  async roundTrips({
    to,
    messageBytes,
    expects,
    pids,
    warmMs,
    windowMs,
  }: To & Messages & Expects & Pids & Window): Promise<RoundTrips> {
    const path = await pathFor(expects);
    const socket = await open(to);
    try {
      const message = Buffer.alloc(messageBytes, 'c');
      await path.settled(
        () => [socket],
        'both',
        () => pingPong(socket, message, SETTLE_MS),
      );
      const talk: Talk = (forMs, times) => pingPong(socket, message, forMs, times);
      return await measured(talk, path, [socket], pids, { warmMs, windowMs });
    } finally {
      socket.destroy();
    }
  },

  /** From `connect` to the first byte of an answer. In microseconds. */
  async connects({ to, warmMs, windowMs }: To & Window): Promise<Latency> {
    const request = Buffer.alloc(1, 'c');
    for (const end = performance.now() + warmMs; performance.now() < end; ) await shortConnection(to, request);
    const times = new Times();
    for (const end = performance.now() + windowMs; performance.now() < end; )
      times.add(await shortConnection(to, request));
    return times.latency();
  },

  /** Connect, send, receive, close, one after the other. In microseconds each. */
  async shortConnections({ to, messageBytes, count }: To & Messages & { readonly count: number }): Promise<number> {
    const request = Buffer.alloc(messageBytes, 'c');
    const before = performance.now();
    for (let i = 0; i < count; i++) await shortConnection(to, request);
    return ((performance.now() - before) / count) * 1000;
  },

  // --- Streams ---

  /** Writes as fast as it goes; resolves when the connection has moved. */
  async startStream({ to, writeBytes, expects }: To & Expects & { readonly writeBytes: number }): Promise<void> {
    const socket = await open(to);
    const path = await pathFor(expects);
    stream = new Stream(socket, writeBytes, path);
    stream.start();
    await path.settled(() => [socket], 'out');
  },

  sampleSent: (window: Window): Promise<Sample> => running(stream).sample(window),

  /** Resolves to all that was written, once it has arrived. */
  stopStream: (): Promise<number> => running(stream).stop(),

  /** Reads what a source writes; resolves when the connection has moved. */
  async startReading({ to, by, expects }: To & Expects & { readonly by: ReadingWay }): Promise<void> {
    const path = await pathFor(expects);
    reading = await Reading.start(to, by, path);
    const { socket } = reading;
    await path.settled(() => [socket], 'in');
  },

  sampleRead: (window: Window): Promise<Sample> => running(reading).sample(window),

  /** Resolves to all that was read, once nothing more comes. */
  stopReading: (): Promise<number> => running(reading).stop(),

  // --- HTTP ---

  /** Keep-alive connections, each with one request at a time. Resolves to requests per second. */
  async requests({
    to,
    by,
    connections,
    expects,
    warmMs,
    windowMs,
  }: To & Expects & Window & { readonly by: keyof typeof REQUESTERS; readonly connections: number }): Promise<number> {
    const path = await pathFor(expects);
    const sockets = new Set<Socket>();
    const { request, close } = await REQUESTERS[by](to, connections, (socket) => sockets.add(socket));
    let running = true;
    let done = 0;
    const chain = async () => {
      while (running) {
        await request();
        done++;
      }
    };
    const chains = Promise.all(Array.from({ length: connections }, chain));
    const measured = async () => {
      await path.settled(() => (sockets.size < connections ? [] : [...sockets]), 'both');
      await sleep(warmMs);
      const verify = path.watch([...sockets]);
      const [doneBefore, before] = [done, performance.now()];
      await sleep(windowMs);
      const perSecond = ((done - doneBefore) / (performance.now() - before)) * 1000;
      verify();
      return perSecond;
    };
    try {
      // A chain ends early only by failing.
      return await Promise.race([measured(), chains.then(() => Number.NaN)]);
    } finally {
      running = false;
      await chains.catch(() => {});
      close();
    }
  },

  /** Ping-pong over a WebSocket. */
  async webSocketRoundTrips({
    to,
    messageBytes,
    expects,
    pids,
    warmMs,
    windowMs,
  }: To & Messages & Expects & Pids & Window): Promise<RoundTrips> {
    const { WebSocket } = load<WsPackage>('ws');
    const path = await pathFor(expects);
    const options = { perMessageDeflate: false };
    const socket = new WebSocket(
      to.path === undefined ? `ws://127.0.0.1:${to.port}/` : `ws+unix://${to.path}:/`,
      options,
    );
    try {
      await once(socket, 'open');
      const below = socket._socket;
      const message = Buffer.alloc(messageBytes, 'c');
      const talk: Talk = async (forMs, times) => {
        const end = performance.now() + forMs;
        do {
          const sentAt = performance.now();
          const answer = answered(socket);
          socket.send(message);
          await answer;
          times?.add((performance.now() - sentAt) * 1000);
        } while (performance.now() < end);
      };
      await path.settled(
        () => [below],
        'both',
        async () => void (await talk(SETTLE_MS)),
      );
      return await measured(talk, path, [below], pids, { warmMs, windowMs });
    } finally {
      socket.terminate();
    }
  },

  // --- Many open connections ---

  /** Opens connections and lets a message pass both ways on each, until all have moved. */
  async openMany({
    to,
    count,
    messageBytes,
    expects,
  }: To & Messages & Expects & { readonly count: number }): Promise<Opened> {
    const before = performance.now();
    const message = Buffer.alloc(messageBytes, 'c');
    for (let left = count; left > 0; left -= OPEN_AT_ONCE) {
      const some = await Promise.all(Array.from({ length: Math.min(left, OPEN_AT_ONCE) }, () => open(to)));
      for (const socket of some) socket.resume();
      opened.push(...some);
      await Promise.all(some.map((socket) => pingPong(socket, message, 0)));
    }
    const seconds = () => (performance.now() - before) / 1000;
    const openSeconds = seconds();
    const path = await pathFor(expects);
    let last = 0;
    await path.settled(
      () => opened,
      'both',
      async () => {
        await sleep(last === 0 ? 100 : 20);
        last++;
        await Promise.all(opened.map((socket) => pingPong(socket, message, 0)));
      },
    );
    return { openSeconds, movedSeconds: expects === null ? null : seconds() };
  },

  /** Ping-pong on some of those that are open, all at the same time, while the others say nothing. */
  async roundTripsAmong({
    active,
    messageBytes,
    expects,
    pids,
    warmMs,
    windowMs,
  }: Messages & Expects & Pids & Window & { readonly active: number }): Promise<RoundTrips> {
    const message = Buffer.alloc(messageBytes, 'c');
    const every = Math.floor(opened.length / active);
    const sockets = opened.filter((_, i) => i % every === 0).slice(0, active);
    const talk: Talk = (forMs, times) => Promise.all(sockets.map((socket) => pingPong(socket, message, forMs, times)));
    return measured(talk, await pathFor(expects), sockets, pids, { warmMs, windowMs });
  },

  async closeMany(): Promise<void> {
    await Promise.all(
      opened.splice(0).map((socket) => {
        socket.end();
        return closed(socket);
      }),
    );
  },

  collectClient: collectGarbage,
};

/** Since the first was. */
export interface Opened {
  /** Until each had its first answer. */
  readonly openSeconds: number;
  /** Until all had moved; null = they were not to. */
  readonly movedSeconds: number | null;
}

export type ClientCommands = typeof clientCommands;

interface FetchAgent {
  destroy(): Promise<void>;
}

/** fetch opens as many connections as it likes, unless its agent is told how many; that of Node.js is behind a symbol. */
async function fetchAgent(connections: number): Promise<FetchAgent> {
  await fetch('data:,'); // so that it is there
  // By version; before Node.js 26 there is the second only.
  const [agent] = [2, 1]
    .map((version): unknown => Reflect.get(globalThis, Symbol.for(`undici.globalDispatcher.${version}`)))
    .filter((one) => one !== undefined);
  if (typeof agent !== 'object' || agent === null) throw new Error('the agent of fetch is not found');
  const Agent = agent.constructor as new (options: object) => FetchAgent;
  return new Agent({ connections });
}

/** Who makes HTTP requests, one by one, and tells of each socket. */
const REQUESTERS = {
  async 'node:http'(to: Address, connections: number, use: (socket: Socket) => void) {
    const agent = new Agent({ keepAlive: true, maxSockets: connections });
    const target = to.path === undefined ? { host: '127.0.0.1', port: to.port } : { socketPath: to.path };
    const request = () =>
      new Promise<void>((resolve, reject) => {
        const request = get({ ...target, agent, path: '/' }, (response) => {
          response.on('end', resolve).on('error', reject).resume();
        });
        request.on('socket', use).on('error', reject);
      });
    return { request, close: () => agent.destroy() };
  },

  async fetch(to: Address, connections: number, use: (socket: Socket) => void) {
    const agent = await fetchAgent(connections);
    const connected = (message: unknown) => use((message as { readonly socket: Socket }).socket);
    subscribe('undici:client:connected', connected);
    const request = async () => {
      await (await fetch(`http://127.0.0.1:${to.port}/`, { dispatcher: agent } as RequestInit)).arrayBuffer();
    };
    const close = () => {
      unsubscribe('undici:client:connected', connected);
      void agent.destroy();
    };
    return { request, close };
  },
} as const;

function answered(socket: WebSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = () => {
      socket.off('message', done).off('close', lost);
      resolve();
    };
    const lost = () => reject(new Error('the connection was closed'));
    socket.on('message', done).on('close', lost);
  });
}

/** Messages there and back for so long. */
type Talk = (forMs: number, times?: Times) => Promise<unknown>;

/** What a window of it takes, with the CPU time of both ends; the bytes have to go the expected way all the time. */
async function measured(
  talk: Talk,
  path: Path,
  sockets: readonly Socket[],
  pids: readonly number[],
  { warmMs, windowMs }: Window,
): Promise<RoundTrips> {
  await talk(warmMs);
  const verify = path.watch(sockets);
  const cpuBefore = cpuSecondsOf(pids);
  const times = new Times();
  await talk(windowMs, times);
  const cpuSeconds = cpuSecondsOf(pids) - cpuBefore;
  verify();
  return { ...times.latency(), cpuSeconds };
}

const OPEN_AT_ONCE = 50;
const opened: Socket[] = [];

/** For so long, and at least once. */
function pingPong(socket: Socket, message: Buffer, forMs: number, times?: Times): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = performance.now() + forMs;
    let missing = message.length;
    let sentAt = 0;
    const lost = () => reject(new Error('the connection was closed'));
    const received = ({ length }: Buffer) => {
      missing -= length;
      if (missing > 0) return;
      const now = performance.now();
      times?.add((now - sentAt) * 1000);
      if (now >= end) {
        socket.off('data', received).off('close', lost);
        resolve();
        return;
      }
      missing = message.length;
      sentAt = now;
      socket.write(message);
    };
    if (socket.destroyed) {
      lost();
      return;
    }
    socket.on('data', received).on('close', lost);
    sentAt = performance.now();
    socket.write(message);
  });
}

/** Resolves when it is closed, to the microseconds from `connect` to the first byte of the answer. */
function shortConnection(to: Address, request: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    const before = performance.now();
    let first = 0;
    let missing = request.length;
    const socket = dial(to);
    socket.write(request);
    socket.on('data', ({ length }) => {
      if (first === 0) first = performance.now();
      missing -= length;
      if (missing === 0) socket.end();
    });
    socket.on('error', reject);
    socket.on('close', () => resolve((first - before) * 1000));
  });
}

let reading: Reading | null = null;
let stream: Stream | null = null;

function running<One>(one: One | null): One {
  if (one === null) throw new Error('it was not started');
  return one;
}

class Stream {
  readonly #socket: Socket;
  readonly #writer: Writer;
  readonly #path: Path;

  constructor(socket: Socket, writeBytes: number, path: Path) {
    this.#socket = socket;
    this.#writer = new Writer(socket, writeBytes);
    this.#path = path;
  }

  start(): void {
    this.#writer.start();
  }

  async sample(window: Window): Promise<Sample> {
    return await sampleOn(this.#path, this.#socket, 'out', () => this.#writer.sent, window);
  }

  async stop(): Promise<number> {
    this.#writer.stop();
    await closed(this.#socket);
    return this.#writer.sent;
  }
}
