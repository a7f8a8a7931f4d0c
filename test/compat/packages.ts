/**
 * The programs of compat/: each runs as it is, over plain TCP, and under `isthmus run`, with every answer the same, and its connections
 * go the way that stands here. A package more: a file in compat/programs/, a row here, and `npm run compat`.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Exchange, Pair, Program, Programs, Way } from '../../src/cli/programs.ts';
import { ROOT } from '../integration/commands.ts';

export interface Subject {
  /** compat/programs/NAME.mjs */
  readonly name: string;
  /** What runs on both ends, server first; packages as npm knows them, others in plain text. */
  readonly packages: readonly string[];
  readonly expects: 'SMC-D' | 'TCP';
  readonly remark?: string;
}

const LIKE_TCP = 'both ends are told not to wait for the acknowledgement of small packets (noDelay)';

export const SUBJECTS: readonly Subject[] = [
  { name: 'node-http', packages: ['node:http'], expects: 'SMC-D' },
  { name: 'node-fetch', packages: ['node:http'], expects: 'SMC-D', remark: 'the client is the global fetch' },
  { name: 'node-https', packages: ['node:https'], expects: 'SMC-D' },
  { name: 'node-http2', packages: ['node:http2'], expects: 'SMC-D' },
  { name: 'express', packages: ['express', 'node:http'], expects: 'SMC-D' },
  { name: 'fastify', packages: ['fastify', 'node:http'], expects: 'SMC-D' },
  { name: 'koa', packages: ['koa', 'node:http'], expects: 'SMC-D' },
  { name: 'hono', packages: ['hono', '@hono/node-server', 'node:http'], expects: 'SMC-D' },
  { name: 'hapi', packages: ['@hapi/hapi', 'node:http'], expects: 'SMC-D' },
  { name: 'vite', packages: ['vite', 'node:http'], expects: 'SMC-D', remark: 'the dev server' },
  {
    name: 'http-proxy',
    packages: ['http-proxy', 'node:http'],
    expects: 'SMC-D',
    remark: 'so do the connections behind the proxy, inside one process',
  },
  { name: 'undici', packages: ['node:http', 'undici'], expects: 'SMC-D' },
  { name: 'got', packages: ['node:http', 'got'], expects: 'SMC-D' },
  { name: 'axios', packages: ['node:http', 'axios'], expects: 'SMC-D' },
  { name: 'ws', packages: ['ws'], expects: 'SMC-D' },
  { name: 'socket.io', packages: ['socket.io', 'socket.io-client'], expects: 'SMC-D' },
  { name: 'grpc', packages: ['@grpc/grpc-js'], expects: 'SMC-D', remark: 'h2c' },
  {
    name: 'mqtt',
    packages: ['aedes', 'mqtt'],
    expects: 'SMC-D',
    remark: 'QoS 1, two clients of one broker; over TCP they wait for acknowledgements of small packets',
  },
  { name: 'rhea', packages: ['rhea'], expects: 'SMC-D', remark: 'AMQP 1.0' },
  { name: 'pg', packages: ['@electric-sql/pglite-socket', '@electric-sql/pglite', 'pg'], expects: 'SMC-D' },
  { name: 'mysql2', packages: ['mysql2'], expects: 'SMC-D', remark: LIKE_TCP },
  {
    name: 'ioredis',
    packages: ['redis-parser', 'ioredis'],
    expects: 'SMC-D',
    remark: 'the server is a small one of our own',
  },
  {
    name: 'redis',
    packages: ['redis-parser', 'redis'],
    expects: 'SMC-D',
    remark: 'the server is a small one of our own',
  },
  { name: 'nodemailer', packages: ['smtp-server', 'nodemailer'], expects: 'SMC-D' },
  { name: 'ldapjs', packages: ['ldapjs'], expects: 'SMC-D' },
  { name: 'ssh2', packages: ['ssh2'], expects: 'SMC-D', remark: LIKE_TCP },
  { name: 'nginx', packages: ['nginx', 'node:http'], expects: 'TCP', remark: 'as a proxy, not a Node.js program' },
  { name: 'redis-server', packages: ['redis-server', 'ioredis'], expects: 'TCP', remark: 'not a Node.js program' },
];

/** Servers from elsewhere, and how they tell their version. */
const FOREIGN = { nginx: '-v', 'redis-server': '--version' } as const;

function isForeign(name: string): name is keyof typeof FOREIGN {
  return name in FOREIGN;
}

const COMPAT = join(ROOT, 'compat');

/** What a client prints. */
export interface Answers {
  /** Of all answers, in the order of their requests. */
  readonly digest: string;
  readonly requests: number;
  /** How many of the answers differ from each other. */
  readonly distinct: number;
  readonly bytes: number;
  /** Requests per second, by number of the slot of time. */
  readonly rates: Readonly<Record<string, number>>;
}

/** How a client of a measurement runs: beside the other way's, by turns. */
export interface Turn {
  readonly turn: 0 | 1;
  /** Of the server and of the client; null: where the scheduler puts them. */
  readonly cpus: readonly [number, number] | null;
}

function pairOf({ name }: Subject, seconds: number, turn?: Turn): Pair {
  const program = (cpu: number | undefined, ...args: string[]): Program => {
    const pinned = cpu === undefined ? [] : ['taskset', '-c', String(cpu)];
    return {
      name: `${name} ${args[0]}`,
      command: [...pinned, process.execPath, join(COMPAT, 'run.mjs'), name, ...args],
    };
  };
  const turns = turn === undefined ? [] : [String(turn.turn)];
  return {
    server: program(turn?.cpus?.[0], 'serve'),
    client: (port) => program(turn?.cpus?.[1], 'connect', port, String(seconds), ...turns),
    limitMs: 60_000 + 2000 * seconds,
  };
}

export const exchange = (
  programs: Programs,
  subject: Subject,
  way: Way,
  seconds: number,
  turn?: Turn,
): Promise<Exchange<Answers>> => programs.exchange<Answers>(pairOf(subject, seconds, turn), way);

/** Whether one that is to move has not, at one of its ends. */
export function hasNotMoved({ expects }: Subject, run: Exchange<Answers>): boolean {
  return expects === 'SMC-D' && ['server', 'client'].some((role) => !movedOf(run).some((one) => one.role === role));
}

const movedOf = ({ connections }: Exchange<Answers>) => connections.filter(({ mode }) => mode === 'SMC-D');

/** Throws unless the answers are the same both ways, and the connections went as they should. */
export function judge(subject: Subject, plain: Exchange<Answers>, run: Exchange<Answers>): void {
  assert.equal(plain.result.distinct, plain.result.requests, 'each request has an answer of its own');
  assert.deepEqual(plain.connections, [], 'nothing of Isthmus is in the programs as they are');
  assert.equal(run.result.digest, plain.result.digest, 'the answers are those of plain TCP');
  assert.ok(!hasNotMoved(subject, run), `both ends move: ${reasonsOf(run)}`);
  if (subject.expects === 'TCP') {
    assert.equal(movedOf(run).length, 0, 'nothing moves');
    assert.notEqual(reasonsOf(run), '', 'it is shown why');
  }
}

/** Why connections stayed on TCP: names, each once. */
export function reasonsOf({ connections }: Exchange<Answers>): string {
  const names = connections.filter(({ mode }) => mode === 'TCP').map(({ reason }) => reason.name);
  return [...new Set(names)].join(', ');
}

/** What has to be installed for a subject, and is not; null when nothing is missing. */
export function missingFor({ packages }: Subject): string | null {
  for (const name of packages) if (versionOf(name) === null) return `there is no ${name}: ${hintFor(name)}`;
  return null;
}

const hintFor = (name: string) => (isForeign(name) ? `apt-get install ${name}` : 'npm ci --prefix compat');

/** Null when it is not installed. */
export function versionOf(name: string): string | null {
  if (name.startsWith('node:')) return process.versions.node;
  if (isForeign(name)) {
    const { stdout, stderr, error } = spawnSync(name, [FOREIGN[name]], { encoding: 'utf8' });
    return error === undefined ? (/\d+(\.\d+)+/.exec(stdout + stderr)?.[0] ?? null) : null;
  }
  try {
    return JSON.parse(readFileSync(join(COMPAT, 'node_modules', name, 'package.json'), 'utf8')).version;
  } catch {
    return null;
  }
}
