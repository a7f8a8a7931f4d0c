/** Which way bytes go: asked of Isthmus inside the client, so that nothing is measured that is not what it is called. */
import type { Socket } from 'node:net';
import type { ConnectionInfo } from '../../src/net/info.ts';
import { type Expectation, type Sample, sample, sleep, type Window } from './control.ts';

export interface Path {
  /** Resolves when all bytes of the sockets go the expected way; rejects with the reason when they do not in time. */
  settled(sockets: () => readonly Socket[], directions: Directions, step?: () => Promise<void>): Promise<void>;
  /** To be called at the end of a window: throws when bytes since then went another way. */
  watch(sockets: readonly Socket[], direction?: Direction): () => void;
}

export type Direction = 'out' | 'in';
/** Of a direction in which nothing goes nobody can say whether it has moved. */
export type Directions = Direction | 'both';

const TIMEOUT_MS = 4000;
/** More, for each socket. */
const SOCKET_TIMEOUT_MS = 2;
const LOOK_MS = 5;

const AS_IT_IS: Path = { settled: async () => {}, watch: () => () => {} };

export async function pathFor(expects: Expectation): Promise<Path> {
  if (expects === null) return AS_IT_IS;
  const { info } = await import('isthmus');
  return {
    async settled(sockets, directions, step = () => sleep(LOOK_MS)) {
      const end = performance.now() + TIMEOUT_MS + sockets().length * SOCKET_TIMEOUT_MS;
      let first = 0; // those before it have moved
      for (;;) {
        await step();
        const all = sockets();
        for (let socket = all[first]; socket !== undefined && hasMoved(info(socket), directions); ) {
          first++;
          socket = all[first];
        }
        const left = all[first];
        if (all.length > 0 && left === undefined) break;
        if (performance.now() < end) continue;
        if (left === undefined) throw new Error('not moved: no connection');
        throw new Error(`not moved (${first} of ${all.length}): ${whyNot(info(left))}`);
      }
      for (const socket of sockets()) {
        const { device, access } = info(socket);
        if (device !== expects.device || (device === 'host' && access !== expects.access))
          throw new Error(`moved to ${device} ${access} instead of ${expects.device} ${expects.access}`);
      }
    },
    watch(sockets, direction = 'out') {
      const before = sockets.map((socket) => info(socket).bytes);
      return () => {
        for (const [i, socket] of sockets.entries()) {
          const then = before[i];
          const now = info(socket);
          const { inTcp, inShm, outTcp, outShm } = now.bytes;
          if (then === undefined) continue;
          if (direction === 'out' ? outShm === then.outShm : inShm === then.inShm)
            throw new Error(`no byte went through shared memory: ${whyNot(now)}`);
          if (outTcp !== then.outTcp || inTcp !== then.inTcp)
            throw new Error(
              `${outTcp - then.outTcp + inTcp - then.inTcp} bytes went over TCP, ${outShm - then.outShm + inShm - then.inShm} did not`,
            );
        }
      };
    },
  };
}

/** Bytes that go through a socket in one direction, by a counter of them; all have to go the expected way. */
export async function sampleOn(
  path: Path,
  socket: Socket,
  direction: Direction,
  bytes: () => number,
  window: Window,
): Promise<Sample> {
  await sleep(window.warmMs);
  const verify = path.watch([socket], direction);
  const result = await sample(bytes, { warmMs: 0, windowMs: window.windowMs });
  verify();
  return result;
}

function hasMoved({ mode, bytes }: ConnectionInfo, directions: Directions): boolean {
  return mode === 'SMC-D' && (directions === 'in' || bytes.outShm > 0) && (directions === 'out' || bytes.inShm > 0);
}

/** What the first of some sockets says of itself; for the other end, when it has failed. */
export async function describeFirst(sockets: Iterable<Socket>): Promise<string> {
  const [first] = sockets;
  if (first === undefined) return 'no connection';
  const { info } = await import('isthmus');
  return whyNot(info(first));
}

function whyNot({ mode, state, reason, bytes }: ConnectionInfo): string {
  const { inTcp, inShm, outTcp, outShm } = bytes;
  return `${mode} ${state}, ${reason.name}: ${reason.text}; bytes in ${inTcp} + ${inShm}, out ${outTcp} + ${outShm} (TCP + shared memory)`;
}
