/**
 * The ISM layer's contract with its devices, after Linux `dibs` (include/linux/dibs.h).
 *
 * On IBM Z a machine is cut into partitions whose memory cannot be shared by mapping. An ISM device lets two of them talk:
 * the owner registers a buffer, the DMB, for one peer and gets a **token**; the token travels to that peer by other means; with
 * it the peer can *write* into the DMB, never read it, at about the cost of a memcpy. A **signal** can ride on the write.
 * A device is known by its **GID**; devices on one fabric have the same **CHID**.
 *
 * Control operations are asynchronous and may fail for want of resources; moving data is synchronous and never waits.
 * Not taken over from dibs: VLAN ids (deprecated there).
 */
import type { Chid } from './chid.ts';
import type { Client } from './client.ts';
import type { Dmb, DmbRequest, RemoteDmb } from './dmb.ts';
import type { Eid } from './eid.ts';
import { IsmError } from './errors.ts';
import type { IsmEvent } from './events.ts';
import type { Gid } from './gid.ts';
import type { Token } from './token.ts';

/** What a device can do, as data: nobody asks what it is. */
export interface DeviceCapabilities {
  /** How a write gets there: into mapped memory, or by a store that the system carries out. */
  readonly access: 'mapped' | 'store';
  /** Whether a peer can read back what stands in a DMB. */
  readonly peerCanRead: boolean;
  /** DMBs at a time, towards one peer. */
  readonly maxDmbs: number;
  readonly maxDmbBytes: number;
  /** Whether `signalEvent` reaches peers. */
  readonly events: boolean;
}

export interface Device {
  /** Kind of device: 'loopback', 'host', or that of a device from elsewhere. */
  readonly name: string;
  readonly gid: Gid;
  readonly chid: Chid;
  /** System EID, where the machine gives one. */
  readonly seid: Eid | null;
  readonly capabilities: DeviceCapabilities;

  /** Whether this device reaches that peer now. May answer yes for a peer that dies a moment later. */
  queryRemoteGid(gid: Gid): Promise<boolean>;

  /**
   * Makes a DMB for one peer: zeroed, with its pages in place. Lack of memory or room is an error here and never a fault later.
   * Fails with IsmError PEER, NO_DMB, NO_MEMORY, DEVICE_GONE.
   */
  registerDmb(request: DmbRequest): Promise<Dmb>;

  /**
   * The token is dead at return, and no signal for this DMB is delivered any more. A peer that is attached may go on writing
   * without harm to anybody: memory and index are used again, with the next generation, only after it has detached or died
   * (quarantine). Unregistering twice does nothing.
   */
  unregisterDmb(dmb: Dmb): Promise<void>;

  /** Resolves a token that a peer gave us. Fails with IsmError TOKEN for any token that was not registered for this device. */
  attachDmb(token: Token): Promise<RemoteDmb>;

  /** Our last word on that DMB: afterwards operations on it do nothing. Detaching twice does nothing. */
  detachDmb(remote: RemoteDmb): void;

  /**
   * dibs' move_data for callers without an attachment: copies to an offset and signals if told to. No bytes and a signal is
   * legal. Throws IsmError TOKEN, RANGE.
   */
  moveData(token: Token, offset: number, data: Uint8Array, signal: boolean): void;

  /** Tells all clients of the peer's device. Unknown or dead peers are passed over. Only where `capabilities.events`. */
  signalEvent(gid: Gid, code: number, data: bigint): void;

  /** Set by the registry: where events go. */
  setEventListener(listener: (event: IsmEvent) => void): void;

  /** DMBs registered here by one client. */
  dmbsOf(client: Client): number;

  /** What is in use now, for tools and leak tests. */
  usage(): DeviceUsage;

  /** Ends all pairs and gives everything back. Peers see `peer-gone`. */
  close(): Promise<void>;
}

export interface DeviceUsage {
  readonly peers: number;
  /** DMBs registered here. */
  readonly dmbs: number;
  /** DMBs unregistered here, with a peer that has not detached. */
  readonly quarantined: number;
  /** DMBs of peers attached here. */
  readonly attached: number;
  /** Memory given to DMBs, those in quarantine included. */
  readonly bytes: number;
}

/** Checked by every mover, in arithmetic that cannot wrap. */
export function isInRange(lengthBytes: number, offset: number, size: number): boolean {
  return Number.isInteger(offset) && offset >= 0 && offset + size <= lengthBytes;
}

/** As isInRange, for an aligned word of that many bytes. */
export function isWordInRange(lengthBytes: number, offset: number, size: 4 | 8): boolean {
  return isInRange(lengthBytes, offset, size) && offset % size === 0;
}

/** Throws IsmError RANGE unless the wish of a DmbRequest can be met by a device with this limit. */
export function checkDmbLength(lengthBytes: number, maxDmbBytes: number): void {
  if (!Number.isInteger(lengthBytes) || lengthBytes < 1 || lengthBytes > maxDmbBytes) {
    throw new IsmError('ERR_ISTHMUS_RANGE', 'local', `a DMB has 1 to ${maxDmbBytes} bytes, not ${lengthBytes}`);
  }
}

/** The error of a move that leaves its DMB. */
export function outOfRange(offset: number, size: number, lengthBytes: number): IsmError {
  return new IsmError('ERR_ISTHMUS_RANGE', 'local', `${size} bytes at ${offset} leave a DMB of ${lengthBytes} bytes`);
}
