/** A partition of a test, which speaks the fabric's protocol and says what it likes. */
import type { Socket } from 'node:net';
import type { FabricClient } from '../../src/fabric/client.ts';
import type { FabricMessage, MessageByName } from '../../src/fabric/protocol.ts';
import {
  closeFd,
  connectPackets,
  duplicateFd,
  localName,
  netnsCookie,
  peerName,
  socketCookie,
} from '../../src/os/index.ts';
import { eventually } from '../../src/testing/index.ts';
import { joinPatiently, Recorder } from './recorder.ts';

export class RawPartition extends Recorder {
  client!: FabricClient;

  /** Joining alone keeps no program running. */
  async joins(env: NodeJS.ProcessEnv): Promise<this> {
    this.client = await joinPatiently({ thread: 0, program: 'raw' }, this, env);
    return this;
  }

  async hears(expected: Partial<FabricMessage>): Promise<void> {
    await eventually(`${JSON.stringify(expected)} in ${JSON.stringify(this.messages, bigintAsText)}`, () =>
      this.messages.some((one) => Object.entries(expected).every(([key, value]) => Reflect.get(one, key) === value)),
    );
  }

  announce(claim: number, socket: Socket, changes: Partial<MessageByName<'ANNOUNCE'>> = {}): void {
    this.client.send({ ...announcement(claim, socket), ...changes });
  }

  /** And shows it whenever it is asked: who is to show the other end may be slow, and is asked again. */
  holds(claim: number, socket: Socket): void {
    this.#held.set(claim, socket);
    this.announce(claim, socket);
  }
  readonly #held = new Map<number, Socket>();

  override show(claim: number): void {
    super.show(claim);
    const socket = this.#held.get(claim);
    if (socket !== undefined) this.shows(claim, fdOf(socket));
  }

  /** What it is now, whatever becomes of it until that goes out. */
  shows(claim: number, fd: number): void {
    const copy = duplicateFd(fd);
    this.client.show(claim, () => copy);
    setImmediate(() => closeFd(copy));
  }
}

const bigintAsText = (_key: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);
export const fdOf = (socket: Socket) => (socket as unknown as { _handle: { fd: number } })._handle.fd;

/** Whether a fabric can be joined there: the file alone is there a moment before. */
export function isListening(path: string): boolean {
  try {
    closeFd(connectPackets(path));
    return true;
  } catch {
    return false;
  }
}

export function announcement(claim: number, socket: Socket): MessageByName<'ANNOUNCE'> {
  const fd = fdOf(socket);
  const [local, peer] = [localName(fd), peerName(fd)];
  const role = (socket as { server?: unknown }).server ? 1 : 0;
  return { type: 'ANNOUNCE', claim, role, local, peer, netnsCookie: netnsCookie(fd), socketCookie: socketCookie(fd) };
}
