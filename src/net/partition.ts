/**
 * A partition: what one event loop shares among its connections. Its place in the fabric, its devices, its link groups, and the
 * way from an announcement to a handshake. Made when the first connection could move; knows the system (os/) from then on.
 */
import type { Socket } from 'node:net';
import { hostname } from 'node:os';
import { debuglog } from 'node:util';
import { HostDevice } from '../devices/host/index.ts';
import { type LoopbackDevice, LoopbackFabric } from '../devices/loopback/index.ts';
import type { FabricListener } from '../fabric/client.ts';
import type { MessageByName } from '../fabric/protocol.ts';
import { type Client, DEFAULT_UEID, type Device, type Dmb, type Gid, type IsmEvent, Registry } from '../ism/index.ts';
import { nextTick, setImmediate } from '../os/event-loop.ts';
import { inTime } from '../os/in-time.ts';
import {
  closeFd,
  openLedger,
  passedBytes,
  resetConnection,
  shutdownBoth,
  testCookies,
  testDoorbell,
  unreadBytes,
  yieldCpu,
} from '../os/index.ts';
import type { ConnectionParts } from '../smc/connection.ts';
import { asDecline, encodeDecline, Handshake, type HandshakeContext, type HandshakeOutcome } from '../smc/handshake.ts';
import { LinkGroups } from '../smc/link-group.ts';
import { REASONS, type Reason } from '../smc/reasons.ts';
import { prefixesOf } from './addresses.ts';
import type { Carrier } from './carrier.ts';
import { reasonOfDecline, reasonOfFabric, reasonOfSilence } from './causes.ts';
import { type Claim, Claims } from './claims.ts';
import { enterInBand } from './in-band.ts';
import { Matches, withMatch } from './matches.ts';
import { Membership } from './membership.ts';
import { type Ground, Mover, type Role } from './mover.ts';
import type { Policy } from './policy.ts';
import { Statistics } from './statistics.ts';
import { UnderWay } from './under-way.ts';

const debug = debuglog('isthmus');

/** As Linux waits for a CLC message. */
const HANDSHAKE_TIMEOUT_MS = 6000;
/** How long the fabric may take to answer, while a peer waits for us. */
const REACH_MS = 2000;
/** After a fabric could not be joined. */
const FIRST_REJOIN_MS = 500;
const LAST_REJOIN_MS = 30_000;

/** The peer does not wait. */
const TOO_MANY_IN_BAND = {
  ...REASONS.HANDSHAKES,
  hint: 'further connections move when fewer are under way; ISTHMUS_MAX_HANDSHAKES allows more',
};
/** What a mover has to do with its peer. */
interface Match {
  /** Null when it was in-band, and is over. */
  readonly handshake: Handshake | null;
  declineLate(reason: Reason): void;
  forget(): void;
}

/** What of the policy may change while connections are made. */
export interface Admission {
  maxHandshakes(): number;
  /** Why this connection is not to move after all. */
  forbids(mover: Mover): Reason | null;
}

export class Partition implements Ground, Client {
  readonly name = 'smc';
  /** Where it counts; memory that others read, once there is a table. */
  statistics = new Statistics();
  readonly #policy: Policy;
  readonly #onChange: (mover: Mover) => void;
  readonly #admission: Admission;
  readonly #registry = new Registry();
  /** As it was at the start, which is what Linux tells, too. */
  readonly #hostName = hostname();
  readonly #groups = new LinkGroups();
  readonly #loopback: LoopbackDevice;
  readonly #matches = new Matches();
  readonly #claims = new Claims();
  readonly #matchOf = new Map<Mover, Match>();
  /** Connections by the pair they use. */
  readonly #moversOf = new Map<Gid, Set<Mover>>();
  /** The pair that a connection uses. */
  readonly #peerOf = new Map<Mover, Gid>();
  /** Movers; of in-band handshakes the sockets. */
  readonly #underWay: UnderWay<Mover | Socket>;
  /** Of the fabric. */
  #isSilent = false;
  #membership: Membership | null = null;
  #joining: Promise<void> | null = null;
  /** Why there is no fabric; until it is tried again. */
  #noFabric: Reason | null = null;
  #rejoinMs = FIRST_REJOIN_MS;
  /** Devices of fabrics that are gone, with connections that go on. */
  readonly #oldDevices = new Set<HostDevice>();
  #lingerTimer: NodeJS.Timeout | undefined;

  /** Resolves when the system can be called; rejects with OsUnavailableError or SystemError. */
  static async create(
    policy: Policy,
    onChange: (mover: Mover) => void,
    admission: Admission = { maxHandshakes: () => policy.maxHandshakes, forbids: () => null },
  ): Promise<Partition> {
    await openLedger();
    testCookies();
    await testDoorbell();
    return new Partition(policy, onChange, admission);
  }

  private constructor(policy: Policy, onChange: (mover: Mover) => void, admission: Admission) {
    this.#policy = policy;
    this.#onChange = onChange;
    this.#admission = admission;
    this.#underWay = new UnderWay(
      () => admission.maxHandshakes(),
      (one) => {
        const claim = one instanceof Mover ? this.#claims.of(one) : undefined;
        if (claim !== undefined) this.#proceed(claim);
      },
    );
    this.#loopback = new LoopbackFabric().createDevice();
    this.#registry.registerClient(this);
    this.#registry.addDevice(this.#loopback);
  }

  /** GID of a mover's end, for people. */
  get gid(): Gid | null {
    return this.#membership?.client.identity.gid ?? null;
  }

  // --- Ground: announcing ---

  announce(mover: Mover): void {
    let claim: Claim;
    try {
      claim = this.#claims.make(mover);
    } catch (error) {
      debug('announce: %s', (error as Error).message);
      mover.stay(REASONS.NOTTCP);
      return;
    }
    this.#proceed(claim);
  }

  /** Unless too much is under way: then when less is. */
  #proceed(claim: Claim): void {
    const { mover } = claim;
    if (this.#underWay.isFull) {
      this.#underWay.hold(mover);
      mover.waitingFor(REASONS.HANDSHAKES);
      return;
    }
    const other = this.#claims.otherEndOf(claim);
    if (other !== null) this.#matchedHere(claim, other);
    else this.#tell(claim);
  }

  #tell(claim: Claim): void {
    const { mover } = claim;
    if (this.#membership !== null) {
      try {
        this.#membership.client.send(claim.announced);
        claim.told = true;
        this.#underWay.announce(mover);
        mover.waitingFor(REASONS.PEERNOSMC);
        this.#membership.client.ping();
      } catch (error) {
        debug('announce: %s', (error as Error).message);
        this.#drop(claim);
        mover.stay(REASONS.FABRICBUSY);
      }
    } else if (this.#noFabric !== null) {
      mover.waitingFor(this.#noFabric);
    } else {
      void this.#joinOnce();
    }
  }

  #joinOnce(): Promise<void> {
    this.#joining ??= this.#join().finally(() => {
      this.#joining = null;
    });
    return this.#joining;
  }

  async #join(): Promise<void> {
    try {
      const { device: counters } = this.statistics;
      const membership = await Membership.join(this.#policy, counters, this.#fabricListener());
      for (const device of membership.devices) {
        device.setMessageListener((peer, bytes) => this.#matches.receive(peer, bytes));
        this.#registry.addDevice(device);
      }
      this.#membership = membership;
      this.#rejoinMs = FIRST_REJOIN_MS;
      for (const claim of this.#claims.all) if (!claim.told) this.#proceed(claim);
      this.#lingerIfUnused();
    } catch (error) {
      debug('fabric: %s', (error as Error).message);
      this.#noFabric = reasonOfFabric(error);
      for (const { mover } of this.#claims.all) mover.waitingFor(this.#noFabric);
      this.#rejoinLater();
    }
  }

  /** As long as somebody waits, less and less often. */
  #rejoinLater(): void {
    setTimeout(() => {
      this.#noFabric = null;
      const { oldest } = this.#claims;
      if (oldest !== undefined) this.#tell(oldest);
    }, this.#rejoinMs).unref();
    this.#rejoinMs = Math.min(2 * this.#rejoinMs, LAST_REJOIN_MS);
  }

  withdraw(mover: Mover): void {
    const claim = this.#claims.of(mover);
    if (claim === undefined) return;
    if (claim.told) this.#membership?.say({ type: 'WITHDRAW', claim: claim.number });
    this.#drop(claim);
  }

  #drop(claim: Claim): void {
    this.#claims.forget(claim);
    this.#underWay.rest(claim.mover);
    this.#lingerIfUnused();
  }

  // --- Ground: the socket ---

  hasForeignOrigin({ fd, traffic }: Carrier, role: Role): boolean {
    const { nativeRead, nativeWritten, nativeQueued } = traffic;
    try {
      const { received, unread, sent } = passedBytes(fd);
      const ownSent = sent - (role === 'client' ? 1 : 0); // without the SYN
      return received - unread !== nativeRead || ownSent !== nativeWritten - nativeQueued;
    } catch (error) {
      debug('origin: %s', (error as Error).message);
      return true;
    }
  }

  isShown(mover: Mover): boolean {
    return this.#claims.of(mover)?.shown ?? false;
  }

  endShown(fd: number, reset: boolean): void {
    try {
      if (reset || unreadBytes(fd) > 0) resetConnection(fd);
      else shutdownBoth(fd);
    } catch (error) {
      debug('ending a shown socket: %s', (error as Error).message);
    }
  }

  changed(mover: Mover): void {
    this.#onChange(mover);
  }

  ended(mover: Mover): void {
    this.#matchOf.get(mover)?.handshake?.decline(REASONS.ENDED);
    this.#forgetMatch(mover);
    this.#leavePairs(mover);
    this.#onChange(mover);
  }

  cancel(mover: Mover, reason: Reason): void {
    this.#matchOf.get(mover)?.handshake?.decline(reason);
  }

  letPeerRun(mover: Mover): void {
    if (mover.group?.device === this.#loopback) this.#loopback.deliverSignals();
    else yieldCpu();
  }

  declineLate(mover: Mover, reason: Reason): void {
    this.#matchOf.get(mover)?.declineLate(reason);
    this.#forgetMatch(mover);
    this.#leavePairs(mover);
  }

  #leavePairs(mover: Mover): void {
    const peer = this.#peerOf.get(mover);
    if (peer !== undefined) {
      this.#peerOf.delete(mover);
      const movers = this.#moversOf.get(peer);
      movers?.delete(mover);
      if (movers?.size === 0) this.#moversOf.delete(peer);
    }
    this.#lingerIfUnused();
  }

  // --- The fabric speaks ---

  #fabricListener(): FabricListener {
    return {
      introduced: (message, fds) => {
        if (this.#membership !== null) this.#membership.introduced(message, fds);
        else for (const fd of fds ?? []) closeFd(fd);
      },
      show: (number) => this.#show(number),
      released: (number) => {
        const claim = this.#claims.get(number);
        if (claim === undefined) return;
        claim.shown = false;
        this.#underWay.rest(claim.mover);
      },
      matched: (message) => this.#matched(message),
      declined: (number, reason) => {
        const claim = this.#claims.get(number);
        if (claim === undefined) return;
        this.#drop(claim);
        const why = reasonOfDecline(reason, this.#membership?.client.identity ?? null);
        // Stopped or busy, and awake now: the other end may still wait.
        if (why !== REASONS.MISMATCH || !claim.mover.again()) claim.mover.stay(why);
      },
      eids: (ueids) => debug('enterprise ids from now on: %s', ueids.join(' ')),
      silent: (isSilent) => {
        if (isSilent !== this.#isSilent) this.#becameSilent(isSilent);
        if (!isSilent) this.#underWay.answered();
      },
      lost: (cause) => this.#lost(cause),
    };
  }

  #becameSilent(isSilent: boolean): void {
    this.#isSilent = isSilent;
    const fabric = this.#membership?.client.identity;
    const silence = fabric === undefined ? REASONS.FABRICSILENT : reasonOfSilence(fabric);
    const reason = isSilent ? silence : REASONS.PEERNOSMC;
    for (const { mover } of this.#claims.all)
      mover.waitingFor(this.#underWay.isHeld(mover) ? REASONS.HANDSHAKES : reason);
  }

  #show(number: number): void {
    const claim = this.#claims.get(number);
    if (claim !== undefined) {
      claim.shown = true;
      this.#underWay.begin(claim.mover);
    }
    try {
      this.#membership?.client.show(number, () => {
        const fd = this.#claims.get(number)?.mover.carrier?.fd ?? -1;
        return fd < 0 ? null : fd;
      });
    } catch (error) {
      debug('SHOWN: %s', (error as Error).message);
    }
  }

  #matched({ claim: number, peer, match, role }: MessageByName<'MATCHED'>): void {
    const claim = this.#claims.get(number);
    const membership = this.#membership;
    if (claim === undefined || membership === null) return;
    this.#claims.forget(claim);
    this.#handshake(claim.mover, membership.deviceFor(peer), peer, match, role === 0 ? 'client' : 'server');
  }

  /** Connections that were being looked at stay on TCP; established ones go on without the fabric. */
  #lost(cause: string): void {
    debug('the fabric is lost: %s', cause);
    const membership = this.#membership;
    this.#membership = null;
    this.#isSilent = false;
    const waiting = this.#claims.all;
    for (const claim of waiting) {
      claim.told = false;
      claim.shown = false;
      claim.mover.waitingFor(REASONS.FABRICLOST);
    }
    for (const { mover } of waiting) this.#underWay.rest(mover);
    for (const device of membership?.devices ?? []) this.#retire(device);
    // It may be back, or be started anew, at once.
    const [first] = waiting;
    if (first !== undefined) this.#tell(first);
  }

  #hasMovers(peer: Gid): boolean {
    return (this.#moversOf.get(peer)?.size ?? 0) > 0;
  }

  /** Of connections that are under way it is not known whose they will be. */
  #isInUse(device: HostDevice, peer: Gid): boolean {
    return !this.#underWay.isEmpty || this.#hasMovers(peer) || !device.isPairIdle(peer);
  }

  /** No new pairs; it is closed when its last connection has ended. */
  #retire(device: HostDevice): void {
    this.#oldDevices.add(device);
    this.#closeIfUnused(device);
  }

  #closeIfUnused(device: HostDevice): void {
    if (device.outlivesPeers || device.peers.some((peer) => this.#isInUse(device, peer))) return;
    this.#oldDevices.delete(device);
    void this.#registry.removeDevice(device);
  }

  /** It may be for us that there is no pair. */
  #whyUnpaired(peer: Gid): Reason {
    return this.#membership?.whyUnpaired(peer) ?? REASONS.PAIRLOST;
  }

  // --- Handshakes ---

  /** Both ends are in this loop. */
  #matchedHere(one: Claim, other: Claim): void {
    for (const claim of [one, other]) {
      if (claim.told) this.#membership?.say({ type: 'WITHDRAW', claim: claim.number });
      this.#claims.forget(claim);
    }
    const [client, server] = one.mover.role === 'client' ? [one.mover, other.mover] : [other.mover, one.mover];
    const ends = new Map<Mover, (message: Buffer) => void>();
    const sendTo = (mover: Mover) => (message: Buffer) => setImmediate(() => ends.get(mover)?.(message));
    for (const [mover, peer, role] of [
      [server, client, 'server'],
      [client, server, 'client'],
    ] as const) {
      const forget = () => ends.delete(mover);
      const handshake = this.#begin(mover, [this.#loopback], this.#loopback.gid, sendTo(peer), forget);
      ends.set(mover, (message) => this.#received(mover, handshake, message));
      if (role === 'client') handshake.startAsClient();
      else handshake.startAsServer();
    }
  }

  #handshake(mover: Mover, device: HostDevice, peer: Gid, number: bigint, role: 'client' | 'server'): void {
    const send = (message: Buffer) => void device.sendMessage(peer, withMatch(number, message));
    const handshake = this.#begin(mover, [device], peer, send, () => this.#matches.forget(peer, number));
    // A server may find the Proposal waiting; a client has to wait until the pair is up.
    if (role === 'server') handshake.startAsServer();
    this.#matches.listen(peer, number, (message) => this.#received(mover, handshake, message));
    void device.queryRemoteGid(peer).then((reachable) => {
      // Why its pair has ended is told in this turn.
      if (!reachable) setImmediate(() => handshake.abandon(this.#whyUnpaired(peer)));
      else if (role === 'client' && !handshake.isOver) handshake.startAsClient();
    });
  }

  #begin(
    mover: Mover,
    devices: readonly Device[],
    peer: Gid,
    send: (message: Buffer) => void,
    forget: () => void,
  ): Handshake {
    mover.matched();
    this.#underWay.begin(mover);
    const context: HandshakeContext = {
      ...this.#ownMeans(),
      devices,
      layouts: ['isthmus'], // the other one knows no way from TCP to the ring
      prefixes: null,
      peer,
      refusal: this.#admission.forbids(mover),
      introduce: async () => {},
    };
    const handshake = new Handshake(context, send, (outcome) => {
      clearTimeout(timer);
      if ('fault' in outcome) {
        debug('handshake: %s', outcome.fault);
        send(encodeDecline(REASONS.PROTOCOL));
      }
      this.#underWay.rest(mover);
      this.#shookHands(mover, outcome);
    });
    const timer = setTimeout(() => handshake.decline(REASONS.TIMEOUT), HANDSHAKE_TIMEOUT_MS);
    timer.unref();
    this.#note(mover, peer, { handshake, declineLate: (reason) => send(encodeDecline(reason)), forget });
    return handshake;
  }

  #ownMeans() {
    return {
      ueids: this.#membership?.client.ueids ?? [DEFAULT_UEID],
      seid: this.#membership?.client.seid ?? null,
      client: this,
      groups: this.#groups,
      hostName: this.#hostName,
      dmbBytes: this.#policy.dmbBytes,
      maxDmbBytes: this.#policy.maxDmbBytes,
    };
  }

  #note(mover: Mover, peer: Gid, match: Match): void {
    const movers = this.#moversOf.get(peer) ?? new Set();
    this.#moversOf.set(peer, movers.add(mover));
    this.#peerOf.set(mover, peer);
    this.#matchOf.set(mover, match);
  }

  #received(mover: Mover, handshake: Handshake, message: Buffer): void {
    if (!handshake.isOver) {
      void handshake.receive(message);
      return;
    }
    this.#declinedLate(mover, message);
  }

  #declinedLate(mover: Mover, message: Buffer): void {
    const decline = asDecline(message);
    if (decline === null) return;
    this.#forgetMatch(mover);
    mover.declined(decline);
  }

  #shookHands(mover: Mover, outcome: HandshakeOutcome): void {
    if ('parts' in outcome) {
      this.statistics.registered(outcome.parts.dmb.lengthBytes);
      mover.connected(outcome.parts, outcome.group);
      return;
    }
    this.#forgetMatch(mover);
    this.#leavePairs(mover);
    const reason = 'fault' in outcome ? REASONS.PROTOCOL : outcome.reason;
    if (reason === REASONS.PROTOCOL || reason === REASONS.TIMEOUT) this.statistics.count('errors', mover.role);
    if (reason !== REASONS.PAIRLOST || !mover.again()) mover.stay(reason);
  }

  #forgetMatch(mover: Mover): void {
    this.#matchOf.get(mover)?.forget();
    this.#matchOf.delete(mover);
  }

  // --- In-band ---

  /**
   * Shakes hands in the TCP stream. Null when the program can have the socket, else why it has to end.
   * @param refusal why nothing is wanted of it
   * @param makeMover for what comes of it
   */
  async enterInBand(socket: Socket, role: Role, refusal: Reason | null, makeMover: () => Mover): Promise<Error | null> {
    const why = refusal ?? (this.#underWay.isFull ? TOO_MANY_IN_BAND : null);
    this.#underWay.begin(socket);
    try {
      const context = await this.#inBandContext(socket, why);
      const error = await enterInBand(socket, role, context, (agreement, decline) => {
        const mover = makeMover();
        if ('parts' in agreement) {
          const { parts, group } = agreement;
          this.statistics.registered(parts.dmb.lengthBytes);
          // Only one end may decline in the TCP stream: the server, after the Confirm.
          const declineLate = role === 'server' ? decline : () => void socket.destroy();
          this.#note(mover, group.peer, { handshake: null, declineLate, forget: () => {} });
          mover.enter(parts, group);
          void mover.until(() => mover.hasEntered).then(() => this.#entered(mover, group.peer, parts));
        } else {
          mover.stay(agreement.reason);
        }
        return mover;
      });
      if (error !== null) this.statistics.count('errors', role);
      return error;
    } finally {
      this.#underWay.rest(socket);
      this.#lingerIfUnused();
    }
  }

  /** From now on what is sent on TCP is the program's. A Decline goes by way of the device, to whom the peer's token names. */
  #entered(mover: Mover, peer: Gid, { device, dmb, remote }: ConnectionParts): void {
    if (this.#matchOf.get(mover) === undefined) return;
    const send = (message: Buffer): void => {
      const bytes = withMatch(remote.token, message);
      if (device instanceof HostDevice) device.sendMessage(peer, bytes);
      else setImmediate(() => this.#matches.receive(peer, bytes));
    };
    const declineLate = (reason: Reason) => send(encodeDecline(reason));
    this.#matchOf.set(mover, {
      handshake: null,
      declineLate,
      forget: () => this.#matches.forget(peer, dmb.token),
    });
    this.#matches.listen(peer, dmb.token, (message) => this.#declinedLate(mover, message));
  }

  async #inBandContext(socket: Socket, refusal: Reason | null): Promise<HandshakeContext> {
    const membership = refusal === null ? await this.#member() : null;
    const devices = membership?.devices ?? [];
    return {
      ...this.#ownMeans(),
      devices: [this.#loopback, ...devices],
      layouts: this.#policy.layout === 'kernel' ? ['kernel'] : ['isthmus', 'kernel'],
      prefixes: prefixesOf(socket.localAddress),
      peer: null,
      introduce: async (peer) => {
        if (membership === null || devices.some((device) => device.peers.includes(peer))) return;
        await inTime(membership.client.reach(peer), REACH_MS); // a fabric that is stopped must not keep the peer waiting
      },
      refusal,
    };
  }

  /** Joins the fabric, if there is one. Who shakes hands in-band can be found there. */
  async #member(): Promise<Membership | null> {
    if (this.#membership === null && this.#noFabric === null) await this.#joinOnce();
    const membership = this.#membership;
    if (membership !== null) await inTime(membership.client.becomeReachable(), REACH_MS);
    return membership;
  }

  // --- Client of the ISM layer ---

  addDevice(): void {}
  removeDevice(): void {}

  handleSignal(_device: Device, dmb: Dmb): void {
    if (!(dmb.clientData instanceof Mover)) return;
    try {
      dmb.clientData.look();
    } catch (error) {
      // Of a listener of the program, whose uncaught exception it is; other connections have their signals all the same.
      nextTick(() => {
        throw error;
      });
    }
  }

  handleEvent(device: Device, event: IsmEvent): void {
    if (event.type !== 'peer-gone') return;
    debug('the pair with %s has ended: %s', event.gid, event.cause);
    this.#groups.terminate(device, event.gid);
    if (this.#membership?.owns(device)) this.#membership.pairEnded(event.gid, event.cause);
    const movers = this.#moversOf.get(event.gid);
    this.#moversOf.delete(event.gid);
    for (const mover of movers ?? []) {
      this.#matchOf.get(mover)?.handshake?.abandon(this.#whyUnpaired(event.gid));
      mover.peerGone();
    }
  }

  // --- Leaving ---

  /** When nothing is announced and a pair has no connection, it ends after a while; the membership in the fabric too. */
  #lingerIfUnused(): void {
    if (this.#lingerTimer !== undefined) return;
    this.#lingerTimer = setTimeout(() => {
      this.#lingerTimer = undefined;
      this.#leaveWhatIsUnused();
    }, this.#policy.lingerMs);
    this.#lingerTimer.unref();
  }

  #leaveWhatIsUnused(): void {
    for (const device of this.#oldDevices) this.#closeIfUnused(device);
    const membership = this.#membership;
    const devices = membership?.devices ?? [];
    for (const device of devices) {
      for (const peer of device.peers) if (!this.#isInUse(device, peer)) device.endPair(peer, 'not in use');
    }
    // The quarantine of a DMB ends without a word to us.
    if ([...this.#oldDevices, ...devices].some(({ peers }) => peers.some((peer) => !this.#hasMovers(peer))))
      this.#lingerIfUnused();
    if (membership === null) return;
    if (this.#claims.size > 0 || !this.#underWay.isEmpty) return;
    if (devices.some(({ peers, outlivesPeers }) => peers.length > 0 || outlivesPeers)) return;
    membership.client.close();
    this.#membership = null;
    for (const device of devices) void this.#registry.removeDevice(device);
  }
}
