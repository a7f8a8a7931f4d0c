/** A program that plays lives of connections as it is told on stdin. With the argument `plain` it knows nothing of Isthmus. */
import { writeSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Act, bytesAt, type Command, type Outcome, type Report, type Script } from './life.ts';

const isthmus = process.argv[2] === 'plain' ? null : await import('isthmus');

const STUCK_MS = 20_000;
const DRAIN_MS = 20;
const ONREAD_BYTES = 5000;

const tell = (report: Report) => writeSync(1, `${JSON.stringify(report)}\n`);
const ends = new Map<number, End>();
/** Connected ends that wait for the word. */
let ready: (() => void)[] = [];
/** What was done has been told: nothing more is to be done. */
let isDying = false;

class End {
  readonly outcome: Outcome = {
    written: 0,
    acknowledged: 0,
    outOfTurn: 0,
    unanswered: 0,
    received: 0,
    wrongAt: null,
    events: [],
    bytesRead: 0,
    bytesWritten: 0,
    outShm: 0,
    stuck: null,
  };
  readonly #id: number;
  readonly #script: Script;
  readonly #salts: readonly [mine: number, peers: number];
  #held = false;
  /** From here on callbacks tell nothing: those of writes that come to nothing are called too. */
  #isOver = false;
  #writes = 0;
  #answers = 0;

  constructor({ id, script, salts }: Exclude<Command, { does: 'go' }>) {
    this.#id = id;
    this.#script = script;
    this.#salts = salts;
    ends.set(id, this);
  }

  /** Takes what arrived. */
  got(chunk: Buffer): void {
    const { outcome } = this;
    const expected = bytesAt(this.#salts[1], outcome.received, chunk.length);
    if (!chunk.equals(expected))
      outcome.wrongAt ??= outcome.received + chunk.findIndex((byte, i) => byte !== expected[i]);
    outcome.received += chunk.length;
  }

  play(socket: Socket): void {
    const { outcome } = this;
    for (const event of ['end', 'error', 'close'] as const) {
      socket.on(event, (what?: NodeJS.ErrnoException | boolean) => {
        this.#sample(socket);
        outcome.events.push(what instanceof Error ? `error ${what.code}` : what === true ? `${event} hadError` : event);
      });
    }
    if (this.#script.reading === 'readable') socket.on('readable', () => this.#read(socket));
    else if (this.#script.reading === 'data') socket.on('data', (chunk: Buffer) => this.got(chunk));
    const stuck = setTimeout(() => {
      outcome.stuck = { info: isthmus?.info(socket), writable: socket.writableLength, readable: socket.readableLength };
      this.#done(socket);
    }, STUCK_MS);
    socket.on('close', () => {
      clearTimeout(stuck);
      // The callbacks of writes that were under way come after the event.
      setImmediate(() => this.#done(socket));
    });
    ready.push(() => void this.#act(socket));
    tell({ connected: true, id: this.#id });
  }

  #done(socket: Socket): void {
    if (!ends.delete(this.#id)) return;
    const { outcome } = this;
    outcome.bytesRead = socket.bytesRead;
    outcome.bytesWritten = socket.bytesWritten;
    outcome.unanswered = this.#writes - this.#answers;
    tell({ id: this.#id, outcome });
  }

  #sample(socket: Socket): void {
    this.outcome.outShm = Math.max(this.outcome.outShm, isthmus?.info(socket).bytes.outShm ?? 0);
  }

  #read(socket: Socket): void {
    while (!this.#held) {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      this.got(chunk);
    }
  }

  async #act(socket: Socket): Promise<void> {
    for (const act of this.#script.acts) {
      if (socket.destroyed) return;
      await this.#one(socket, act);
    }
    this.#sample(socket);
    while (socket.writableCorked > 0) socket.uncork();
    this.#last(socket);
    if (!socket.destroyed) this.#resume(socket);
  }

  async #one(socket: Socket, act: Act): Promise<void> {
    switch (act[0]) {
      case 'write':
      case 'text':
        this.#write(socket, act[1], act[0] === 'text');
        break;
      case 'wait':
        await sleep(act[1]);
        break;
      case 'drain':
        if (socket.writableNeedDrain)
          await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), sleep(DRAIN_MS)]);
        break;
      case 'cork':
        socket.cork();
        break;
      case 'uncork':
        socket.uncork();
        break;
      case 'pause':
        if (this.#script.reading === 'readable') this.#held = true;
        else socket.pause();
        break;
      case 'resume':
        this.#resume(socket);
        break;
      case 'settle':
        await isthmus?.accelerate(socket, { timeoutMs: act[1] });
        break;
      case 'restore':
        void isthmus?.restore(socket, { timeoutMs: 1000 });
        break;
      case 'accelerate':
        void isthmus?.accelerate(socket, { timeoutMs: 1000 });
        break;
      default:
        act satisfies never;
    }
  }

  #write(socket: Socket, length: number, asText: boolean): void {
    if (!socket.writable || isDying) return;
    const { outcome } = this;
    const bytes = bytesAt(this.#salts[0], outcome.written, length);
    outcome.written += length;
    const turn = this.#writes++;
    const answered = (error?: Error | null) => {
      if (turn !== this.#answers++) outcome.outOfTurn++;
      if (!error && !this.#isOver) outcome.acknowledged += length;
    };
    if (asText) socket.write(bytes.toString('latin1'), 'latin1', answered);
    else socket.write(bytes, answered);
  }

  #resume(socket: Socket): void {
    if (this.#script.reading !== 'readable') {
      socket.resume();
      return;
    }
    this.#held = false;
    this.#read(socket);
  }

  #last(socket: Socket): void {
    this.#isOver = this.#script.last === 'destroy' || this.#script.last === 'reset';
    switch (this.#script.last) {
      case 'end':
        socket.end();
        break;
      case 'destroy':
        socket.destroy();
        break;
      case 'destroySoon':
        socket.destroySoon();
        break;
      case 'reset':
        // Node.js cannot reset while the other end is being told of the end: it emits EINVAL, and never 'close'.
        if (socket.writableEnded) socket.destroy();
        else socket.resetAndDestroy();
        break;
      case 'exit':
        tellOfDeath();
        process.exit();
        break;
      case 'throw':
        tellOfDeath();
        queueMicrotask(() => {
          throw new Error('on purpose');
        });
        break;
      case 'kill':
        tellOfDeath();
        process.kill(process.pid, 'SIGKILL');
        break;
      default:
        this.#script.last satisfies never;
    }
  }
}

function tellOfDeath(): void {
  isDying = true;
  tell({ dying: [...ends].map(([id, { outcome }]) => ({ id, outcome })) });
}

function perform(command: Command): void {
  if (command.does === 'go') {
    for (const go of ready) go();
    ready = [];
    return;
  }
  const end = new End(command);
  const { halfOpen: allowHalfOpen, highWaterMark, reading } = command.script;
  if (command.does === 'serve') {
    const server = createServer({ allowHalfOpen, highWaterMark }, (socket) => {
      server.close();
      end.play(socket);
    });
    server.listen(0, '127.0.0.1', () => {
      tell({ id: command.id, port: (server.address() as { port: number }).port });
    });
    return;
  }
  const buffer = Buffer.alloc(ONREAD_BYTES);
  const onread = {
    buffer,
    callback(length: number) {
      end.got(buffer.subarray(0, length));
      return true;
    },
  };
  const options = { port: command.port, host: '127.0.0.1', allowHalfOpen, highWaterMark };
  const socket = connect(reading === 'onread' ? { ...options, onread } : options);
  socket.once('connect', () => end.play(socket));
}

createInterface(process.stdin).on('line', (line) => perform(JSON.parse(line) as Command));
