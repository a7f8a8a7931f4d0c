/** Running commands from tests: each in a process group and a folder of its own, each with an end. */
import assert from 'node:assert/strict';
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ffi } from '../../src/os/index.ts';
import { eventually } from '../../src/testing/index.ts';

/** The package, with its built output. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
export const CLI = join(ROOT, 'dist/src/cli/isthmus.cjs');

/** For `skip`: false where connections can move, else the reason why nothing here would. */
export function cannotMove(): string | false {
  try {
    ffi();
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Started {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly finished: Promise<Finished>;
  stdout: string;
  stderr: string;
  /** Waits for a text on stdout. */
  says(pattern: RegExp): Promise<RegExpExecArray>;
}

const LIMIT_MS = 60_000;

/** A folder for one test, with what runs in it. */
export class Workplace {
  readonly directory = mkdtempSync(join(tmpdir(), 'isthmus-test-'));
  /** Programs find no fabric but their own, and no temporary folder but this one. */
  readonly env: NodeJS.ProcessEnv;
  readonly #started = new Set<Started>();

  constructor() {
    const { NODE_OPTIONS: _, NODE_TEST_CONTEXT: __, ...others } = process.env;
    const env = Object.entries(others).filter(([name]) => !name.startsWith('ISTHMUS_'));
    this.env = {
      ...Object.fromEntries(env),
      TMPDIR: this.directory,
      ISTHMUS_RUNTIME_DIR: join(this.directory, 'run'),
      ISTHMUS_FABRIC_IDLE_MS: '300',
      ISTHMUS_CONFIG: 'none',
    };
  }

  start(file: string, args: readonly string[], options: SpawnOptions = {}, limitMs = LIMIT_MS): Started {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], env: this.env, ...options, detached: true });
    const pid = child.pid ?? 0;
    const limit = setTimeout(() => kill(-pid), limitMs);
    const started: Started = {
      child,
      pid,
      stdout: '',
      stderr: '',
      finished: new Promise((resolve, reject) => {
        child.on('error', reject);
        child.on('close', (code, signal) => {
          clearTimeout(limit);
          resolve({ code, signal, stdout: started.stdout, stderr: started.stderr });
        });
      }),
      async says(pattern) {
        await eventually(`${pattern} on stdout`, () => {
          assert.ok(child.exitCode === null || pattern.test(started.stdout), `ended: ${started.stderr}`);
          return pattern.test(started.stdout);
        });
        return pattern.exec(started.stdout) as RegExpExecArray;
      },
    };
    child.stdout?.setEncoding('utf8').on('data', (text) => (started.stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text) => (started.stderr += text));
    this.#started.add(started);
    return started;
  }

  finish(file: string, args: readonly string[], options: SpawnOptions = {}, limitMs = LIMIT_MS): Promise<Finished> {
    return this.start(file, args, options, limitMs).finished;
  }

  /** Processes that were started here, by whomever: the environment tells. */
  processes(): number[] {
    const mark = `TMPDIR=${this.directory}\0`;
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && environmentOf(name).includes(mark))
      .map(Number);
  }

  /** Fails when something was left behind; the fabric ends by itself. */
  async close(): Promise<void> {
    try {
      const socket = join(this.directory, 'run/fabric.sock');
      for (const { pid } of this.#started) kill(-pid);
      for (const pid of this.processes()) kill(pid); // of a command that was killed, in groups of their own
      await Promise.all([...this.#started].map(({ finished }) => finished.catch(() => {})));
      await eventually('the fabric has ended', () => !existsSync(socket));
    } finally {
      rmSync(this.directory, { recursive: true, force: true });
    }
  }
}

/** @param pid minus the id of a group: all of it */
function kill(pid: number): void {
  try {
    if (pid !== 0) process.kill(pid, 'SIGKILL');
  } catch {
    // Nobody is left.
  }
}

function environmentOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8');
  } catch {
    return ''; // somebody else's, or gone
  }
}

/** A copy of the built package where no koffi is found. @returns its command line */
export function copyWithoutKoffi(directory: string): string {
  for (const part of ['dist/lib', 'dist/src', 'dist/isthmus-fabric.js', 'examples', 'package.json'])
    cpSync(join(ROOT, part), join(directory, part), { recursive: true });
  return join(directory, 'dist/src/cli/isthmus.cjs');
}
