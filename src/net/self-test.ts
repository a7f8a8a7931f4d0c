/**
 * Moves a connection of our own before any of the program's is moved, and compares what comes out: the inside of Node.js may work in
 * another way although it looks as it did (internals.ts). Only net.Socket and an SMC connection take part, no fabric and no mover.
 *
 * The program goes on meanwhile and sees nothing of it: no server, no port that stays open, no handle that keeps it running.
 */
import { AsyncResource } from 'node:async_hooks';
import { Socket } from 'node:net';
import { LoopbackFabric } from '../devices/loopback/index.ts';
import type { Client } from '../ism/index.ts';
import { tcpPair } from '../os/index.ts';
import { type ConnectionParts, openConnection } from '../smc/connection.ts';
import { HEAD_BYTES } from '../smc/head.ts';
import { Carrier } from './carrier.ts';
import { COUNTER } from './info.ts';
import { type Internals, internalsOf, ORIGINAL, testHandle } from './internals.ts';

const RING_BYTES = 4096;
/** More than a ring holds and a stream reads ahead: both ends have to wait. */
const LONG = Buffer.alloc(
  5 * RING_BYTES,
  Uint8Array.from({ length: 251 }, (_, i) => i),
);
/** Looks, not time: the program may keep the event loop busy for long, and then nothing is wrong. */
const MAX_LOOKS = 500;
const LOOK_MS = 1;
/** In each direction, before it moves. */
const BY_TCP = 8;

/** What is not as it should be, in words; null: nothing. Throws SystemError where no connection can be made. */
export async function testByMoving(internals: Internals): Promise<string | null> {
  const [client, server] = tcpPair().map((fd) => new End(fd)) as [End, End];
  try {
    await exchange(client, server, internals);
    return null;
  } catch (error) {
    return (error as Error).message;
  } finally {
    client.socket.destroy();
    server.socket.destroy();
  }
}

async function exchange(client: End, server: End, internals: Internals): Promise<void> {
  const ends = [client, server];
  const until = async (what: string, holds: (end: End) => boolean) => {
    for (let looks = 0; !ends.every(holds); looks++) {
      for (const { fault } of ends) if (fault !== null) throw fault;
      if (looks === MAX_LOOKS) throw new Error(`${what}: it does not come about`);
      await new Promise<void>((resolve) => void setTimeout(resolve, LOOK_MS).unref());
    }
  };

  client.write('one ');
  server.write('uno ');
  await until('bytes by TCP', ({ received }) => received === 4);
  for (const end of ends) end.carry(internals);
  client.write('two ');
  server.write('dos ');
  await until('bytes by TCP that are watched', ({ received, isPassedBy }) => received === BY_TCP && !isPassedBy);
  await connect(client, server);
  await until('the move', ({ isMoved }) => isMoved);

  // Several at once in each encoding, then more than anybody takes.
  server.socket.pause();
  client.socket.cork();
  client.write('drei ', 'utf8');
  client.write('äöü ', 'latin1');
  client.write('c3bc20', 'hex');
  client.socket.uncork();
  client.write(LONG);
  server.write('tres ');
  await until('a reader that is full', ({ received, isFull }) => received === 13 || isFull);
  server.socket.resume();
  await until('the end of waiting', ({ allWritten }) => allWritten);
  client.socket.end('last');
  await until('the end of one direction', ({ events }) => events.length > 0);
  server.socket.end('fin');
  await until('the end', ({ events }) => events.includes('close'));

  const text = Buffer.concat([Buffer.from('one two drei '), Buffer.from('äöü ', 'latin1'), Buffer.from('ü ')]);
  server.compare(Buffer.concat([text, LONG, Buffer.from('last')]), 'end finish close', 16);
  client.compare(Buffer.from('uno dos tres fin'), 'finish end close', text.length + LONG.length + 4);
}

/** An SMC connection between the two; each direction moves by itself. */
async function connect(client: End, server: End): Promise<void> {
  const device = new LoopbackFabric().createDevice(); // it reaches itself
  const dmbOf = (end: End) =>
    device.registerDmb({ peer: device.gid, lengthBytes: HEAD_BYTES + RING_BYTES, client: end });
  const [ours, theirs] = [await dmbOf(client), await dmbOf(server)];
  const [toTheirs, toOurs] = [await device.attachDmb(theirs.token), await device.attachDmb(ours.token)];
  const common = { device, layout: 'isthmus', maxDmbBytes: 0 } as const;
  client.connect({ ...common, dmb: ours, remote: toTheirs });
  server.connect({ ...common, dmb: theirs, remote: toOurs });
  for (const end of [client, server]) end.handleSignal();
}

const OPTIONS = { allowHalfOpen: true, readable: true, writable: true, highWaterMark: RING_BYTES };

class End implements Client {
  readonly name = 'self-test';
  readonly socket: Socket;
  readonly events: string[] = [];
  received = 0;
  /** The first that was seen. */
  fault: Error | null = null;
  #carrier: Carrier | null = null;
  readonly #chunks: Buffer[] = [];
  readonly #written: number[] = [];
  #writes = 0;

  constructor(fd: number) {
    this.socket = new Socket({ ...OPTIONS, fd });
    this.socket.unref();
    this.socket.on('error', (error) => this.#failed(error));
    this.socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.received += chunk.length;
    });
    for (const event of ['end', 'finish', 'close']) this.socket.on(event, () => this.events.push(event));
  }

  readonly #failed = (error: Error): void => {
    this.fault ??= error;
  };

  write(chunk: string | Buffer, encoding?: BufferEncoding): void {
    const number = this.#writes++;
    const written = (error?: Error | null) => {
      if (error) this.#failed(error);
      this.#written.push(number);
    };
    // A program that counts what sockets write is not to count this.
    Reflect.apply(ORIGINAL.write, this.socket, [chunk, encoding, written]);
  }

  get allWritten(): boolean {
    return this.#written.length === this.#writes;
  }

  get isFull(): boolean {
    return this.socket.readableLength >= this.socket.readableHighWaterMark;
  }

  get isPassedBy(): boolean {
    return this.#carrier?.hasForeignBytes ?? true;
  }

  get isMoved(): boolean {
    const connection = this.#carrier?.connection;
    return connection?.out.isMoved === true && connection.in.isFromRing;
  }

  /** Puts a carrier on the socket. What goes wrong in it is not to reach the program as an uncaught exception. */
  carry(internals: Internals): void {
    const why = testHandle(this.socket, internals);
    if (why !== null) throw new Error(why);
    const listener = {
      passed: () => {},
      closing: () => {},
      closed: () => {},
      changed: () => {
        this.#carrier?.connection?.in.arm();
        this.#carrier?.cut();
      },
      failed: this.#failed,
    };
    this.#carrier = new GuardedCarrier(this.socket, internals, listener, new AsyncResource('ISTHMUS'));
    this.#carrier.watch();
    const socket = internalsOf(this.socket);
    const push = socket.push;
    socket.push = (...args) => guarded(() => push(...args), this.#failed) ?? false;
  }

  connect(parts: ConnectionParts): void {
    this.#carrier?.carry(openConnection(parts, this.#carrier.traffic.nativeRead));
  }

  compare(expected: Buffer, events: string, sentBytes: number): void {
    const { socket } = this;
    const counters = this.#carrier?.counters;
    const found = {
      'the events': this.events.join(' '),
      'the bytes': Buffer.concat(this.#chunks).equals(expected),
      bytesRead: socket.bytesRead,
      bytesWritten: socket.bytesWritten,
      'the bytes read from memory': counters?.[COUNTER.inShm],
      'the bytes written to memory': counters?.[COUNTER.outShm],
      'the order in which writes were answered': this.#written.every((number, i) => number === i),
    };
    const wanted = [events, true, expected.length, sentBytes, expected.length - BY_TCP, sentBytes - BY_TCP, true];
    for (const [i, [what, is]] of Object.entries(found).entries())
      if (is !== wanted[i]) throw new Error(`${what}: ${is} instead of ${wanted[i]}`);
  }

  // --- Client of the ISM layer ---

  addDevice(): void {}
  removeDevice(): void {}
  handleEvent(): void {}
  handleSignal(): void {
    this.#carrier?.look();
  }
}

function guarded<T>(act: () => T, failed: (error: Error) => void): T | undefined {
  try {
    return act();
  } catch (error) {
    failed(error as Error);
    return undefined;
  }
}

/** These two are called from the event loop. */
class GuardedCarrier extends Carrier {
  readonly #failed: (error: Error) => void;

  constructor(...[socket, internals, listener, context]: ConstructorParameters<typeof Carrier>) {
    super(socket, internals, listener, context);
    this.#failed = listener.failed;
  }

  override look(): void {
    guarded(() => super.look(), this.#failed);
  }

  override settle(): void {
    guarded(() => super.settle(), this.#failed);
  }
}
