/** A program that talks to what it has started: over lines.ts, and in ring.ts. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { cpuSecondsOf } from '../process-facts.ts';
import type { Answer } from './answerer.ts';
import { type Sample, sample, sleep, type Window } from './control.ts';
import {
  ipcLine,
  type Line,
  type LineKind,
  type PeerKind,
  pipeLine,
  portLine,
  type Received,
  zeromqLine,
} from './lines.ts';
import { copies, ringRoundTrips, ringStream } from './ring.ts';
import { type RoundTrips, Times } from './times.ts';

interface Place {
  /** Where the other end runs, if it is a process; null = not pinned. */
  readonly cpu: number | null;
  /** Of a socket for zeromq. */
  readonly path: string | null;
}
interface Messages {
  readonly peer: PeerKind;
  readonly messageBytes: number;
}

/** Of a stream, on its way at a time: some of these lines have no end to what they take. */
const MOST_BYTES = 1 << 20;

export const peerCommands = {
  /** Ping-pong, one message at a time. */
  async roundTrips({ messageBytes, warmMs, windowMs, peer, ...place }: Messages & Place & Window): Promise<RoundTrips> {
    if (peer === 'ring') return ringRoundTrips(messageBytes, place.cpu, { warmMs, windowMs });
    if (peer === 'memcpy') throw new Error('there is nobody to answer');
    return withAnswerer(peer, place, { every: messageBytes, bytes: messageBytes }, async (end) => {
      await pingPong(end, messageBytes, warmMs);
      const times = new Times();
      const cpuBefore = cpuSecondsOf(end.pids);
      await pingPong(end, messageBytes, windowMs, times);
      return { ...times.latency(), cpuSeconds: cpuSecondsOf(end.pids) - cpuBefore };
    });
  },

  /** Messages one way, as fast as they go; the other end says now and then how many have come. CPU time is that of both ends. */
  async stream({ messageBytes, warmMs, windowMs, peer, ...place }: Messages & Place & Window): Promise<Sample> {
    if (peer === 'ring') return ringStream(messageBytes, place.cpu, { warmMs, windowMs });
    if (peer === 'memcpy') return copies(messageBytes, { warmMs, windowMs });
    const most = Math.max(MOST_BYTES, 4 * messageBytes);
    const every = Math.max(messageBytes, most / 4);
    return withAnswerer(peer, place, { every, bytes: 1 }, async (end) => {
      let [sent, arrived, stopped] = [0, 0, false];
      await new Promise<void>((resolve) => {
        end.received = (bytes) => {
          arrived += bytes * every;
          resolve();
          send();
        };
        send();
      });
      function send(): void {
        for (; !stopped && sent - arrived + messageBytes <= most; sent += messageBytes) end.line.send(messageBytes);
      }
      await sleep(warmMs);
      const result = await sample(() => arrived, { warmMs: 0, windowMs }, end.pids);
      stopped = true;
      while (sent - arrived >= every) await sleep(1); // else bytes were lost, and nobody answers
      return result;
    });
  },
};

export type PeerCommands = typeof peerCommands;

interface End {
  readonly line: Line;
  readonly pids: readonly number[];
  received(bytes: number): void;
}

function pingPong(end: End, bytes: number, forMs: number, times?: Times): Promise<void> {
  return new Promise((resolve) => {
    const until = performance.now() + forMs;
    let missing = bytes;
    let sentAt = performance.now();
    end.received = (length) => {
      missing -= length;
      if (missing > 0) return;
      const now = performance.now();
      times?.add((now - sentAt) * 1000);
      if (now >= until) {
        resolve();
        return;
      }
      missing = bytes;
      sentAt = now;
      end.line.send(bytes);
    };
    end.line.send(bytes);
  });
}

const ANSWERER = new URL('answerer.js', import.meta.url);

/** The other end, and this end of the line to it. */
interface Other {
  readonly line: Line;
  /** Both ends. */
  readonly pids: readonly number[];
  readonly ended: Promise<unknown>;
  end(): unknown;
}

async function withAnswerer<T>(
  peer: LineKind,
  { cpu, path }: Place,
  how: Pick<Answer, 'every' | 'bytes'>,
  use: (end: End) => Promise<T>,
): Promise<T> {
  const answer: Answer = { kind: peer, path, ...how };
  const to: Received = (bytes) => end.received(bytes);
  const other =
    peer === 'port-copy' || peer === 'port-transfer' ? thread(answer, peer, to) : await child(answer, cpu, to);
  const end: End = { line: other.line, pids: other.pids, received: () => {} };
  const lost = other.ended.then(() => {
    throw new Error('the other end has ended');
  });
  try {
    return await Promise.race([use(end), lost]);
  } finally {
    end.received = () => {};
    end.line.close();
    other.end();
    await other.ended.catch(() => {});
  }
}

function thread(answer: Answer, kind: 'port-copy' | 'port-transfer', to: Received): Other {
  const worker = new Worker(ANSWERER, { workerData: answer });
  const ended = once(worker, 'exit'); // rejects with its error
  return { line: portLine(worker, kind, to), pids: [process.pid], ended, end: () => worker.terminate() };
}

async function child(answer: Answer, cpu: number | null, to: Received): Promise<Other> {
  // First, should there be no such package.
  const bound = answer.kind === 'zeromq' ? await zeromqLine(answer.path ?? '', 'bind', to) : null;
  const ipc = answer.kind === 'ipc-json' || answer.kind === 'ipc-advanced' ? answer.kind : null;
  const node = [process.execPath, fileURLToPath(ANSWERER), JSON.stringify(answer)];
  const [file, ...args] = cpu === null ? node : ['taskset', '-c', String(cpu), ...node];
  const child = spawn(file as string, args, {
    stdio: ['pipe', 'pipe', 'inherit', ...(ipc === null ? [] : (['ipc'] as const))],
    serialization: ipc === 'ipc-json' ? 'json' : 'advanced',
  });
  child.on('error', () => {}); // the first one ends it, see below; of more of them nobody needs to hear
  const { stdin, stdout, pid = -1 } = child;
  if (stdin === null || stdout === null) throw new Error('a child without pipes');
  const line = bound ?? (ipc === null ? pipeLine(stdout, stdin, to) : ipcLine(child, ipc, to));
  return { line, pids: [process.pid, pid], ended: once(child, 'exit'), end: () => child.kill('SIGKILL') };
}
