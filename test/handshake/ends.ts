/** Two ends of an in-band handshake in one process: for its tests and for `npm run fuzz`. Not a test itself. */
import { LoopbackFabric } from '../../src/devices/loopback/index.ts';
import { type Client, DEFAULT_UEID, type Device } from '../../src/ism/index.ts';
import { type ClcMessage, decodeClc } from '../../src/smc/clc/index.ts';
import type { HandshakeContext } from '../../src/smc/handshake.ts';
import { type ClcStream, InBandHandshake, type InBandOutcome } from '../../src/smc/in-band.ts';
import { LinkGroups } from '../../src/smc/link-group.ts';

const nobody: Client = { name: 'test', addDevice() {}, removeDevice() {}, handleSignal() {}, handleEvent() {} };

/** One end of a TCP connection: what the other one sent and nobody has taken. */
export class Wire implements ClcStream {
  #bytes = Buffer.alloc(0);
  #ended = false;
  /** What has come to this end, in pieces as they were sent. */
  readonly received: Buffer[] = [];
  peer: Wire | null = null;
  /** Is told that something came. */
  onReadable: () => void = () => {};
  /** What becomes of a message on its way here; several pieces come one after the other. */
  transit: (bytes: Buffer) => readonly Buffer[] = (bytes) => [bytes];

  peek(length: number): Buffer | 'end' {
    return this.#ended && this.#bytes.length < length ? 'end' : this.#bytes.subarray(0, length);
  }

  read(length: number): Buffer {
    const bytes = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return bytes;
  }

  send(bytes: Buffer): void {
    this.peer?.deliver(bytes);
  }

  /** Bytes come to this end. */
  deliver(bytes: Buffer): void {
    this.received.push(bytes);
    for (const piece of this.transit(bytes)) {
      setImmediate(() => {
        this.#bytes = Buffer.concat([this.#bytes, piece]);
        this.onReadable();
      });
    }
  }

  /** The other end sends no more. */
  end(): void {
    setImmediate(() => {
      this.#ended = true;
      this.onReadable();
    });
  }

  /** What is left for the program. */
  get rest(): Buffer {
    return this.#bytes;
  }
}

export function wires(): readonly [client: Wire, server: Wire] {
  const [client, server] = [new Wire(), new Wire()];
  client.peer = server;
  server.peer = client;
  return [client, server];
}

/** A device with some of its answers replaced. */
export function variant(device: Device, answers: Partial<Device>): Device {
  return new Proxy(device, {
    get(target, name) {
      const value: unknown = Reflect.get(name in answers ? answers : target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

export interface Host {
  readonly device: Device;
  readonly context: HandshakeContext;
}

/** Two hosts of one fabric. */
export function hosts(
  clientHas: Partial<HandshakeContext> = {},
  serverHas: Partial<HandshakeContext> = {},
): { client: Host; server: Host } {
  const fabric = new LoopbackFabric();
  const host = (has: Partial<HandshakeContext>): Host => {
    const device = fabric.createDevice();
    const context: HandshakeContext = {
      devices: [device],
      ueids: [DEFAULT_UEID],
      seid: null,
      layouts: ['isthmus', 'kernel'],
      prefixes: null,
      client: nobody,
      groups: new LinkGroups(),
      hostName: 'test',
      dmbBytes: 65536,
      maxDmbBytes: 65536,
      peer: null,
      introduce: async () => {},
      refusal: null,
      ...has,
    };
    return { device: context.devices[0] ?? device, context };
  };
  return { client: host(clientHas), server: host(serverHas) };
}

/** A handshake on one end; settled with what it came to. */
export function shakeHands(role: 'client' | 'server', wire: Wire, context: HandshakeContext): Promise<InBandOutcome> {
  return new Promise((resolve) => {
    const handshake = new InBandHandshake(context, wire, resolve);
    wire.onReadable = () => void handshake.readable();
    if (role === 'client') handshake.startAsClient();
    else handshake.startAsServer();
  });
}

export interface Meeting {
  readonly client: InBandOutcome;
  readonly server: InBandOutcome;
  /** All messages of both, in the order of their types. */
  readonly messages: readonly ClcMessage[];
}

/** Both ends. */
export async function meet(
  client: HandshakeContext,
  server: HandshakeContext,
  [clientWire, serverWire] = wires(),
): Promise<Meeting> {
  const ends = [shakeHands('server', serverWire, server), shakeHands('client', clientWire, client)];
  const [atServer, atClient] = (await Promise.all(ends)) as [InBandOutcome, InBandOutcome];
  const [proposal, ...confirm] = serverWire.received;
  const messages = [proposal, ...clientWire.received, ...confirm].filter((bytes) => bytes !== undefined).map(decodeClc);
  return { client: atClient, server: atServer, messages };
}
