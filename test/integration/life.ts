/** The life of one end of a connection, told as data, and what came of it; shared by the test and the programs that play it. */

export type Act =
  | readonly ['write' | 'text', number]
  | readonly ['wait', number]
  /** Wait for room, for a moment at most: the peer may be waiting too. */
  | readonly ['drain']
  | readonly ['cork']
  | readonly ['uncork']
  | readonly ['pause']
  | readonly ['resume']
  /** Wait until it has moved both ways, so many milliseconds at most. */
  | readonly ['settle', number]
  | readonly ['restore']
  | readonly ['accelerate'];

/** How an end comes to its end; the last three take all connections of the program with them. */
export type Last = 'end' | 'destroy' | 'destroySoon' | 'reset' | 'exit' | 'throw' | 'kill';

export interface Script {
  readonly acts: readonly Act[];
  readonly last: Last;
  readonly reading: 'data' | 'readable' | 'onread';
  readonly halfOpen: boolean;
  readonly highWaterMark: number;
}

export interface Outcome {
  written: number;
  /** Bytes of writes whose callbacks came without an error. */
  acknowledged: number;
  /** Callbacks that came out of turn. */
  outOfTurn: number;
  unanswered: number;
  received: number;
  /** Position of the first wrong byte. */
  wrongAt: number | null;
  readonly events: string[];
  /** As the socket counts. */
  bytesRead: number;
  bytesWritten: number;
  /** Bytes that went out through shared memory, as far as it was seen. */
  outShm: number;
  /** What is known of a connection that did not close. */
  stuck: unknown;
}

/** What a player is told, one JSON text a line. */
export type Command =
  | { readonly does: 'serve'; readonly id: number; readonly script: Script; readonly salts: readonly [number, number] }
  | {
      readonly does: 'connect';
      readonly id: number;
      readonly script: Script;
      readonly salts: readonly [number, number];
      readonly port: number;
    }
  /** All are connected: begin. */
  | { readonly does: 'go' };

/** What it says. */
export type Report =
  | { readonly port: number; readonly id: number }
  | { readonly connected: true; readonly id: number }
  | { readonly outcome: Outcome; readonly id: number }
  /** The program is about to die; what it had done until then. */
  | { readonly dying: readonly { readonly id: number; readonly outcome: Outcome }[] };

/** Bytes of the stream with this salt. No part of it looks like another one. */
export function bytesAt(salt: number, from: number, length: number): Buffer {
  const first = from >>> 2;
  const words = new Int32Array(((from + length + 3) >>> 2) - first);
  for (let i = 0; i < words.length; i++) {
    const mixed = Math.imul(first + i + Math.imul(salt, 0x85ebca6b), 0x9e3779b1);
    words[i] = mixed ^ (mixed >>> 15);
  }
  return Buffer.from(words.buffer, from & 3, length);
}
