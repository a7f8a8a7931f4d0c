/** All TCP connections of a capture, as far as they may speak CLC. Bounded: the oldest are left when there are too many. */
import { Connection, type Listener } from './connection.ts';
import type { Segment } from './packet.ts';

/** What is kept at a time. */
const LIMITS = { connections: 100_000, heldBytes: 64 * 1024 * 1024 };

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
  readonly #limits: typeof LIMITS;
  /** The oldest first, with what it holds. */
  readonly #table = new Map<string, { readonly connection: Connection; heldBytes: number }>();
  /** Goes on where it was: to begin anew each time would be to step over all that were removed. */
  readonly #byAge = this.#table.keys();
  #heldBytes = 0;

  constructor(listener: Listener, limits = LIMITS) {
    this.#listener = listener;
    this.#limits = limits;
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
    while (this.#table.size > this.#limits.connections || this.#heldBytes > this.#limits.heldBytes) {
      const { value: oldest } = this.#byAge.next();
      if (oldest === undefined) return;
      this.forgotten++;
      this.#remove(oldest, 'not followed any further');
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
