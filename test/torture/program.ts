/** One program of a round, as its only argument says. */
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { Ends } from './end.ts';
import { makeDialler, serve, takeSockets } from './kinds.ts';
import { traitsOf } from './plan.ts';
import { type Command, type Role, tell } from './words.ts';

const FILE = new URL(import.meta.url);
/** Between two lives. */
const GAP_MS = 100;
/** Ids of a thread of a program. */
export const THREAD_IDS = 1 << 18;

type Told<Does extends Command['does']> = Extract<Command, { does: Does }>;
/** What a program, or a thread, does at a word. */
interface Player {
  dial?(command: Told<'dial'>): void;
  /** @param finished to be called when nothing is open */
  finish(finished: () => void): void;
  leave(): void;
  terminate?(): void;
  dump(): unknown;
}

const role = JSON.parse(process.argv[2] as string) as Role;
const isthmus = role.isPlain ? null : await import('isthmus');

function client(ends: Ends): Player {
  const dialler = makeDialler(ends);
  let port: number | null = null;
  let isFinishing = false;
  let next = ends.role.firstId;
  const live = async () => {
    while (!isFinishing && port !== null) {
      await dialler.live(next++, port);
      await sleep(GAP_MS);
    }
  };
  return {
    dial(command) {
      const isFirst = port === null;
      port = command.port;
      if (isFirst) for (let i = 0; i < traitsOf(ends.role.kind).atOnce; i++) void live();
    },
    finish(finished) {
      isFinishing = true;
      ends.whenNone(() => {
        dialler.close();
        finished();
      });
    },
    leave() {},
    dump: () => ends.dump(),
  };
}

async function server(ends: Ends, listening: (port: number) => void): Promise<Player> {
  const { port, close } = await serve(ends);
  listening(port);
  return {
    finish: (finished) => ends.whenNone(finished),
    leave: close,
    dump: () => ends.dump(),
  };
}

/** The player is a thread, which can be terminated. The main thread of the server is one more client. */
function withThread(role: Role): Player {
  const inner = role.side === 'server' ? client(new Ends({ ...role, side: 'client' }, isthmus)) : null;
  let worker: Worker;
  let count = 0;
  let isTerminating = false;
  let dialled: Command | null = null;
  let finished: (() => void) | null = null;
  let isFinishing = false;
  const finishThread = () => {
    isFinishing = true; // also for the thread that follows, when this one is being terminated
    worker.postMessage({ does: 'finish' } satisfies Command);
  };
  const start = () => {
    const firstId = role.firstId + ++count * THREAD_IDS;
    worker = new Worker(FILE, { argv: [JSON.stringify({ ...role, firstId })] });
    worker.on('error', (error) => {
      throw error;
    });
    worker.on('message', (said: { port: number } | 'finished') => {
      if (said === 'finished') finished?.();
      else inner?.dial?.({ does: 'dial', port: said.port });
    });
    if (dialled !== null) worker.postMessage(dialled);
    if (isFinishing) finishThread();
  };
  start();
  return {
    dial(command) {
      dialled = command;
      worker.postMessage(command);
    },
    finish(done) {
      finished = done;
      if (inner === null) finishThread();
      else inner.finish(finishThread);
    },
    leave: () => worker.postMessage({ does: 'leave' } satisfies Command),
    async terminate() {
      if (isTerminating) return;
      isTerminating = true;
      const { threadId } = worker;
      await worker.terminate();
      tell({ says: 'terminated', ledger: `${role.ledgers}-${process.pid}-${threadId}` });
      isTerminating = false;
      start();
    },
    dump: () => {
      worker.postMessage({ does: 'dump' } satisfies Command);
      return inner?.dump();
    },
  };
}

async function player(): Promise<Player> {
  if (role.kind === 'threads' && isMainThread) return withThread(role);
  const ends = new Ends(role, isthmus);
  if (role.side === 'client') return client(ends);
  return await server(ends, (port) => {
    tell({ says: 'port', port });
    parentPort?.postMessage({ port });
  });
}

function perform(player: Player, command: Command): void {
  switch (command.does) {
    case 'dial':
      player.dial?.(command);
      break;
    case 'finish':
      player.finish(() => {
        if (isMainThread) tell({ says: 'finished' });
        else parentPort?.postMessage('finished');
      });
      break;
    case 'leave':
      player.leave();
      if (isMainThread) process.stdin.destroy();
      else parentPort?.close();
      break;
    case 'terminate':
      player.terminate?.();
      break;
    case 'dump':
      tell({ says: 'dump', ends: player.dump() });
      break;
    default:
      command satisfies never;
  }
}

if (process.send !== undefined && isMainThread) {
  takeSockets(new Ends(role, isthmus));
} else {
  // Words may come while it is being made.
  const made = player();
  if (parentPort !== null) parentPort.on('message', async (command: Command) => perform(await made, command));
  else createInterface(process.stdin).on('line', async (line) => perform(await made, JSON.parse(line) as Command));
  await made;
}
