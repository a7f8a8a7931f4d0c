/** We, as a host that the kernel meets: the product's handshake over our TCP, with a device that stands for the kernel's. */
import assert from 'node:assert/strict';
import type { HandshakeContext } from '../../src/smc/handshake.ts';
import { type ClcStream, InBandHandshake, type InBandOutcome } from '../../src/smc/in-band.ts';
import { type ClcMessage, decodeClc } from '../../src/smc/index.ts';
import { hosts } from '../handshake/ends.ts';
import { type Cut, pieces, UEID } from './clc.ts';
import { KernelDevice } from './device.ts';
import { KERNEL_PORT, type Kernel } from './kernel.ts';
import type { TcpConnection } from './tcp.ts';

const OUR_PORT = 6000;

/** How bytes go to and fro. */
export interface Passage {
  /** Of what we send. */
  readonly cut?: Cut;
  /** What comes from the kernel is seen byte by byte. */
  readonly slow?: boolean;
}

/** The TCP connection as the handshake sees it. The device learns of the DMBs that the kernel names. */
class Stream implements ClcStream {
  readonly #connection: TcpConnection;
  readonly #device: KernelDevice;
  readonly #cut: Cut;
  /** How many bytes are to be seen. */
  #seen: number;
  /** Both ends' messages, in their order. */
  readonly messages: ClcMessage[] = [];

  constructor(connection: TcpConnection, device: KernelDevice, { cut = 'whole', slow = false }: Passage) {
    this.#connection = connection;
    this.#device = device;
    this.#cut = cut;
    this.#seen = slow ? 0 : Number.POSITIVE_INFINITY;
  }

  /** Whether one more byte is to be seen. */
  showMore(): boolean {
    const there = this.#connection.peek(this.#seen + 1);
    return there !== 'end' && there.length > this.#seen++;
  }

  peek(length: number): Buffer | 'end' {
    const bytes = this.#connection.peek(length);
    return bytes === 'end' ? bytes : bytes.subarray(0, this.#seen);
  }

  read(length: number): Buffer {
    const bytes = this.#connection.read(length);
    this.#seen -= length;
    const message = decodeClc(bytes);
    this.messages.push(message);
    if ((message.type === 'accept' || message.type === 'confirm') && message.mode === 'D') {
      this.#device.learn(message.token, message.dmbeSize);
    }
    return bytes;
  }

  send(bytes: Buffer): void {
    this.messages.push(decodeClc(bytes));
    for (const piece of pieces(bytes, this.#cut)) this.#connection.send(piece);
  }
}

export interface Meeting {
  readonly connection: TcpConnection;
  readonly outcome: InBandOutcome;
  /** Of both ends, in their order. */
  readonly messages: readonly ClcMessage[];
}

/** We, as a host that the kernel meets. */
export class Host {
  readonly kernel: Kernel;
  readonly device: KernelDevice;
  readonly context: HandshakeContext;
  #port = OUR_PORT;
  #moved = 0;

  constructor(kernel: Kernel) {
    this.kernel = kernel;
    this.device = new KernelDevice(kernel.gid);
    this.context = hosts({ devices: [this.device], ueids: [UEID] }).client.context;
  }

  async connect(has: Partial<HandshakeContext> = {}, passage: Passage = {}): Promise<Meeting> {
    const connection = await this.kernel.tcp.connect(KERNEL_PORT);
    return this.#shakeHands('client', connection, has, passage);
  }

  async accept(has: Partial<HandshakeContext> = {}, passage: Passage = {}): Promise<Meeting> {
    const port = this.#port++;
    const listener = this.kernel.tcp.listen(port);
    this.kernel.connectTo(port);
    return this.#shakeHands('server', await listener.accept(), has, passage);
  }

  async #shakeHands(
    role: 'client' | 'server',
    connection: TcpConnection,
    has: Partial<HandshakeContext>,
    passage: Passage,
  ): Promise<Meeting> {
    const stream = new Stream(connection, this.device, passage);
    const outcome = await new Promise<InBandOutcome>((resolve) => {
      const handshake = new InBandHandshake({ ...this.context, ...has }, stream, (outcome) => {
        unwatch();
        resolve(outcome);
      });
      const look = async () => {
        do await handshake.readable();
        while (stream.showMore());
      };
      const unwatch = connection.watch(() => void look());
      if (role === 'client') handshake.startAsClient();
      else handshake.startAsServer();
      void look();
    });
    if ('parts' in outcome) this.#moved++;
    const { dmbs, attached } = this.device.usage();
    assert.deepEqual([dmbs, attached], [this.#moved, this.#moved], 'a connection that did not move keeps no DMB');
    return { connection, outcome, messages: stream.messages };
  }
}
