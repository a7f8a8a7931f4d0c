/**
 * Handshakes over a channel that carries those of many connections: each message goes with the number of its match. One may come
 * before we know of the match, since the peer is told at the same time as we are.
 */
import type { Gid } from '../ism/index.ts';

const MATCH_BYTES = 8;
/** What a peer may send for matches that we do not know, and for how long it is kept. */
const MAX_EARLY_MESSAGES = 4096;
const EARLY_MS = 6000;

export function withMatch(match: bigint, message: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(MATCH_BYTES + message.length);
  bytes.writeBigUInt64LE(match, 0);
  message.copy(bytes, MATCH_BYTES);
  return bytes;
}

export class Matches {
  readonly #listeners = new Map<string, (message: Buffer) => void>();
  readonly #early = new Map<string, Buffer[]>();
  #earlyCount = 0;

  /** Takes the messages of one match, those that came early first. */
  listen(peer: Gid, match: bigint, listener: (message: Buffer) => void): void {
    const key = `${peer} ${match}`;
    this.#listeners.set(key, listener);
    for (const message of this.#takeEarly(key)) listener(message);
  }

  forget(peer: Gid, match: bigint): void {
    this.#listeners.delete(`${peer} ${match}`);
  }

  receive(peer: Gid, bytes: Buffer): void {
    if (bytes.length < MATCH_BYTES) return;
    const key = `${peer} ${bytes.readBigUInt64LE(0)}`;
    const message = bytes.subarray(MATCH_BYTES);
    const listener = this.#listeners.get(key);
    if (listener !== undefined) listener(message);
    else this.#keep(key, message);
  }

  #keep(key: string, message: Buffer): void {
    if (this.#earlyCount >= MAX_EARLY_MESSAGES) return;
    this.#earlyCount++;
    const messages = this.#early.get(key);
    if (messages !== undefined) {
      messages.push(message);
      return;
    }
    this.#early.set(key, [message]);
    setTimeout(() => this.#takeEarly(key), EARLY_MS).unref();
  }

  #takeEarly(key: string): Buffer[] {
    const messages = this.#early.get(key) ?? [];
    this.#early.delete(key);
    this.#earlyCount -= messages.length;
    return messages;
  }
}
