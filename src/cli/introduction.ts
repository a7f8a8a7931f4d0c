/** Two plain programs under this user's settings, with one connection between them: does it really move? */
import { type ChildProcess, spawn } from 'node:child_process';
import type { ConnectionInfo } from '../net/info.ts';
import { REASONS, type Reason, withCause } from '../smc/reasons.ts';
import { readTables } from './rows.ts';
import { REGISTER_OPTION } from './run.ts';

/** Both end with us: stdin does. */
const END_WITH_US = `process.stdin.resume().on('end', () => process.exit()).on('error', () => process.exit());`;
const SERVER = `${END_WITH_US}
  const server = require('node:net').createServer((socket) => socket.on('error', () => {}).pipe(socket));
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));`;
const CLIENT = `${END_WITH_US}
  const socket = require('node:net').connect(Number(process.argv[1]), '127.0.0.1', () => setInterval(() => socket.write('x'), 10));
  socket.resume().on('error', () => {});`;

const START_MS = 10_000;
const MOVE_MS = 8000;
const LOOK_MS = 20;

/** Both ends, as `isthmus ss` shows them, or why there are none. */
export async function introduce(
  env: NodeJS.ProcessEnv,
): Promise<{ readonly rows: readonly ConnectionInfo[] } | Reason> {
  const children: ChildProcess[] = [];
  let said = '';
  const start = (code: string, ...args: string[]): ChildProcess => {
    const child = spawn(process.execPath, ['-e', code, ...args], {
      // In-band would need no introduction.
      env: {
        ...env,
        NODE_OPTIONS: `${env.NODE_OPTIONS ?? ''} ${REGISTER_OPTION}`,
        NODE_DEBUG: 'isthmus',
        ISTHMUS_POLICY: 'eager',
        ISTHMUS_IN_BAND: '',
      },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    child.on('error', (error) => (said += `${error.message}\n`));
    child.stderr?.on('data', (chunk) => (said += chunk));
    children.push(child);
    return child;
  };
  const lost = (what: string) => withCause(REASONS.SYSTEM, `${what}: ${lastLine(said)}`);
  try {
    const server = start(SERVER);
    const port = await firstLine(server);
    if (port === null) return lost('a program with Isthmus does not start');
    const client = start(CLIENT, port);
    let rows: ConnectionInfo[] = [];
    for (const end = Date.now() + MOVE_MS; Date.now() < end; await pause(LOOK_MS)) {
      rows = [client, server].flatMap(({ pid }) => readTables(String(pid)).rows);
      if (rows.length === 2 && rows.every(({ mode }) => mode === 'SMC-D')) break;
      if (client.exitCode !== null || server.exitCode !== null) return lost('a program with Isthmus ended');
    }
    return rows.length === 2 ? { rows } : lost('programs with Isthmus show no connection');
  } finally {
    for (const child of children) child.kill('SIGKILL');
  }
}

const pause = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms));

/** Null when it ended before, or says nothing. */
function firstLine(child: ChildProcess): Promise<string | null> {
  return new Promise((resolve) => {
    let text = '';
    child.stdout?.on('data', (chunk) => {
      text += chunk;
      if (text.includes('\n')) resolve(text.trim());
    });
    child.on('close', () => resolve(null));
    child.on('error', () => resolve(null));
    setTimeout(() => resolve(null), START_MS).unref();
  });
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1)?.slice(0, 300) || 'they say nothing';
}
