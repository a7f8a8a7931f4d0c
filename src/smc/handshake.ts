/**
 * One handshake, seen from one end: Proposal, Accept, Confirm, or a Decline. What carries the messages is the caller's affair: the
 * channel of a pair (net/partition.ts), or the TCP connection itself (in-band.ts).
 *
 * Either end may decline until it is bound (until it says READY in the DMB's head): after a Decline that comes late the other end is
 * free as well, since who declines will never cut. With the kernel's layout a client is bound by its Confirm.
 */
import { type Client, type Device, type Dmb, type Eid, type Gid, IsmError, type RemoteDmb } from '../ism/index.ts';
import {
  type AcceptConfirm,
  type AcceptConfirmV2,
  type ClcMessage,
  type ClcVersion,
  ClcWireError,
  type Decline,
  decodeClc,
  encodeClc,
  OS_LINUX,
  type Proposal,
} from './clc/index.ts';
import type { ConnectionParts } from './connection.ts';
import { PeerFault } from './errors.ts';
import { LinkGroup, type LinkGroups } from './link-group.ts';
import {
  type Agreed,
  type DeviceName,
  dmbeSizeCode,
  isReason,
  layoutOf,
  type Means,
  makeAnswer,
  makeProposal,
  type Offer,
  OWN_FEATURES,
  readAccept,
  readConfirm,
  readProposal,
  SMALLEST_DMBE_BYTES,
} from './negotiation.ts';
import { declineCode, REASONS, type Reason, reasonOfCode } from './reasons.ts';

export interface HandshakeContext extends Means {
  readonly devices: readonly Device[];
  /** Is told of signals to the DMBs that are made. */
  readonly client: Client;
  readonly groups: LinkGroups;
  readonly hostName: string;
  /** Wished length of our DMB. */
  readonly dmbBytes: number;
  /** See ConnectionParts. */
  readonly maxDmbBytes: number;
  /** The peer's GID where it is known from elsewhere: no other one is taken. */
  readonly peer: Gid | null;
  /** Makes a peer reachable that was not yet, where that can be. */
  readonly introduce: (peer: Gid) => Promise<void>;
  /** Why this end does not want it, whatever the other one offers. */
  readonly refusal: Reason | null;
}

export type HandshakeOutcome =
  | { readonly parts: ConnectionParts; readonly group: LinkGroup }
  /** `byPeer`: the peer declined. */
  | { readonly reason: Reason; readonly byPeer: boolean }
  /** The peer broke the protocol, and was told nothing. */
  | { readonly fault: string };

export type HandshakeState = 'START' | 'WAIT_ACCEPT' | 'WAIT_PROPOSAL' | 'WAIT_CONFIRM' | 'DONE' | 'FAILED';

export class Handshake {
  readonly #context: HandshakeContext;
  readonly #send: (message: Buffer) => void;
  readonly #finish: (outcome: HandshakeOutcome) => void;
  #state: HandshakeState = 'START';
  /** Messages are worked off one after the other. */
  #work: Promise<void> = Promise.resolve();
  #dmb: { readonly device: Device; readonly dmb: Dmb } | null = null;
  #agreed: (Agreed & { readonly device: Device }) | null = null;
  #peerGid: Gid | null;
  /** Of our Decline: that of the peer's message. */
  #version: ClcVersion = 2;

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

  get state(): HandshakeState {
    return this.#state;
  }

  get isOver(): boolean {
    return this.#state === 'DONE' || this.#state === 'FAILED';
  }

  startAsClient(): void {
    const { devices, refusal } = this.#context;
    const why = refusal ?? (devices.length === 0 ? REASONS.NOSMCDEV : null);
    if (why !== null) {
      if (devices.length === 0) this.#version = 1;
      this.decline(why);
      return;
    }
    this.#state = 'WAIT_ACCEPT';
    this.#send(encodeClc(makeProposal(this.#context)));
  }

  startAsServer(): void {
    this.#state = 'WAIT_PROPOSAL';
  }

  /** A message of the peer, whole. Settled when it was worked off. */
  receive(bytes: Buffer): Promise<void> {
    this.#work = this.#work.then(async () => {
      if (this.isOver) return;
      try {
        await this.#received(decodeClc(bytes));
      } catch (error) {
        if (this.isOver) return;
        if (error instanceof ClcWireError || error instanceof PeerFault) this.#fail({ fault: error.message });
        else this.decline(reasonOfError(error));
      }
    });
    return this.#work;
  }

  /** Gives up. The peer is told. */
  decline(reason: Reason, outOfSync = false): void {
    if (this.isOver) return;
    this.#send(encodeDecline(reason, this.#version, outOfSync));
    this.#fail({ reason, byPeer: false });
  }

  /** Gives up without a word: there is nobody to hear it. */
  abandon(reason: Reason): void {
    if (!this.isOver) this.#fail({ reason, byPeer: false });
  }

  async #received(message: ClcMessage): Promise<void> {
    if (message.type === 'decline') this.#declined(message);
    else if (this.#state === 'WAIT_PROPOSAL' && message.type === 'proposal') await this.#proposed(message);
    else if (this.#state === 'WAIT_ACCEPT' && message.type === 'accept') await this.#accepted(message);
    else if (this.#state === 'WAIT_CONFIRM' && message.type === 'confirm') await this.#confirmed(message);
    else throw new PeerFault(`${message.type} in state ${this.#state}`);
  }

  #declined({ outOfSync, diagnosis }: Decline): void {
    if (outOfSync && this.#agreed !== null && this.#peerGid !== null) {
      this.#context.groups.terminate(this.#agreed.device, this.#peerGid);
    }
    this.#fail({ reason: reasonOfCode(diagnosis), byPeer: true });
  }

  /** Server: choose, register, accept. The first reason of a candidate that came to nothing is the one that is told. */
  async #proposed(proposal: Proposal): Promise<void> {
    this.#version = proposal.version;
    const { refusal } = this.#context;
    if (refusal !== null) {
      this.decline(refusal);
      return;
    }
    const offer = readProposal(proposal, this.#context);
    const reachable = await this.#reachable(offer.candidates ?? []);
    let why = offer.candidates !== null && reachable.length === 0 ? REASONS.NOSMCD2DEV : null;
    for (const { device, peer } of reachable) {
      if (this.isOver || offer.eid === null) break;
      try {
        if (await this.#tryToAccept(offer, offer.eid, device, peer)) return;
      } catch (error) {
        why ??= reasonOfError(error);
      }
    }
    this.decline(why ?? offer.otherwise);
  }

  /** By the client's order of preference, then by ours. */
  async #reachable(candidates: readonly DeviceName[]): Promise<{ device: Device; peer: Gid }[]> {
    const { devices, introduce } = this.#context;
    const found: { device: Device; peer: Gid }[] = [];
    for (const { gid, chid } of candidates) {
      if (this.#peerGid !== null && gid !== this.#peerGid) continue;
      const fitting = devices.filter((device) => device.chid === chid);
      if (fitting.length > 0) await introduce(gid);
      for (const device of fitting) {
        if (!(await device.queryRemoteGid(gid))) continue;
        found.push({ device, peer: gid });
        break;
      }
    }
    return found;
  }

  async #tryToAccept({ release, layout }: Offer, eid: Eid, device: Device, peer: Gid): Promise<boolean> {
    const { groups, hostName } = this.#context;
    const dmb = await this.#register(device, peer);
    if (dmb === null) return true; // given up meanwhile
    this.#peerGid = peer;
    const group = groups.find(device, peer);
    const firstContact = group?.layout !== layout;
    const linkId = firstContact ? groups.nextId() : group.id;
    this.#agreed = { device, eid, linkId, firstContact, release, featureMask: OWN_FEATURES, layout };
    // Known from here on: the peer may have more connections under way.
    if (firstContact) groups.add(new LinkGroup(linkId, device, peer, eid, '', layout));
    this.#state = 'WAIT_CONFIRM';
    this.#send(encodeClc(makeAnswer('accept', this.#agreed, dmb, hostName)));
    return true;
  }

  /** Of the wished length, or the next smaller one for which there is memory. Null when the handshake was given up meanwhile. */
  async #register(device: Device, peer: Gid, lengthBytes = this.#context.dmbBytes): Promise<Dmb | null> {
    let dmb: Dmb;
    try {
      dmb = await device.registerDmb({ peer, lengthBytes, client: this.#context.client });
    } catch (error) {
      const isTooMuch = (error as { code?: unknown }).code === 'ERR_ISTHMUS_NO_MEMORY';
      if (!isTooMuch || lengthBytes <= SMALLEST_DMBE_BYTES) throw error;
      return this.#register(device, peer, lengthBytes / 2);
    }
    if (this.isOver) {
      await device.unregisterDmb(dmb);
      return null;
    }
    this.#dmb = { device, dmb };
    return dmb;
  }

  /** Client: check, register, attach, confirm. */
  async #accepted(message: AcceptConfirm): Promise<void> {
    this.#version = message.version;
    const accept = readAccept(message, this.#context);
    if (isReason(accept)) {
      this.decline(accept);
      return;
    }
    const { gid, eid, firstContact, fce } = accept;
    if (this.#peerGid !== null && gid !== this.#peerGid) throw new PeerFault('an Accept with another GID');
    this.#peerGid = gid;
    const [{ device } = {}] = await this.#reachable([accept]);
    if (device === undefined) {
      this.decline(REASONS.NOSMCD2DEV);
      return;
    }
    const { groups, hostName } = this.#context;
    const old = groups.find(device, gid);
    if (!firstContact && old === undefined) {
      this.decline(REASONS.SYNCERR, true);
      return;
    }
    const group = fce === null ? old : new LinkGroup(groups.nextId(), device, gid, eid, fce.hostName, layoutOf(fce));
    if (group === undefined) throw new Error('without first contact there is a group, with it an extension');
    const featureMask = (fce?.v21?.featureMask ?? 0) & OWN_FEATURES;
    const { id: linkId, layout } = group;
    this.#agreed = { device, eid, linkId, firstContact, release: fce?.release ?? 0, featureMask, layout };
    // At once: the Accept of the next connection counts on it.
    groups.add(group);
    const dmb = await this.#register(device, gid);
    if (dmb === null) return;
    const remote = await this.#attach(device, accept);
    if (remote === null) return;
    this.#send(encodeClc(makeAnswer('confirm', this.#agreed, dmb, hostName)));
    this.#succeed(dmb, remote);
  }

  /** Server: check, attach. */
  async #confirmed(message: AcceptConfirm): Promise<void> {
    const agreed = this.#agreed;
    const own = this.#dmb;
    const peer = this.#peerGid;
    if (agreed === null || own === null || peer === null)
      throw new Error('a Confirm is waited for after an Accept only');
    const confirm = readConfirm(message, agreed, peer);
    if (isReason(confirm)) {
      this.decline(confirm);
      return;
    }
    if (confirm.token === own.dmb.token) throw new PeerFault('a Confirm with our own token');
    const remote = await this.#attach(own.device, confirm).catch((error: Error) => {
      throw new PeerFault(error.message); // the client is up already, as far as it knows
    });
    if (remote !== null) this.#succeed(own.dmb, remote);
  }

  /** Null when it came to nothing, which is said already. */
  async #attach(device: Device, answer: AcceptConfirmV2): Promise<RemoteDmb | null> {
    const remote = await device.attachDmb(answer.token).catch(async (error: Error) => {
      const peer = this.#peerGid;
      if (peer === null || (await device.queryRemoteGid(peer))) throw error;
      throw new IsmError('ERR_ISTHMUS_PEER', 'system', `the peer ${peer} is gone`);
    });
    // One element, which is all of the DMB.
    const isAsSaid = dmbeSizeCode(remote.lengthBytes) === answer.dmbeSize && answer.dmbeIndex === 0;
    if (!this.isOver && isAsSaid) return remote;
    device.detachDmb(remote);
    if (!this.isOver) throw new PeerFault('a DMB of another size than was said');
    return null;
  }

  #succeed(dmb: Dmb, remote: RemoteDmb): void {
    const { groups, maxDmbBytes } = this.#context;
    const { device, linkId, eid, layout } = this.#agreed as Agreed & { device: Device };
    const peer = this.#peerGid as Gid;
    // It may have been terminated meanwhile, by a peer that was out of step.
    const group = groups.find(device, peer) ?? new LinkGroup(linkId, device, peer, eid, '', layout);
    groups.add(group);
    this.#state = 'DONE';
    this.#finish({ parts: { device, dmb, remote, layout, maxDmbBytes }, group });
  }

  /** A link group of which nothing came is freed at once. */
  #forgetFailedFirstContact(): void {
    const agreed = this.#agreed;
    if (!agreed?.firstContact || this.#peerGid === null) return;
    const { groups } = this.#context;
    const group = groups.find(agreed.device, this.#peerGid);
    if (group?.id === agreed.linkId && group.connections.size === 0) groups.terminate(agreed.device, this.#peerGid);
  }

  #fail(outcome: HandshakeOutcome): void {
    this.#state = 'FAILED';
    if (this.#dmb !== null) void this.#dmb.device.unregisterDmb(this.#dmb.dmb);
    this.#dmb = null;
    this.#forgetFailedFirstContact();
    this.#finish(outcome);
  }
}

/** A Decline of ours; also from an end that has its connection already and does not want it after all. */
export function encodeDecline(reason: Reason, version: ClcVersion = 2, outOfSync = false): Buffer {
  const diagnosis = declineCode(reason);
  return encodeClc({ type: 'decline', version, diagnosis, outOfSync, os: version === 1 ? 0 : OS_LINUX });
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
    case 'ERR_ISTHMUS_TOKEN': // as Linux, which has no code for it
      return REASONS.MEM;
    case 'ERR_ISTHMUS_NO_DMB':
      return REASONS.MAX_DMB;
    case 'ERR_ISTHMUS_PEER':
    case 'ERR_ISTHMUS_DEVICE_GONE':
      return REASONS.PAIRLOST;
    default:
      return REASONS.INTERR;
  }
}
