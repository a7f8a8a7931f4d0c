/** Random lives of a connection: what each end does, told as data, so that a failure can be shrunk and repeated. */
import type { Socket } from 'node:net';
import fc from 'fast-check';
import type { Mover } from '../../src/net/mover.ts';

export type Act =
  | readonly ['write', number]
  | readonly ['wait', number]
  | readonly ['pause']
  | readonly ['resume']
  | readonly ['restore']
  | readonly ['accelerate'];

export interface Script {
  readonly acts: readonly Act[];
  /** How this end comes to its end. */
  readonly last: 'end' | 'destroy' | 'reset';
}

const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(
      fc.constant('write' as const),
      fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 70_000 })),
    ),
  },
  { weight: 3, arbitrary: fc.tuple(fc.constant('wait' as const), fc.nat(4)) },
  { weight: 1, arbitrary: fc.constant(['pause'] as const) },
  { weight: 2, arbitrary: fc.constant(['resume'] as const) },
  { weight: 1, arbitrary: fc.constant(['restore'] as const) },
  { weight: 2, arbitrary: fc.constant(['accelerate'] as const) },
);

/** Time for a connection to move before the rest. */
const warmUp: readonly Act[] = [
  ['write', 3],
  ['wait', 12],
];

/** @param lasts what may come last */
export function scripts(lasts: readonly Script['last'][]): fc.Arbitrary<Script> {
  return fc
    .record({
      warm: fc.boolean(),
      acts: fc.array(act, { maxLength: 25, size: 'max' }),
      last: fc.constantFrom(...lasts),
    })
    .map(({ warm, acts, last }) => ({ acts: warm ? [...warmUp, ...acts] : acts, last }));
}

/** The byte at a position of the stream that an end writes. */
export function byteAt(position: number, salt: number): number {
  return (position * 13 + (position >> 8) * 7 + salt) & 0xff;
}

export interface Result {
  written: number;
  received: number;
  /** Position of the first wrong byte. */
  wrongAt: number | null;
  readonly events: string[];
}

const CLOSE_MS = 10_000;

/** Plays a script on a socket; settles when the socket is closed. Rejects when that does not come. */
export async function play(
  socket: Socket,
  script: Script,
  salt: number,
  peerSalt: number,
  moverOf: () => Mover | null,
): Promise<Result> {
  const result: Result = { written: 0, received: 0, wrongAt: null, events: [] };
  socket.on('data', (chunk: Buffer) => {
    for (const byte of chunk) {
      if (byte !== byteAt(result.received, peerSalt)) result.wrongAt ??= result.received;
      result.received++;
    }
  });
  for (const event of ['end', 'close', 'error'] as const) {
    socket.on(event, (error?: NodeJS.ErrnoException | boolean) => {
      result.events.push(error instanceof Error ? `error ${(error as NodeJS.ErrnoException).code}` : event);
    });
  }
  const closed = new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not closed: ${JSON.stringify(result)}`)), CLOSE_MS);
    socket.on('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
  const acting = (async () => {
    for (const one of script.acts) {
      if (socket.destroyed) return;
      switch (one[0]) {
        case 'write': {
          if (socket.writableEnded) break;
          const from = result.written;
          result.written += one[1];
          socket.write(Buffer.from(Array.from({ length: one[1] }, (_, i) => byteAt(from + i, salt))));
          break;
        }
        case 'wait':
          await new Promise((resolve) => setTimeout(resolve, one[1]));
          break;
        case 'pause':
          socket.pause();
          break;
        case 'resume':
          socket.resume();
          break;
        case 'restore':
          void moverOf()?.restore();
          break;
        case 'accelerate':
          moverOf()?.retry();
          break;
        default:
          one satisfies never;
      }
    }
    if (script.last === 'end') socket.end();
    else if (script.last === 'destroy') socket.destroy();
    else socket.resetAndDestroy();
    if (!socket.destroyed) socket.resume();
  })();
  await Promise.all([acting, closed]);
  return result;
}
