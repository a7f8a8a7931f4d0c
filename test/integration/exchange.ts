/**
 * For tests that put something on a connection or hand it on: two unmodified programs that send each other known bytes, under every
 * policy, and with Isthmus in both programs or in one of them only.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../../src/testing/index.ts';
import { CLI, ROOT } from './commands.ts';
import { PRELUDE, type Program, type Stage } from './two-programs.ts';

export const TLS_FILES = join(ROOT, 'test/fixtures/tls');
/** The package's own module, for programs of tests. */
export const INDEX_URL = new URL('../../lib/index.js', import.meta.url).href;

/** What each end sends. */
export const LENGTH = 1 << 20;
export const CLIENT_SEED = 1;
export const SERVER_SEED = 2;

const streamOf = (seed: number, length: number): Buffer => {
  const bytes = Buffer.alloc(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
};

/** What a program says that has got it all. */
export function digest(seed: number, length = LENGTH): string {
  return `${length} ${createHash('sha256').update(streamOf(seed, length)).digest('hex')}`;
}

/**
 * Begins every program, after PRELUDE: `streamOf(seed, length)`; `exchange(stream, mine, theirs)` sends one stream in pieces while
 * it reads the other, says `got`, and resolves when both are done.
 */
export const EXCHANGE = `${PRELUDE}
  import tls from 'node:tls';
  import { createHash } from 'node:crypto';
  import { once } from 'node:events';
  import { readFileSync } from 'node:fs';
  import { setTimeout as pause } from 'node:timers/promises';
  const key = readFileSync(process.env.TLS_FILES + '/key.pem'), cert = readFileSync(process.env.TLS_FILES + '/cert.pem');
  const LENGTH = ${LENGTH}, CLIENT_SEED = ${CLIENT_SEED}, SERVER_SEED = ${SERVER_SEED};
  const streamOf = ${streamOf.toString()};
  const digest = (chunks) => {
    const bytes = Buffer.concat(chunks);
    return bytes.length + ' ' + createHash('sha256').update(bytes).digest('hex');
  };
  const report = (socket, name) => socket.on('error', (error) => tell(name + ' error ' + (error.code ?? error.message)));
  const send = async (stream, bytes) => {
    for (let at = 0, size = 1; at < bytes.length; at += size, size = (size * 7 + 13) % 70001 + 1)
      if (!stream.write(bytes.subarray(at, at + size))) await once(stream, 'drain');
  };
  const receive = (stream, length) => new Promise((resolve, reject) => {
    const chunks = [];
    let got = 0;
    const take = (chunk) => {
      chunks.push(chunk);
      got += chunk.length;
      if (got < length) return;
      stream.off('data', take);
      resolve(chunks);
    };
    stream.on('data', take).on('close', () => reject(new Error('closed after ' + got)));
  });
  const exchange = async (stream, mine, length = LENGTH) => {
    const sent = send(stream, streamOf(mine, length));
    tell('got ' + digest(await receive(stream, length)));
    await sent;
  };
  process.on('unhandledRejection', (error) => { tell('failed ' + error.stack.split('\\n').join(' ')); process.exit(1); });
  process.on('uncaughtException', (error) => { tell('failed ' + error.stack.split('\\n').join(' ')); process.exit(1); });
  if (args.length === 0) args.push('0');
`;

export const POLICIES = ['eager', 'lazy'] as const;
export type Policy = (typeof POLICIES)[number];
export const SIDES = ['both ends', 'the server only', 'the client only'] as const;
export type Side = (typeof SIDES)[number];

/** No preload from the environment. */
const WITHOUT: NodeJS.ProcessEnv = { NODE_OPTIONS: '' };
const ISTHMUS_RUN = [process.execPath, CLI, 'run'];

export interface Ends {
  readonly server: Program;
  readonly client: Program;
}

/**
 * Runs two programs; the server prints its port, which is the client's first argument. Under lazy, its default, by `isthmus run`;
 * under eager with the preload alone.
 */
export async function runEnds(
  stage: Stage,
  [serverCode, clientCode]: readonly [string, string],
  policy: Policy,
  side: Side,
  args: readonly (string | number)[] = [],
): Promise<Ends> {
  const env = { TLS_FILES, INDEX_URL, ISTHMUS_POLICY: policy };
  const start = (code: string, first: string, isWithout: boolean) => {
    const byCommand = policy === 'lazy' && !isWithout;
    return stage.run(
      EXCHANGE + code,
      [first, ...args],
      { ...env, ...(isWithout || byCommand ? WITHOUT : {}) },
      byCommand ? ISTHMUS_RUN : [],
    );
  };
  const server = start(serverCode, '0', side === 'the client only');
  const client = start(clientCode, await server.says('port '), side === 'the server only');
  return { server, client };
}

/** Both have got what the other one sent, and nothing went wrong. */
export async function assertExact({ server, client }: Ends, length = LENGTH): Promise<void> {
  for (const [one, seed] of [
    [server, CLIENT_SEED],
    [client, SERVER_SEED],
  ] as const) {
    const got = await one.says('got ').catch((error) => {
      const all = [server, client].map((end) => [end.lines, end.stderr, standing(end)]);
      return assert.fail(`${error.message} ${JSON.stringify(all)}`);
    });
    assert.equal(got, digest(seed, length));
    assert.deepEqual(
      one.lines.filter((line) => /^failed|error|excess/.test(line)),
      [],
    );
  }
}

/** Both programs have ended by themselves: nothing is left to wait for. */
export async function assertEnded({ server, client }: Ends): Promise<void> {
  for (const one of [client, server]) {
    await eventually('the program has ended', () => one.child.exitCode !== null || one.child.signalCode !== null).catch(
      (error) =>
        assert.fail(
          `${error.message} ${JSON.stringify([one === client, [server, client].map((end) => [end.lines, end.stderr, standing(end)])])}`,
        ),
    );
    assert.deepEqual([one.child.exitCode, one.child.signalCode], [0, null], one.stderr);
  }
}

/** Name of the reason, or SMC-D, of every connection of a program. */
export function standing(program: Program): string[] {
  return program.connections.map(({ mode, reason }) => (mode === 'SMC-D' ? mode : reason.name));
}

export const CERTIFICATE = readFileSync(join(TLS_FILES, 'cert.pem'));
