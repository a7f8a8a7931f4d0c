/**
 * A server and a client, run as they are or under `isthmus run`. Each is the leader of a process group of its own, so that nothing
 * is left of it, and every wait for one has an end.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ConnectionInfo } from '../net/info.ts';
import { readTables } from './rows.ts';
import { REGISTER_OPTION } from './run.ts';

const CLI = fileURLToPath(new URL('./isthmus.cjs', import.meta.url));

/** `plain`: as they are. `run`: under `isthmus run`. */
export type Way = 'plain' | 'run';

export interface Exchange<Result> {
  readonly result: Result;
  /** The connections as they were shown while the programs ran. */
  readonly connections: readonly ConnectionInfo[];
}

export interface Program {
  readonly name: string;
  readonly command: readonly string[];
}

/** The programs of one exchange. */
export interface Pair {
  /** Prints `listening on PORT`. */
  readonly server: Program;
  /** Prints a result as JSON. */
  readonly client: (port: string) => Program;
  /** The client's time. */
  readonly limitMs: number;
}

/** A program did not do what it should. */
export class ProgramError extends Error {}

/** Ctrl-C and the like: first everything is ended that was started. */
export class Interruption extends Error {
  signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP' = 'SIGINT';
  readonly happens: Promise<never>;
  readonly #stopListening: (() => void)[] = [];

  constructor() {
    super('interrupted');
    this.happens = new Promise((_, reject) => {
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
        const listener = () => {
          this.signal = signal;
          reject(this);
        };
        process.on(signal, listener);
        this.#stopListening.push(() => process.off(signal, listener));
      }
    });
    this.happens.catch(() => {}); // it may come when nobody waits
  }

  ignore(): void {
    for (const stop of this.#stopListening) stop();
  }
}

const START_MS = 60_000;
const END_MS = 3000;
const LOOK_MS = 20;
/** A fabric of ours lives at least from one program to the next; we end it ourselves. */
const FABRIC_IDLE_MS = 30_000;

interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly name: string;
  output: string;
  errors: string;
  readonly ended: Promise<string | null>;
}

export class Programs {
  readonly #directory = mkdtempSync(join(tmpdir(), 'isthmus-demo-'));
  readonly #environment: NodeJS.ProcessEnv;
  readonly #running = new Set<Running>();
  readonly #begins: (way: Way, program: Program) => void;
  readonly #interrupted: Promise<never>;

  /** @param begins is told of each program @param interrupted rejects when all is to end */
  constructor(begins: (way: Way, program: Program) => void, interrupted: Promise<never>) {
    this.#begins = begins;
    this.#interrupted = interrupted;
    this.#environment = environment(this.#directory);
  }

  /** Rejects with ProgramError. */
  async exchange<Result>(pair: Pair, way: Way): Promise<Exchange<Result>> {
    const server = this.#start(way, pair.server);
    let looking: NodeJS.Timeout | undefined;
    try {
      const port = await this.#within(portOf(server), START_MS, `${server.name} did not say that it listens`);
      const client = this.#start(way, pair.client(port));
      const seen = new Sightings([server.pid, client.pid]);
      looking = setInterval(() => seen.look(), LOOK_MS);
      const { limitMs } = pair;
      const failure = await this.#within(
        client.ended,
        limitMs,
        `${client.name} did not end within ${limitMs / 1000} s`,
      );
      if (failure !== null) throw new ProgramError(`${client.name}: ${failure}`);
      return { result: parse<Result>(client), connections: seen.best };
    } finally {
      clearInterval(looking);
      await this.#end(server);
    }
  }

  #start(way: Way, program: Program): Running {
    this.#begins(way, program);
    const { name, command } = program;
    const [file = '', ...args] = way === 'plain' ? command : [process.execPath, CLI, 'run', ...command];
    const child = spawn(file, args, {
      env: this.#environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const ended = new Promise<string | null>((resolve) => {
      child.on('error', (error) => resolve(error.message));
      child.on('close', (code, signal) => resolve(code === 0 ? null : `${signal ?? `exit code ${code}`}`));
    });
    const running: Running = {
      child,
      pid: child.pid ?? 0,
      name,
      output: '',
      errors: '',
      ended: ended.then((how) => {
        this.#running.delete(running);
        return how === null ? null : [how, ...lastLines(running.errors)].join('; ');
      }),
    };
    this.#running.add(running);
    child.stdout.on('data', (chunk) => (running.output += chunk));
    child.stderr.on('data', (chunk) => (running.errors += chunk));
    return running;
  }

  async #within<T>(wanted: Promise<T>, limitMs: number, otherwise: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new ProgramError(otherwise)), limitMs);
    });
    try {
      return await Promise.race([wanted, late, this.#interrupted]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #end(running: Running): Promise<void> {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      if (!this.#running.has(running)) return;
      signalGroup(running.pid, signal);
      let timer: NodeJS.Timeout | undefined;
      const patience = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, END_MS);
      });
      await Promise.race([running.ended, patience]);
      clearTimeout(timer);
    }
  }

  /** Ends what runs, the fabric that the programs have started too, and leaves nothing behind. */
  async close(): Promise<void> {
    await Promise.all([...this.#running].map((one) => this.#end(one)));
    await this.#endFabric();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #endFabric(): Promise<void> {
    const socket = join(this.#directory, 'fabric.sock');
    if (!existsSync(socket)) return;
    try {
      const { connectPackets, peerCredentials, closeFd } = await import('../os/index.ts');
      const fd = connectPackets(socket);
      const { pid } = peerCredentials(fd);
      closeFd(fd);
      process.kill(pid, 'SIGTERM');
    } catch {
      // It is about to end by itself.
    }
    for (const end = Date.now() + END_MS; existsSync(socket) && Date.now() < end; )
      await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Nothing of the user's own Isthmus: neither settings, nor a preload, nor connections to the same fabric. */
function environment(directory: string): NodeJS.ProcessEnv {
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith('ISTHMUS_'));
  const nodeOptions = (process.env.NODE_OPTIONS ?? '').replaceAll(REGISTER_OPTION, '').trim();
  return {
    ...Object.fromEntries(others),
    NODE_OPTIONS: nodeOptions,
    ISTHMUS_RUNTIME_DIR: directory,
    ISTHMUS_FABRIC_IDLE_MS: String(FABRIC_IDLE_MS),
  };
}

function portOf(server: Running): Promise<string> {
  return new Promise((resolve, reject) => {
    server.child.stdout?.on('data', () => {
      const port = /listening on (\d+)\n/.exec(server.output)?.[1];
      if (port !== undefined) resolve(port);
    });
    void server.ended.then((how) => reject(new ProgramError(`${server.name} ended: ${how ?? 'exit code 0'}`)));
  });
}

function parse<Result>(client: Running): Result {
  try {
    return JSON.parse(client.output) as Result; // the client is part of this package
  } catch {
    throw new ProgramError(`${client.name} printed no result: ${client.output.slice(0, 200)}`);
  }
}

function lastLines(text: string): string[] {
  return text.trim().split('\n').slice(-3).filter(Boolean);
}

/** A leader that has gone may have left others of its group. */
function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    if (pid > 0) process.kill(-pid, signal);
  } catch {
    // Nobody is left.
  }
}

/** Looks at the tables of some processes again and again; keeps the latest of the best. */
class Sightings {
  readonly #pids: readonly number[];
  best: readonly ConnectionInfo[] = [];

  constructor(pids: readonly number[]) {
    this.#pids = pids;
  }

  look(): void {
    const now = this.#pids.flatMap((pid) => readTables(String(pid)).rows);
    if (movedOf(now) >= movedOf(this.best) && now.length >= this.best.length) this.best = now;
  }
}

export function movedOf(connections: readonly ConnectionInfo[]): number {
  return connections.filter(({ mode }) => mode === 'SMC-D').length;
}
