/** The pair channel: records in, records out; gathers what is said in one turn into one packet, and waits when the queue is full. */
import { queueMicrotask } from '../../os/event-loop.ts';
import { Closer, errorCode, MAX_PACKET_BYTES, receivePacket, sendPacket } from '../../os/index.ts';
import { decodePairPacket, encodePairMessage, type PairMessage, takesDescriptor } from './messages.ts';

/** More than this waiting for a peer that does not read ends the pair. */
const MAX_WAITING_BYTES = 8 << 20;
const RETRY_MS = 2;
/** The cause of an end that is ours. */
export const NO_DESCRIPTORS = 'no descriptor is left for the memory of the other program';

export interface ChannelListener {
  /** Descriptors are the listener's from here on. @param fd null also where it did not come, since this process may have no more */
  message(message: PairMessage, fd: number | null): void;
  /** A packet was sent: the peer should look. */
  sent(): void;
  /** The peer has closed, or broke the protocol: nothing comes any more. */
  ended(cause: string): void;
}

export class PairChannel {
  readonly #fd: number;
  readonly #listener: ChannelListener;
  readonly #closer = new Closer();
  #waiting: { record: Buffer; fd: number | null }[] = [];
  #waitingBytes = 0;
  #flushing = false;
  #closed = false;

  /** Takes over the descriptor. */
  constructor(fd: number, listener: ChannelListener) {
    this.#fd = fd;
    this.#listener = listener;
  }

  /** Queues a record. A descriptor stays the caller's and must live as long as the channel. */
  send(message: PairMessage, fd: number | null = null): void {
    if (this.#closed) return;
    if (takesDescriptor(message) !== (fd !== null)) throw new TypeError(`${message.type} and its descriptor`);
    const record = encodePairMessage(message);
    this.#waiting.push({ record, fd });
    this.#waitingBytes += record.length;
    if (!this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => this.#flush());
    }
  }

  #flush(): void {
    this.#flushing = false;
    try {
      while (!this.#closed && this.#waiting.length > 0) {
        const count = this.#packetLength();
        const packet = this.#waiting.slice(0, count);
        const fds = packet.flatMap(({ fd }) => (fd === null ? [] : [fd]));
        if (!sendPacket(this.#fd, Buffer.concat(packet.map(({ record }) => record)), fds)) {
          if (this.#waitingBytes > MAX_WAITING_BYTES) this.#end('the peer does not read its channel');
          else this.#retry();
          return;
        }
        this.#waiting.splice(0, count);
        for (const { record } of packet) this.#waitingBytes -= record.length;
        this.#listener.sent();
      }
    } catch (error) {
      this.#end(`sending failed: ${(error as Error).message}`);
    }
  }

  /** How many records go into the next packet. */
  #packetLength(): number {
    let bytes = 0;
    for (const [i, { record, fd }] of this.#waiting.entries()) {
      if (fd !== null) return Math.max(i, 1);
      bytes += record.length;
      if (bytes > MAX_PACKET_BYTES) return i;
    }
    return this.#waiting.length;
  }

  #retry(): void {
    this.#flushing = true;
    setTimeout(() => this.#flush(), RETRY_MS).unref();
  }

  /** Reads all that is there. */
  receive(): void {
    try {
      while (!this.#closed) {
        const packet = receivePacket(this.#fd);
        if (packet === null) return;
        if (packet === 'end') {
          this.#end('the peer has closed its channel');
          return;
        }
        const { bytes, truncated, lacksDescriptors, fds } = packet;
        let messages: PairMessage[];
        try {
          if (truncated && !lacksDescriptors) throw new Error('a packet that is too long');
          messages = decodePairPacket(bytes, lacksDescriptors ? 1 : fds.length);
        } catch (error) {
          for (const one of fds) this.discard(one);
          throw error;
        }
        // Some may have come of more than there should be.
        if (lacksDescriptors) for (const one of fds) this.discard(one);
        const fd = lacksDescriptors ? null : (fds[0] ?? null);
        for (const message of messages) this.#listener.message(message, fd);
      }
    } catch (error) {
      this.#end(errorCode(error) === 'EMFILE' ? NO_DESCRIPTORS : (error as Error).message);
    }
  }

  #end(cause: string): void {
    if (this.#closed) return;
    this.close();
    this.#listener.ended(cause);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiting = [];
    // With descriptors that the peer has sent and nobody took off.
    this.discard(this.#fd);
  }

  /** Closes what the peer has sent, which may be anything. */
  discard(fd: number): void {
    this.#closer.close(fd);
  }
}
