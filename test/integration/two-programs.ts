/** Two programs that know nothing of Isthmus, run with the preload, in a fabric of their own. */

import assert from 'node:assert/strict';
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { readTables } from '../../src/cli/rows.ts';
import { REGISTER_OPTION } from '../../src/cli/run.ts';
import { formatConnections } from '../../src/cli/ss.ts';
import type { ConnectionInfo } from '../../src/net/info.ts';
import { REASONS, type Reason, type ReasonName } from '../../src/smc/reasons.ts';
import { eventually } from '../../src/testing/index.ts';

/** One program: its lines of output as they come, and its end. */
export class Program {
  readonly child: ChildProcess;
  readonly lines: string[] = [];
  stderr = '';
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;

  /** What it is called in tables of connections, where it may be a descendant of the process that was started. */
  readonly #name: string | undefined;

  /** @param fd that it has, too: its fourth */
  constructor(command: readonly string[], env: NodeJS.ProcessEnv, name?: string, fd?: number) {
    this.#name = name;
    const stdio = ['pipe', 'pipe', 'pipe', ...(fd === undefined ? [] : [fd])] as StdioOptions;
    this.child = spawn(command[0] as string, command.slice(1), { env, stdio });
    createInterface(this.child.stdout as NodeJS.ReadableStream).on('line', (line) => this.lines.push(line));
    this.child.stderr?.on('data', (chunk) => {
      this.stderr += chunk;
    });
    this.exited = once(this.child, 'close').then(([code, signal]) => ({ code, signal }));
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** A word for the program: it reads lines. */
  tell(line: string): void {
    this.child.stdin?.write(`${line}\n`);
  }

  /** The first line that begins so, without the beginning. */
  async says(beginning: string, limitMs?: number): Promise<string> {
    let found: string | undefined;
    const look = () => {
      found = this.lines.find((line) => line.startsWith(beginning));
      return found !== undefined;
    };
    await eventually(`a line '${beginning}' of ${JSON.stringify(this.lines)} ${this.stderr}`, look, limitMs);
    return (found ?? '').slice(beginning.length);
  }

  get connections(): readonly ConnectionInfo[] {
    if (this.#name === undefined) return readTables(String(this.pid)).rows;
    return readTables().rows.filter(({ program }) => program === this.#name);
  }

  /** Waits until a connection of it stays on TCP for this reason. What `isthmus ss -d` says of it, and what helps. */
  async stays(name: ReasonName): Promise<Reason> {
    let row: ConnectionInfo | undefined;
    const is = () => this.connections.map(({ mode, reason }) => `${mode} ${reason.name}`);
    await eventually(`${name} in ${this.lines}`, () => {
      row = this.connections.find(({ mode, reason }) => mode === 'TCP' && reason.name === name);
      return row !== undefined;
    }).catch((error: Error) => assert.fail(`${error.message}, but ${is()} ${this.stderr}`));
    const { reason } = row as ConnectionInfo;
    const line = formatConnections([row as ConnectionInfo], true);
    assert.ok(reason.text.startsWith(REASONS[name].text), reason.text);
    for (const text of [name, reason.text, reason.hint]) assert.ok(line.includes(text), line);
    return reason;
  }

  /** Waits until all its connections have moved, and there is at least one. */
  async moves(count = 1): Promise<void> {
    await eventually('moved', () => this.connections.filter(({ mode }) => mode === 'SMC-D').length >= count);
  }
}

/** A fabric and programs of a test. */
export class Stage {
  /** The runtime directory: of the fabric alone. */
  readonly directory = mkdtempSync(join(tmpdir(), 'isthmus-stage-'));
  /** Of the programs. */
  readonly files = mkdtempSync(join(tmpdir(), 'isthmus-files-'));
  readonly #programs: Program[] = [];

  env(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
    return {
      ...process.env,
      NODE_OPTIONS: REGISTER_OPTION,
      ISTHMUS_RUNTIME_DIR: this.directory,
      ISTHMUS_FABRIC_IDLE_MS: '500',
      ISTHMUS_CONFIG: 'none',
      ISTHMUS_POLICY: 'eager',
      ISTHMUS_LINGER_MS: '200',
      ...more,
    };
  }

  /**
   * @param under the beginning of a command line, by which it is run
   * @param fd that it has, too: its fourth
   */
  run(
    code: string,
    args: readonly (string | number)[] = [],
    env: NodeJS.ProcessEnv = {},
    under: readonly string[] = [],
    fd?: number,
  ): Program {
    const file = this.file(`program-${this.#programs.length}.mjs`, code);
    const command = [...under, process.execPath, file, ...args.map(String)];
    return this.start(command, env, under.length === 0 ? undefined : file, fd);
  }

  /** Something else. */
  start(command: readonly string[], env: NodeJS.ProcessEnv = {}, name?: string, fd?: number): Program {
    const program = new Program(command, this.env(env), name, fd);
    this.#programs.push(program);
    return program;
  }

  /** Writes a file beside the fabric's directory; its path. */
  file(name: string, text: string): string {
    const path = join(this.files, name);
    writeFileSync(path, text, { mode: 0o644 });
    return path;
  }

  async close(): Promise<void> {
    for (const program of this.#programs) program.child.kill('SIGKILL');
    await Promise.all(this.#programs.map(({ exited }) => exited));
    // A fabric may be about to write into it.
    for (const directory of [this.directory, this.files])
      rmSync(directory, { recursive: true, force: true, maxRetries: 10 });
  }
}

/** Begins every program: `tell(line)` prints, `told(word, act)` acts on a line of stdin, also on one that came before. */
export const PRELUDE = `
  import net from 'node:net';
  import { createInterface } from 'node:readline';
  const tell = (line) => process.stdout.write(line + '\\n');
  const acts = new Map();
  const unheard = [];
  const hear = (line) => { const [word, ...rest] = line.split(' '); const act = acts.get(word); act ? act(...rest) : unheard.push(line); };
  const told = (word, act) => { acts.set(word, act); unheard.splice(0).forEach(hear); };
  createInterface(process.stdin).on('line', hear).on('close', () => {});
  process.stdin.unref?.();
  const args = process.argv.slice(2);
  const byteAt = (i) => (i * 13 + (i >> 8) * 7) & 0xff;
  const pattern = (from, length) => Buffer.from(Array.from({ length }, (_, i) => byteAt(from + i)));
`;

/** Of one connection, at the port of its first argument: sends back what comes. */
export const ECHO_SERVER = `${PRELUDE}
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    server.close();
    socket.on('error', (error) => tell('failed ' + error.code)).pipe(socket);
  });
  server.listen(+args[0], () => tell('listening'));
`;

/** Its arguments: address, port. Sends bytes as long as it is not told to end, and compares what comes back. */
export const ECHO_CLIENT = `${PRELUDE}
  const socket = net.connect(+args[1], args[0]);
  let sent = 0, got = 0, exact = true;
  const more = setInterval(() => { const length = 1 + sent % 3000; socket.write(pattern(sent, length)); sent += length; }, 2);
  socket.on('data', (chunk) => { exact &&= chunk.equals(pattern(got, chunk.length)); got += chunk.length; });
  socket.on('error', (error) => tell('failed ' + error.code));
  told('end', () => { clearInterval(more); socket.end(); });
  socket.on('close', () => tell('closed ' + exact + ' ' + (got - sent)));
`;
