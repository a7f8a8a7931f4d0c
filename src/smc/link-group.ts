/** Link group: what two devices share that have connections with each other; made at the first contact (net/smc/smc_core.c). */
import type { Device, Eid, Gid } from '../ism/index.ts';
import type { Connection } from './connection.ts';
import type { LayoutName } from './layout.ts';

export class LinkGroup {
  /** Opaque to the peer, which has a number of its own; counted in steps of 256 as Linux does. */
  readonly id: number;
  readonly device: Device;
  readonly peer: Gid;
  readonly eid: Eid;
  /** For people. */
  readonly peerHostName: string;
  /** Of the heads of its DMBs. */
  readonly layout: LayoutName;
  readonly connections = new Set<Connection>();

  constructor(id: number, device: Device, peer: Gid, eid: Eid, peerHostName: string, layout: LayoutName) {
    this.id = id;
    this.device = device;
    this.peer = peer;
    this.eid = eid;
    this.peerHostName = peerHostName;
    this.layout = layout;
  }
}

/** All link groups of a partition. */
export class LinkGroups {
  readonly #groups = new Map<string, LinkGroup>();
  #nextId = 0;

  get all(): Iterable<LinkGroup> {
    return this.#groups.values();
  }

  find(device: Device, peer: Gid): LinkGroup | undefined {
    return this.#groups.get(keyOf(device, peer));
  }

  /** A number for a group that is being made. */
  nextId(): number {
    this.#nextId = (this.#nextId + 0x100) >>> 0;
    return this.#nextId;
  }

  /** Takes the place of an older one with the same peer; that one's connections go on. */
  add(group: LinkGroup): void {
    this.#groups.set(keyOf(group.device, group.peer), group);
  }

  /** The peer has gone, or the two ends disagree: the next connection is a first contact. */
  terminate(device: Device, peer: Gid): LinkGroup | undefined {
    const group = this.find(device, peer);
    this.#groups.delete(keyOf(device, peer));
    return group;
  }
}

function keyOf(device: Device, peer: Gid): string {
  return `${device.gid} ${peer}`;
}
