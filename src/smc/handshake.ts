/**
 * One handshake, seen from one end: Proposal, Accept, Confirm, or a Decline. What carries the messages is the caller's affair.
 *
 * Over the fabric either end may decline until it is bound (until it says READY): after a Decline that comes late the other end is
 * free as well, since who declines will never cut.
 */
import type { Client, Device, Dmb, Eid, Gid, RemoteDmb } from '../ism/index.ts';
import { type AcceptConfirmV2, type ClcMessage, decodeClc, encodeClc, OS_LINUX, type Proposal } from './clc/index.ts';
import type { ConnectionParts } from './connection.ts';
import { LinkGroup, type LinkGroups } from './link-group.ts';
import {
  type Agreed,
  dmbeSizeCode,
  type Expected,
  isReason,
  makeAnswer,
  makeProposal,
  readAnswer,
  readProposal,
} from './negotiation.ts';
import { declineCode, REASONS, type Reason, reasonOfCode } from './reasons.ts';

export interface HandshakeContext {
  /** In the order in which they are offered. */
  readonly devices: readonly Device[];
  readonly ueids: readonly Eid[];
  /** Is told of signals to the DMBs that are made. */
  readonly client: Client;
  readonly groups: LinkGroups;
  readonly hostName: string;
  /** Wished length of our DMB. */
  readonly dmbBytes: number;
  /** The peer's GID where it is known from elsewhere: no other one is taken. */
  readonly peer: Gid | null;
}

export type HandshakeOutcome =
  | { readonly parts: ConnectionParts; readonly group: LinkGroup }
  /** `byPeer`: the peer declined. */
  | { readonly reason: Reason; readonly byPeer: boolean };

type HandshakeState = 'START' | 'WAIT_ACCEPT' | 'WAIT_PROPOSAL' | 'WAIT_CONFIRM' | 'DONE' | 'FAILED';

export class Handshake {
  readonly #context: HandshakeContext;
  readonly #send: (message: Buffer) => void;
  readonly #finish: (outcome: HandshakeOutcome) => void;
  #state: HandshakeState = 'START';
  /** Messages are worked off one after the other. */
  #work: Promise<void> = Promise.resolve();
  #dmb: { readonly device: Device; readonly dmb: Dmb } | null = null;
  #agreed: Agreed | null = null;
  #peerGid: Gid | null;

  /**
   * @param send takes a message of ours
   * @param finish is called once
   */
  constructor(context: HandshakeContext, send: (message: Buffer) => void, finish: (outcome: HandshakeOutcome) => void) {
    this.#context = context;
    this.#send = send;
    this.#finish = finish;
    this.#peerGid = context.peer;
  }

  get isOver(): boolean {
    return this.#state === 'DONE' || this.#state === 'FAILED';
  }

  startAsClient(): void {
    const { devices, ueids } = this.#context;
    if (devices.length === 0) {
      this.#decline(REASONS.NOSMCDEV);
      return;
    }
    this.#state = 'WAIT_ACCEPT';
    this.#send(encodeClc(makeProposal(devices, ueids)));
  }

  startAsServer(): void {
    this.#state = 'WAIT_PROPOSAL';
  }

  /** A message of the peer, whole. */
  receive(bytes: Buffer): void {
    this.#work = this.#work.then(async () => {
      if (this.isOver) return;
      try {
        await this.#received(decodeClc(bytes));
      } catch (error) {
        this.#decline(reasonOfError(error));
      }
    });
  }

  /** Gives up. The peer is told. */
  cancel(reason: Reason): void {
    if (!this.isOver) this.#decline(reason);
  }

  /** Gives up without a word: there is nobody to hear it. */
  abandon(reason: Reason): void {
    if (!this.isOver) this.#fail({ reason, byPeer: false });
  }

  async #received(message: ClcMessage): Promise<void> {
    if (message.type === 'decline') {
      if (message.outOfSync) this.#desync();
      this.#fail({ reason: reasonOfCode(message.diagnosis), byPeer: true });
    } else if (this.#state === 'WAIT_PROPOSAL' && message.type === 'proposal') {
      await this.#proposed(message);
    } else if (this.#state === 'WAIT_ACCEPT' && message.type === 'accept') {
      await this.#accepted(message);
    } else if (this.#state === 'WAIT_CONFIRM' && message.type === 'confirm') {
      await this.#confirmed(message);
    } else {
      this.#decline(REASONS.PROTOCOL);
    }
  }

  /** Server: choose, register, accept. */
  async #proposed(proposal: Proposal): Promise<void> {
    const { ueids, groups } = this.#context;
    const offer = readProposal(proposal, ueids);
    if (isReason(offer)) {
      this.#decline(offer);
      return;
    }
    const { device, peer } = (await this.#chooseDevice(offer.candidates)) ?? {};
    if (device === undefined || peer === undefined) this.#decline(REASONS.NOSMCD2DEV);
    else if (offer.eid === null) this.#decline(REASONS.NOSMCDDEV);
    else {
      this.#peerGid = peer;
      const dmb = await this.#register(device, peer);
      if (dmb === null) return;
      const group = groups.find(device, peer);
      const firstContact = group === undefined;
      const linkId = group?.id ?? groups.nextId();
      this.#agreed = { device, eid: offer.eid, linkId, firstContact, hostName: this.#context.hostName };
      // Known from here on: the peer may have more connections under way.
      if (firstContact) groups.add(new LinkGroup(linkId, device, peer, offer.eid, ''));
      this.#state = 'WAIT_CONFIRM';
      this.#send(encodeClc(makeAnswer('accept', this.#agreed, dmb)));
    }
  }

  async #chooseDevice(
    candidates: readonly { readonly gid: Gid; readonly chid: number }[],
  ): Promise<{ device: Device; peer: Gid } | null> {
    for (const { gid, chid } of candidates) {
      if (this.#peerGid !== null && gid !== this.#peerGid) continue;
      for (const device of this.#context.devices) {
        if (device.chid === chid && (await device.queryRemoteGid(gid))) return { device, peer: gid };
      }
    }
    return null;
  }

  /** Null when the handshake was given up meanwhile. */
  async #register(device: Device, peer: Gid): Promise<Dmb | null> {
    const dmb = await device.registerDmb({ peer, lengthBytes: this.#context.dmbBytes, client: this.#context.client });
    if (this.isOver) {
      await device.unregisterDmb(dmb);
      return null;
    }
    this.#dmb = { device, dmb };
    return dmb;
  }

  /** Client: check, register, attach, confirm. */
  async #accepted(message: ClcMessage): Promise<void> {
    const { devices, ueids, groups } = this.#context;
    const expected: Expected = { chids: devices.map(({ chid }) => chid), eids: ueids, peer: this.#peerGid };
    const accept = readAnswer(message, 'accept', expected);
    if (isReason(accept)) {
      this.#decline(accept);
      return;
    }
    const device = devices.find(({ chid }) => chid === accept.chid);
    if (device === undefined) throw new Error('an offered CHID has a device');
    this.#peerGid = accept.gid;
    const old = groups.find(device, accept.gid);
    if (!accept.firstContact && old === undefined) {
      this.#decline(REASONS.SYNCERR, true);
      return;
    }
    const { eid, firstContact } = accept;
    const linkId = firstContact || old === undefined ? groups.nextId() : old.id;
    this.#agreed = { device, eid, linkId, firstContact, hostName: this.#context.hostName };
    // At once: the Accept of the next connection counts on it.
    if (firstContact) groups.add(new LinkGroup(linkId, device, accept.gid, eid, accept.fce?.hostName ?? ''));
    const dmb = await this.#register(device, accept.gid);
    if (dmb === null) return;
    const remote = await this.#attach(device, accept);
    if (remote === null) return;
    this.#send(encodeClc(makeAnswer('confirm', this.#agreed, dmb)));
    this.#succeed(device, dmb, remote, accept);
  }

  /** Server: check, attach. */
  async #confirmed(message: ClcMessage): Promise<void> {
    const agreed = this.#agreed;
    const own = this.#dmb;
    if (agreed === null || own === null) throw new Error('a Confirm is waited for after an Accept only');
    const expected: Expected = { chids: [agreed.device.chid], eids: [agreed.eid], peer: this.#peerGid };
    const confirm = readAnswer(message, 'confirm', expected);
    if (isReason(confirm)) this.#decline(confirm);
    else if (confirm.firstContact !== agreed.firstContact) this.#decline(REASONS.PROTOCOL);
    else {
      const remote = await this.#attach(own.device, confirm);
      if (remote !== null) this.#succeed(own.device, own.dmb, remote, confirm);
    }
  }

  /** Null when it came to nothing, which is said already. */
  async #attach(device: Device, answer: AcceptConfirmV2): Promise<RemoteDmb | null> {
    const remote = await device.attachDmb(answer.token);
    if (!this.isOver && dmbeSizeCode(remote.lengthBytes) === answer.dmbeSize) return remote;
    device.detachDmb(remote);
    if (!this.isOver) this.#decline(REASONS.PROTOCOL);
    return null;
  }

  #succeed(device: Device, dmb: Dmb, remote: RemoteDmb, answer: AcceptConfirmV2): void {
    const { groups } = this.#context;
    const { linkId, eid } = this.#agreed as Agreed;
    // It may have been terminated meanwhile, by a peer that was out of step.
    const group = groups.find(device, answer.gid) ?? new LinkGroup(linkId, device, answer.gid, eid, '');
    groups.add(group);
    this.#state = 'DONE';
    this.#finish({ parts: { device, dmb, remote, layout: 'isthmus' }, group });
  }

  /** A link group of which nothing came is freed at once. */
  #forgetFailedFirstContact(): void {
    const agreed = this.#agreed;
    if (!agreed?.firstContact || this.#peerGid === null) return;
    const device = this.#context.devices.find(({ gid }) => gid === agreed.device.gid);
    if (device === undefined) return;
    const group = this.#context.groups.find(device, this.#peerGid);
    if (group?.id === agreed.linkId && group.connections.size === 0)
      this.#context.groups.terminate(device, this.#peerGid);
  }

  #desync(): void {
    if (this.#agreed !== null && this.#peerGid !== null) {
      for (const device of this.#context.devices) this.#context.groups.terminate(device, this.#peerGid);
    }
  }

  #decline(reason: Reason, outOfSync = false): void {
    const code = declineCode(reason);
    this.#send(encodeClc({ type: 'decline', version: 2, diagnosis: code, outOfSync, os: OS_LINUX }));
    this.#fail({ reason, byPeer: false });
  }

  #fail(outcome: HandshakeOutcome): void {
    this.#state = 'FAILED';
    if (this.#dmb !== null) void this.#dmb.device.unregisterDmb(this.#dmb.dmb);
    this.#forgetFailedFirstContact();
    this.#finish(outcome);
  }
}

/** A Decline for an end that has its connection already and does not want it after all. */
export function lateDecline(reason: Reason): Buffer {
  const diagnosis = declineCode(reason);
  return encodeClc({ type: 'decline', version: 2, diagnosis, outOfSync: false, os: OS_LINUX });
}

/** The diagnosis when a message is a Decline. */
export function asDecline(bytes: Buffer): Reason | null {
  try {
    const message = decodeClc(bytes);
    return message.type === 'decline' ? reasonOfCode(message.diagnosis) : null;
  } catch {
    return null;
  }
}

function reasonOfError(error: unknown): Reason {
  const { code } = error as { code?: unknown };
  switch (code) {
    case 'ERR_ISTHMUS_NO_MEMORY':
      return REASONS.MEM;
    case 'ERR_ISTHMUS_NO_DMB':
      return REASONS.MAX_DMB;
    case 'ERR_ISTHMUS_PEER':
    case 'ERR_ISTHMUS_DEVICE_GONE':
      return REASONS.PAIRLOST;
    case 'ERR_ISTHMUS_CLC':
    case 'ERR_ISTHMUS_TOKEN':
      return REASONS.PROTOCOL;
    default:
      return REASONS.INTERR;
  }
}
