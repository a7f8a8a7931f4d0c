/** All TCP connections of a capture, as far as they may speak CLC. Bounded: the oldest are left when there are too many. */
import { Connection, type Listener } from './connection.ts';
import type { Segment } from './packet.ts';

const MAX_CONNECTIONS = 100_000;
/** Of all streams together. */
const MAX_HELD_BYTES = 64 * 1024 * 1024;

export class Connections {
  /** How many there were. */
  connections = 0;
  withMessages = 0;
  /** Without messages, although SYN and SYN-ACK had the option. */
  agreedOnly = 0;
  /** Without messages, for the SYN-ACK had no option. */
  refused = 0;
  /** Left before they ended, for there were too many. */
  forgotten = 0;
  readonly #listener: Listener;
  /** The oldest first, with what it holds. */
  readonly #table = new Map<string, { readonly connection: Connection; heldBytes: number }>();
  #heldBytes = 0;

  constructor(listener: Listener) {
    this.#listener = listener;
  }

  add(timeNs: bigint | null, segment: Segment): void {
    const { from, to, syn, ack } = segment;
    const key = from < to ? from + to : to + from;
    let entry = this.#table.get(key);
    if (entry !== undefined && syn && !ack && !entry.connection.isOwnSyn(segment)) {
      this.#remove(key, 'its ports are used again');
      entry = undefined;
    }
    if (entry === undefined) {
      entry = { connection: new Connection(segment, this.#listener), heldBytes: 0 };
      this.#table.set(key, entry);
      this.connections++;
    }
    entry.connection.add(timeNs, segment);
    const { heldBytes } = entry.connection;
    this.#heldBytes += heldBytes - entry.heldBytes;
    entry.heldBytes = heldBytes;
    while (this.#table.size > MAX_CONNECTIONS || this.#heldBytes > MAX_HELD_BYTES) {
      this.forgotten++;
      for (const oldest of this.#table.keys()) {
        this.#remove(oldest, 'not followed any further');
        break;
      }
    }
  }

  /** The capture has ended. */
  end(): void {
    for (const key of this.#table.keys()) this.#remove(key, 'the capture ends');
  }

  #remove(key: string, how: string): void {
    const entry = this.#table.get(key);
    if (entry === undefined) return;
    this.#table.delete(key);
    this.#heldBytes -= entry.heldBytes;
    const { connection } = entry;
    connection.end(how);
    if (connection.messages > 0) this.withMessages++;
    else if (connection.option === 'agreed') this.agreedOnly++;
    else if (connection.option === 'refused') this.refused++;
  }
}
