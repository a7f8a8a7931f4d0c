/** A program of the benchmark as a child process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ClientCommands } from './programs/client.ts';
import type { Address, Call, Remote, Reply } from './programs/control.ts';
import type { PeerCommands } from './programs/peer.ts';
import type { ListenOptions, ServerCommands } from './programs/server.ts';

const PROGRAM = fileURLToPath(new URL('programs/main.js', import.meta.url));
/** No measurement takes that long: something hangs. */
const CALL_TIMEOUT_MS = 30_000;
/** But for thousands of connections, on a busy machine. */
const OPEN_TIMEOUT_MS = 120_000;

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export interface ProgramOptions {
  readonly role: 'server' | 'client' | 'both' | 'peer';
  /** Null = not pinned. */
  readonly cpus: readonly number[] | null;
  readonly env: NodeJS.ProcessEnv;
  readonly nodeOptions?: readonly string[];
}

const running = new Set<Program>();
process.on('exit', () => {
  for (const program of running) program.kill();
});

export class Program {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ended: Promise<void>;
  #nextId = 1;
  #failure: string | null = null;
  #stderr = '';

  constructor({ role, cpus, env, nodeOptions = [] }: ProgramOptions) {
    const node = [process.execPath, ...nodeOptions, PROGRAM, role];
    // taskset becomes node: the process id stays.
    const [file, ...args] = cpus === null ? node : ['taskset', '-c', cpus.join(','), ...node];
    this.#child = spawn(file as string, args, { env, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    running.add(this);
    this.#child.stderr?.on('data', (chunk) => {
      this.#stderr = `${this.#stderr}${chunk}`.slice(-2000);
    });
    this.#child.on('message', (message) => this.#replied(message as Reply));
    this.#ended = new Promise((resolve) => {
      const ended = (how: string) => {
        const said = this.#stderr.trim();
        this.#fail(`the program ended (${how})${said === '' ? '' : `: ${said}`}`);
        running.delete(this);
        resolve();
      };
      this.#child.on('error', ({ message }) => ended(message));
      this.#child.on('exit', (code, signal) => ended(String(signal ?? code)));
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** Why nothing can be asked of it any more. */
  get failure(): string | null {
    return this.#failure;
  }

  call(name: string, argument: unknown): Promise<unknown> {
    if (this.#failure !== null) return Promise.reject(new Error(this.#failure));
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const timeoutMs = name === 'openMany' ? OPEN_TIMEOUT_MS : CALL_TIMEOUT_MS;
      const timer = setTimeout(() => {
        this.#fail(`no answer to '${name}' within ${timeoutMs / 1000} s`);
        this.kill();
      }, timeoutMs);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#child.send({ id, name, argument } satisfies Call, (error) => error && this.#fail(error.message));
    });
  }

  #replied(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id);
    if (waiting === undefined) return;
    this.#waiting.delete(reply.id);
    clearTimeout(waiting.timer);
    if ('error' in reply) waiting.reject(new Error(reply.error));
    else waiting.resolve(reply.result);
  }

  #fail(why: string): void {
    this.#failure ??= why;
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new Error(this.#failure));
    }
    this.#waiting.clear();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Lets it end by itself, as long as it does so soon. */
  async stop(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    const timer = setTimeout(() => this.kill(), 2000);
    await this.#ended;
    clearTimeout(timer);
  }
}

function remote<Commands>(program: Program): Remote<Commands> {
  return new Proxy({} as Remote<Commands>, {
    get: (_, name) => (argument: unknown) => program.call(String(name), argument),
  });
}

export interface EndsOptions {
  /** Null = not pinned. */
  readonly cpus: { readonly server: number; readonly client: number } | null;
  readonly env: NodeJS.ProcessEnv;
  /** Where it is not the same. */
  readonly clientEnv?: NodeJS.ProcessEnv;
  readonly nodeOptions?: readonly string[];
}

/** The two ends of what is measured: two programs, or one. */
export class Ends {
  readonly server: Remote<ServerCommands>;
  readonly client: Remote<ClientCommands>;
  readonly peer: Remote<PeerCommands>;
  readonly programs: readonly Program[];

  constructor(server: Program, client: Program) {
    this.server = remote<ServerCommands>(server);
    this.client = remote<ClientCommands>(client);
    this.peer = remote<PeerCommands>(client);
    this.programs = server === client ? [server] : [server, client];
  }

  get pids(): readonly number[] {
    return this.programs.map(({ pid }) => pid);
  }

  get isOneProcess(): boolean {
    return this.programs.length === 1;
  }

  /** Two programs. */
  static start({ cpus, clientEnv, ...options }: EndsOptions): Ends {
    return new Ends(
      new Program({ role: 'server', cpus: cpus && [cpus.server], ...options }),
      new Program({ role: 'client', cpus: cpus && [cpus.client], ...options, ...(clientEnv && { env: clientEnv }) }),
    );
  }

  get failure(): string | null {
    return this.programs.find(({ failure }) => failure !== null)?.failure ?? null;
  }

  /** Has the server listen while something is done, and ends what is left of it. */
  async withServer<T>(options: ListenOptions, use: (to: Address) => Promise<T>): Promise<T> {
    try {
      return await use(await this.server.listen(options));
    } catch (error) {
      // Of a connection that did not move the other end may know more.
      const { message } = error as Error;
      if (!message.startsWith('not moved') || this.failure !== null) throw error;
      throw new Error(`${message}; the server's end: ${await this.server.describe()}`);
    } finally {
      if (this.failure === null) await this.server.close();
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.programs.map((program) => program.stop()));
  }
}
