/**
 * One connection on its way to shared memory and back: from the first look at the socket to its end. What has to be asked of others
 * (the fabric, the other end) goes through Ground; what happens to bytes is the Carrier's and the Connection's.
 */
import type { AsyncResource } from 'node:async_hooks';
import type { Socket } from 'node:net';
import { debuglog } from 'node:util';
import { now, setImmediate } from '../os/event-loop.ts';
import { type Connection, type ConnectionParts, giveBack, openConnection } from '../smc/connection.ts';
import type { LinkGroup } from '../smc/link-group.ts';
import { REASONS, type Reason } from '../smc/reasons.ts';
import { Carrier, type CarrierListener } from './carrier.ts';
import { type Internals, putBack } from './internals.ts';
import { allowTransfer, refuseTransfer } from './passing.ts';
import { isConsumed, unconsume, whyNot } from './refusals.ts';

const debug = debuglog('isthmus');

/** What a mover needs of its partition. */
export interface Ground {
  /** Tells the fabric what this end holds; the answer is `matched` (a handshake follows) or `stay`. */
  announce(mover: Mover): void;
  /** The announcement is void. */
  withdraw(mover: Mover): void;
  /** Ends the handshake; `stay` follows. */
  cancel(mover: Mover, reason: Reason): void;
  /** Lets the other end work, if it is in this very loop; else waits a moment for it. */
  letPeerRun(mover: Mover): void;
  /** Tells the peer that we do not want the connection after all. */
  declineLate(mover: Mover, reason: Reason): void;
  /** The socket is closing. True while a descriptor of it is elsewhere: it has to be ended by other means than close. */
  isShown(mover: Mover): boolean;
  endShown(fd: number, reset: boolean): void;
  /** Bytes that another process has read or written on this socket: then counters of the two ends would not agree. */
  hasForeignOrigin(carrier: Carrier, role: Role): boolean;
  /** State, reason or counters have changed. */
  changed(mover: Mover): void;
  ended(mover: Mover): void;
}

export type MoverState =
  /** Waits for the first byte. */
  | 'WATCHING'
  /** Told, or being told, to the fabric. */
  | 'ANNOUNCED'
  /** Matched; the CLC handshake is under way. */
  | 'HANDSHAKE'
  /** Has an SMC connection; each direction moves by itself. */
  | 'CONNECTED'
  /** Stays on TCP. */
  | 'STAYS'
  | 'ENDED';

export type Role = 'client' | 'server';

/** How long a moved connection may outlive its peer's partition before it is reset: TCP tells of a death itself, and sooner. */
const ORPHAN_MS = 10_000;
/** The end of TCP comes in a moment, and where it is not read nobody else tells of it. */
const KEPT_MS = 100;
const FIRST_LOOK_BELOW_MS = 20;
const LAST_LOOK_BELOW_MS = 60_000;

export class Mover {
  readonly socket: Socket;
  readonly role: Role;
  readonly #ground: Ground;
  readonly #internals: Internals;
  readonly #context: AsyncResource;
  #carrier: Carrier | null = null;
  /** The one it had when it was closed. */
  #ended: Connection | null = null;
  #state: MoverState = 'WATCHING';
  #reason: Reason = REASONS.NOBYTE;
  #group: LinkGroup | null = null;
  /** The program wants this connection on TCP. */
  #wantsTcp = false;
  /** The peer has given the connection up: so do we, as soon as everything is on TCP. */
  #leavesFor: Reason | null = null;
  #movedAtMs: number | null = null;
  #toldDmbBytes = 0;
  #waiting: { readonly until: () => boolean; readonly resolve: () => void }[] = [];
  #orphanTimer: NodeJS.Timeout | undefined;

  constructor(socket: Socket, role: Role, ground: Ground, internals: Internals, context: AsyncResource) {
    this.socket = socket;
    this.role = role;
    this.#ground = ground;
    this.#internals = internals;
    this.#context = context;
  }

  get state(): MoverState {
    return this.#state;
  }
  get reason(): Reason {
    return this.#reason;
  }
  get carrier(): Carrier | null {
    return this.#carrier;
  }
  get connection(): Connection | null {
    return this.#carrier?.connection ?? this.#ended;
  }
  get group(): LinkGroup | null {
    return this.#group;
  }
  get movedAtMs(): number | null {
    return this.#movedAtMs;
  }

  /** At least one direction goes through shared memory. */
  get isMoved(): boolean {
    const connection = this.connection;
    if (connection === null || this.#state !== 'CONNECTED') return false;
    return connection.out.isMoved || connection.in.isFromRing;
  }

  /** Both directions do. */
  get isWhollyMoved(): boolean {
    const connection = this.connection;
    return this.#state === 'CONNECTED' && connection !== null && connection.out.isMoved && connection.in.isFromRing;
  }

  // --- Towards shared memory ---

  /**
   * Announces the socket, if a byte has passed: nothing is watched before there is another end, since many have none. Else it is
   * watched for the first byte.
   */
  start(): void {
    const why = whyNot(this.socket);
    if (why !== null) {
      this.stay(why);
      return;
    }
    const carrier = this.#putCarrier();
    if (carrier.traffic.nativeRead + carrier.traffic.nativeWritten > 0) {
      this.#announce();
      return;
    }
    const unfit = this.#watch(carrier);
    if (unfit !== null) this.stay(unfit);
  }

  #watch(carrier: Carrier): Reason | null {
    const why = this.#whyNotNow(carrier);
    if (why !== null) return why;
    carrier.watch();
    this.#lookBelow(FIRST_LOOK_BELOW_MS);
    return null;
  }

  #putCarrier(): Carrier {
    const listener: CarrierListener = {
      passed: () => this.#passed(),
      closing: (reset) => this.#closing(reset),
      closed: () => this.#closed(),
      changed: () => this.#advance(),
      failed: (error) => this.#failed(error),
    };
    this.#carrier = new Carrier(this.socket, this.#internals, listener, this.#context);
    return this.#carrier;
  }

  /** The handshake was in the TCP stream, before any byte of the program. */
  enter(parts: ConnectionParts, group: LinkGroup): void {
    const carrier = this.#putCarrier();
    carrier.watch();
    carrier.hasPassed = true;
    refuseTransfer(this.socket);
    this.#state = 'HANDSHAKE';
    this.connected(parts, group);
  }

  /** After `enter`: the peer is bound, or never will be. */
  get hasEntered(): boolean {
    return this.#state !== 'CONNECTED' || this.connection === null || this.connection.out.wasOffered;
  }

  /** What C++ reads and writes tells nobody: asked for now and then, as long as no byte passes through JavaScript. */
  #lookBelow(delayMs: number): void {
    setTimeout(() => {
      const carrier = this.#carrier;
      if (carrier === null || carrier.hasPassed || carrier.isClosed) return;
      const why = carrier.hasForeignBytes ? this.#whyNotNow(carrier) : null;
      if (why !== null) this.leave(why);
      else this.#lookBelow(Math.min(2 * delayMs, LAST_LOOK_BELOW_MS));
    }, delayMs).unref();
  }

  /** Called from inside a read or write of the program. */
  #passed(): void {
    if (this.#state === 'CONNECTED') this.#advance();
    else if (this.#state === 'WATCHING') setImmediate(() => this.#announce());
  }

  #announce(): void {
    const carrier = this.#carrier;
    if (carrier === null || this.#state !== 'WATCHING') return;
    const why = carrier.isWatching ? this.#whyNotNow(carrier) : whyNot(this.socket, carrier.overrides);
    if (why !== null) {
      this.stay(why);
      return;
    }
    // Once: what the fabric sends to prove the connection counts in the kernel as well.
    if (!this.#isOurs && this.#ground.hasForeignOrigin(carrier, this.role)) {
      this.stay(REASONS.PASSEDON);
      return;
    }
    this.#isOurs = true;
    this.#state = 'ANNOUNCED';
    this.#setReason(REASONS.PEERNOSMC);
    this.#ground.announce(this);
  }

  /** Something is known of why the announcement has come to nothing yet. */
  waitingFor(reason: Reason): void {
    if (this.#state === 'ANNOUNCED') this.#setReason(reason);
  }

  /** It came to nothing on the way to a handshake, which is no reason for good: once more. */
  again(): boolean {
    if ((this.#state !== 'ANNOUNCED' && this.#state !== 'HANDSHAKE') || this.#triedAgain) return false;
    this.#triedAgain = true;
    this.#state = 'WATCHING';
    this.#announce();
    return true;
  }
  #triedAgain = false;
  /** All bytes of the connection have passed through this process. */
  #isOurs = false;

  /** Proven: the other end is known, and the handshake begins. */
  matched(): void {
    if (this.#state !== 'ANNOUNCED' || this.#carrier === null) return;
    this.#state = 'HANDSHAKE';
    this.#setReason(REASONS.CHECKING);
    this.#watch(this.#carrier); // what speaks against it is looked at once more in the end
  }

  /** The handshake has come to its end. What it made is ours to give back. */
  connected(parts: ConnectionParts, group: LinkGroup): void {
    const carrier = this.#carrier;
    const why = this.#state !== 'HANDSHAKE' || carrier === null ? REASONS.ENDED : this.#whyNotNow(carrier);
    if (why !== null || carrier === null) {
      giveBack(parts);
      this.#ground.declineLate(this, why ?? REASONS.ENDED);
      this.stay(why ?? REASONS.ENDED);
      return;
    }
    const connection = openConnection(parts, carrier.traffic.nativeRead);
    parts.dmb.clientData = this;
    this.#group = group;
    group.connections.add(connection);
    this.#state = 'CONNECTED';
    carrier.carry(connection);
    this.look();
  }

  #whyNotNow(carrier: Carrier): Reason | null {
    const why = whyNot(this.socket, carrier.overrides);
    if (why !== null) return why;
    if (!isConsumed(this.socket)) return carrier.hasForeignBytes ? REASONS.NATIVE : null;
    // The http server's parser has taken the handle since.
    if (!unconsume(this.socket)) return REASONS.NATIVE;
    carrier.traffic.rebase();
    return null;
  }

  /** Signalled: the peer has stored something. */
  look(): void {
    this.#carrier?.look();
  }

  /** Takes the next step that is possible now. Called after everything that may have made one possible. */
  #advance(): void {
    const carrier = this.#carrier;
    const connection = carrier?.connection;
    if (carrier === null || !connection || this.#state !== 'CONNECTED') return;
    if (!this.#wantsTcp && carrier.hasPassed) {
      if (carrier.isPlain && carrier.hasForeignBytes) {
        this.#walkAway(REASONS.NATIVE);
        return;
      }
      connection.in.arm();
      carrier.cut();
    }
    this.#leaveIfPlain();
    this.#told();
  }

  /** Keeps what is shown of this connection true, and wakes who waits for a change. */
  #told(): void {
    const moved = this.isMoved;
    if (moved && this.#movedAtMs === null) this.#movedAtMs = Date.now();
    if (moved) this.#setReason(REASONS.MOVED);
    else if (this.#state === 'CONNECTED') this.#setReason(this.#wantsTcp ? REASONS.RESTORED : REASONS.AGREED);
    const bytes = this.connection?.dmbBytes ?? 0;
    if (bytes !== this.#toldDmbBytes) {
      this.#toldDmbBytes = bytes;
      this.#ground.changed(this);
    }
    this.#wake();
  }

  #setReason(reason: Reason): void {
    if (reason === this.#reason) return;
    this.#reason = reason;
    this.#ground.changed(this);
  }

  // --- Back ---

  /** Before either end is bound: gives the connection up and leaves the socket as it was. */
  #walkAway(reason: Reason): void {
    this.#ground.declineLate(this, reason);
    this.#dissolve();
    this.stay(reason);
  }

  /** The peer declined after the handshake: it will neither cut nor honour a cut. */
  declined(reason: Reason): void {
    const connection = this.connection;
    if (this.#state !== 'CONNECTED' || connection === null) return;
    try {
      connection.in.neverCut();
    } catch (error) {
      this.#failed(error as Error);
      return;
    }
    if (connection.out.isMoved || connection.in.state === 'MOVED') {
      this.#failed(new Error('a Decline after the cut'));
      return;
    }
    // What stands in our ring before BACK is still ours to read.
    this.#wantsTcp = true;
    this.#leavesFor = reason;
    this.#leaveIfPlain();
  }

  #leaveIfPlain(): void {
    if (this.#leavesFor === null || !this.isBack) return;
    this.#dissolve();
    this.stay(this.#leavesFor);
  }

  /** Gives the SMC connection back. Everything is on TCP. */
  #dissolve(): void {
    const connection = this.connection;
    if (connection === null) return;
    this.#group?.connections.delete(connection);
    this.#carrier?.release();
    this.#carrier = null;
    connection.close(false);
    connection.release();
  }

  /** It stays on TCP, for this reason. */
  stay(reason: Reason): void {
    if (this.#state === 'ENDED') return;
    if (this.#state === 'ANNOUNCED') this.#ground.withdraw(this);
    this.#state = 'STAYS';
    if (this.#carrier !== null && this.#carrier.connection === null) {
      this.#carrier.release();
      this.#carrier = null;
    }
    this.#setReason(reason);
    this.#wake();
  }

  /** Starts over, for a connection that stayed on TCP for a reason that has gone. */
  retry(): void {
    this.#wantsTcp = false;
    if (this.#state === 'STAYS') {
      this.#state = 'WATCHING';
      this.start();
    } else {
      this.#advance();
    }
  }

  /** Brings both directions back to TCP. Settled when they are, the connection has ended, or there is no way back. */
  async restore(): Promise<void> {
    if (this.connection?.canGoBack === false) return;
    this.#wantsTcp = true;
    if (this.#state === 'ANNOUNCED' || this.#state === 'WATCHING') this.stay(REASONS.RESTORED);
    this.#bringBack();
    await this.until(
      () => this.#state === 'STAYS' || this.#state === 'ENDED' || (this.#state === 'CONNECTED' && this.isBack),
    );
  }

  #bringBack(): void {
    const connection = this.connection;
    if (connection === null || this.#state !== 'CONNECTED') return;
    try {
      connection.in.retract();
    } catch (error) {
      this.#failed(error as Error);
      return;
    }
    this.#carrier?.back();
  }

  /** Gives up what was begun, for good. False when an end is bound already. */
  leave(reason: Reason): boolean {
    if (this.#state === 'CONNECTED') {
      if (!this.#carrier?.isPlain) return false;
      this.#walkAway(reason);
    } else if (this.#state === 'HANDSHAKE') {
      this.#ground.cancel(this, reason);
    } else {
      this.stay(reason);
    }
    return true;
  }

  /**
   * Brings both directions back before it returns, and takes everything off the socket. Gives the bytes that were received
   * and not handed to the program; null when the other end did not answer in time, or there is no way back.
   */
  bringBackNow(reason: Reason, timeoutMs: number): Buffer | null {
    // What was held while the ring was read is still to be handed on, though all is on TCP.
    if ((this.#state !== 'CONNECTED' || this.isBack) && this.leave(reason)) return Buffer.alloc(0);
    if (this.connection?.canGoBack === false) return null;
    const carrier = this.#carrier as Carrier;
    carrier.isHolding = true;
    this.#wantsTcp = true;
    this.#bringBack();
    const chunks: Buffer[] = [];
    for (const end = now() + timeoutMs; ; this.#ground.letPeerRun(this)) {
      carrier.look();
      if (this.#state !== 'CONNECTED') return null;
      chunks.push(carrier.drain());
      if (carrier.leavesRestToTcp) break;
      if (now() > end) {
        carrier.isHolding = false;
        putBack(this.socket, Buffer.concat(chunks));
        return null;
      }
    }
    this.#walkAway(reason);
    return Buffer.concat(chunks);
  }

  /** Both directions are on TCP, nothing is promised and nothing is held. */
  get isBack(): boolean {
    const carrier = this.#carrier;
    return carrier === null || (carrier.isPlain && carrier.unread === 0);
  }

  /** At the exit of the process. */
  exit(): void {
    this.#carrier?.exit();
  }

  // --- The end ---

  #closing(reset: boolean): void {
    const carrier = this.#carrier;
    if (carrier !== null && this.#ground.isShown(this)) this.#ground.endShown(carrier.fd, reset);
  }

  #closed(): void {
    clearTimeout(this.#orphanTimer);
    const connection = this.connection;
    if (connection !== null) {
      this.#group?.connections.delete(connection);
      connection.release();
    }
    this.#ended = connection;
    allowTransfer(this.socket);
    if (this.#state === 'ANNOUNCED') this.#ground.withdraw(this);
    if (this.#state !== 'CONNECTED' && this.#state !== 'STAYS') this.#reason = REASONS.ENDED;
    this.#state = 'ENDED';
    this.#ground.ended(this);
    this.#wake();
  }

  /** The peer broke a rule. Bound ends cannot go on; others never needed it. */
  #failed(error: Error): void {
    if (this.#state === 'ENDED') return;
    const carrier = this.#carrier;
    debug('%s', error.message);
    this.#reason = REASONS.PROTOCOL;
    this.#ground.changed(this);
    if (carrier === null) return;
    if (carrier.isPlain) this.#walkAway(REASONS.PROTOCOL);
    else carrier.reset();
  }

  /** The peer's partition has gone. If it died, TCP tells in a moment. */
  peerGone(): void {
    const carrier = this.#carrier;
    const connection = this.connection;
    if (this.#state === 'HANDSHAKE') {
      this.stay(REASONS.PAIRLOST);
      return;
    }
    if (carrier === null || connection === null || this.#state !== 'CONNECTED') return;
    this.look(); // what was said last
    carrier.lookAtTcp();
    // Bytes of ours that it left unread are lost: the connection cannot go on, and TCP will tell of its end or we do.
    if (connection.out.unconsumed === 0) {
      connection.out.back();
      carrier.settle();
      try {
        connection.in.neverCut();
      } catch {
        // It broke a rule in its last words: the timer ends it.
      }
      if (this.isBack) {
        this.#dissolve();
        this.stay(REASONS.PAIRLOST);
        return;
      }
    }
    this.#watchOrphan(carrier, connection);
  }

  /**
   * What has come is read first, however long the program takes; then TCP's end is shown, or we make one. None once TCP's was: what
   * there is to say yet goes by TCP, and fails there.
   */
  #watchOrphan(carrier: Carrier, connection: Connection): void {
    const isKept = carrier.isTcpKept;
    this.#orphanTimer = setTimeout(
      () => {
        if (this.#state !== 'CONNECTED') return;
        if (isKept) {
          carrier.lookAtTcp();
          this.#watchOrphan(carrier, connection);
          return;
        }
        if (carrier.isEndShown && connection.out.unconsumed === 0) return;
        if (carrier.hasMoreToShow) this.#watchOrphan(carrier, connection);
        else carrier.reset();
      },
      isKept ? KEPT_MS : ORPHAN_MS,
    );
    this.#orphanTimer.unref();
  }

  // --- Waiting ---

  /** Settled once something holds; it is asked after every change. */
  until(holds: () => boolean): Promise<void> {
    if (holds()) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ until: holds, resolve }));
  }

  #wake(): void {
    if (this.#waiting.length === 0) return;
    this.#waiting = this.#waiting.filter(({ until, resolve }) => {
      if (!until()) return true;
      resolve();
      return false;
    });
  }
}
