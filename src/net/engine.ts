/**
 * Everything that is needed once a connection could move; loaded then, and not before. Holds what the movers of this thread have in
 * common: the partition, the table for `isthmus ss`, and the guards against whoever reaches below or takes a socket away.
 */
import type { AsyncResource } from 'node:async_hooks';
import type { Socket } from 'node:net';
import { debuglog } from 'node:util';
import { threadId } from 'node:worker_threads';
import { IsthmusError } from '../ism/index.ts';
import { keepFreedMemory } from '../os/index.ts';
import { REASONS, type Reason, withCause } from '../smc/reasons.ts';
import type { Sink } from './below-tls.ts';
import { reasonOfSystem } from './causes.ts';
import { tellChange } from './changes.ts';
import type { CurrentPolicy } from './current-policy.ts';
import { watchEnd } from './ending.ts';
import { bytesOf, COUNTER, type ConnectionInfo, describeSocket, describeUnseen } from './info.ts';
import { type Internals, IS_NODE, internalsOf, testInternals } from './internals.ts';
import { Mover, type Role } from './mover.ts';
import { Partition } from './partition.ts';
import { PassError, type Passing } from './passing.ts';
import { loadsPreload } from './preload.ts';
import { whyNot } from './refusals.ts';
import { subjectOf } from './rules.ts';
import { testByMoving } from './self-test.ts';
import { ConnectionTable, rowText, type TableRow } from './table.ts';

const debug = debuglog('isthmus');
/** How long to wait for the other end when a socket has to be brought back at once. */
const BRING_BACK_MS = 500;

interface Known {
  readonly id: string;
  readonly role: Role;
  readonly mover: Mover | null;
  reason: Reason;
  hasMoved: boolean;
  hasEnded: boolean;
  /** Null where there is no room in the table, and at the end. */
  row: TableRow | null;
}

export class Engine implements Passing {
  readonly #policy: CurrentPolicy;
  readonly #registerUrl: string;
  /** Null as long as nothing can move. */
  #internals: Internals | null = null;
  readonly #known = new WeakMap<Socket, Known>();
  readonly #movers = new Set<Mover>();
  #partition: Partition | null = null;
  #table: ConnectionTable | null = null;
  /** Why nothing moves in this thread. */
  #never: Reason | null = null;
  #nextId = 1;

  /**
   * @param registerUrl of the preload, by which a child that loads it is known
   * @param guardTls makes TLS known that is put on a socket; the reason in words why it cannot be
   */
  static async create(policy: CurrentPolicy, registerUrl: string, guardTls: () => string | null): Promise<Engine> {
    const engine = new Engine(policy, registerUrl);
    await engine.#prepare(guardTls);
    return engine;
  }

  private constructor(policy: CurrentPolicy, registerUrl: string) {
    this.#policy = policy;
    this.#registerUrl = registerUrl;
  }

  async #prepare(guardTls: () => string | null): Promise<void> {
    if (!IS_NODE) {
      this.#never = REASONS.RUNTIME;
      return;
    }
    try {
      this.#partition = await Partition.create(this.#policy.now, (mover) => this.#changed(mover), {
        maxHandshakes: () => this.#policy.look().maxHandshakes,
        forbids: ({ socket, role }) => this.#policy.forbids(subjectOf(socket, role)),
      });
      const internals = testInternals();
      const surprise = typeof internals === 'string' ? internals : ((await testByMoving(internals)) ?? guardTls());
      if (typeof internals === 'string' || surprise !== null) {
        this.#never = withCause(REASONS.INTERNALS, String(surprise));
        debug('%s', this.#never.text);
        return;
      }
      this.#internals = internals;
      keepFreedMemory();
      this.#table = new ConnectionTable();
      this.#partition.statistics = this.#table.statistics;
      process.on('exit', () => {
        for (const mover of this.#movers) mover.exit();
      });
    } catch (error) {
      debug('%s', (error as Error).message);
      this.#never = reasonOfSystem(error);
    }
  }

  /** Why nothing moves in this thread, if so. */
  get never(): Reason | null {
    return this.#never;
  }

  /** Puts a socket on its way, unless it is. */
  start(socket: Socket, role: Role, context: AsyncResource): Mover | null {
    const known = this.#known.get(socket);
    if (known !== undefined) return known.mover;
    if (this.#never !== null) {
      this.#stay(socket, role, this.#never);
      return null;
    }
    const mover = this.#makeMover(socket, role, context);
    mover.start();
    return mover;
  }

  #makeMover(socket: Socket, role: Role, context: AsyncResource): Mover {
    const mover = new Mover(socket, role, this.#partition as Partition, this.#internals as Internals, context);
    this.#movers.add(mover);
    this.#remember(socket, role, mover, mover.reason);
    return mover;
  }

  /**
   * Shakes hands in-band. Null when the program can have the socket, else why the connection has to end.
   * @param refusal why it is to stay on TCP
   */
  async enter(socket: Socket, role: Role, context: AsyncResource, refusal: Reason | null): Promise<Error | null> {
    if (this.#partition === null) {
      const { text, hint } = this.#never ?? REASONS.INTERR;
      return new IsthmusError('ERR_ISTHMUS_IN_BAND', 'system', `no in-band handshake: ${text} (${hint})`);
    }
    const makeMover = () => this.#makeMover(socket, role, context);
    const error = await this.#partition.enterInBand(socket, role, this.#never ?? refusal, makeMover);
    // To be shown as the program sees it.
    if (socket.connecting) socket.prependOnceListener('connect', () => this.#republish(socket));
    return error;
  }

  /** Notes why a socket stays on TCP without having been looked at any closer. */
  #stay(socket: Socket, role: Role, reason: Reason): void {
    this.#remember(socket, role, null, reason);
  }

  #remember(socket: Socket, role: Role, mover: Mover | null, reason: Reason): void {
    const row = this.#table?.addRow() ?? null;
    const id = `${process.pid}.${threadId}.${this.#nextId++}`;
    const known: Known = { id, role, mover, reason, hasMoved: false, hasEnded: false, row };
    this.#known.set(socket, known);
    this.#tell(socket);
    if (this.#table === null) return;
    this.#table.statistics.count('connections', role);
    this.#publish(socket, known);
    watchEnd(socket, () => this.#end(socket, known));
  }

  #end(socket: Socket, known: Known): void {
    if (known.hasEnded) return;
    known.hasEnded = true;
    const counters = this.#countersOf(socket, known);
    this.#table?.atOnce(() => {
      this.#table?.statistics.ended(counters, known.hasMoved ? null : known.reason);
      known.row?.free();
    });
    known.row = null;
    if (known.mover !== null) this.#movers.delete(known.mover);
  }

  #countersOf(socket: Socket, { mover, row }: Known): Float64Array {
    if (mover?.carrier) return mover.carrier.counters;
    // Nobody watches it: what the socket knows, and what had been counted.
    const counters = Float64Array.from(row?.counters ?? new Float64Array(Object.keys(COUNTER).length));
    const { inTcp, inShm, outTcp, outShm } = bytesOf(counters);
    // One that was given to another process knows nothing any more.
    counters[COUNTER.inTcp] = Math.max(inTcp, (socket.bytesRead ?? 0) - inShm);
    counters[COUNTER.outTcp] = Math.max(outTcp, (socket.bytesWritten ?? 0) - outShm);
    return counters;
  }

  #changed(mover: Mover): void {
    const known = this.#known.get(mover.socket);
    if (known === undefined || mover.state === 'ENDED') return;
    known.reason = mover.reason;
    if (!known.hasMoved && mover.movedAtMs !== null) {
      known.hasMoved = true;
      this.#table?.statistics.count('moved', known.role);
    }
    this.#publish(mover.socket, known);
    this.#tell(mover.socket);
  }

  #tell(socket: Socket): void {
    tellChange(socket, (one) => this.info(one));
  }

  #republish(socket: Socket): void {
    const known = this.#known.get(socket);
    if (known !== undefined) this.#publish(socket, known);
  }

  #publish(socket: Socket, { id, mover, reason, row }: Known): void {
    if (row === null) return;
    const carrier = mover?.carrier;
    if (carrier) carrier.counters = row.counters;
    const info = describeSocket(socket, mover, id, reason);
    row.write(rowText(info));
  }

  /** It is being connected anew. */
  forget(socket: Socket): void {
    const known = this.#known.get(socket);
    if (known !== undefined) this.#end(socket, known);
    this.#known.delete(socket);
  }

  knows(socket: Socket): boolean {
    return this.#known.has(socket);
  }

  info(socket: Socket): ConnectionInfo {
    const known = this.#known.get(socket);
    if (known === undefined) return describeUnseen(socket, whyNot(socket) ?? REASONS.YOUNG);
    const { id, mover, reason } = known;
    return { ...describeSocket(socket, mover, id, reason), bytes: bytesOf(this.#countersOf(socket, known)) };
  }

  /** All that have moved, or might. */
  *sockets(): Iterable<Socket> {
    for (const { socket } of this.#movers) yield socket;
  }

  moverOf(socket: Socket): Mover | null {
    return this.#known.get(socket)?.mover ?? null;
  }

  // --- Guards ---

  /** TLS is being put on a socket that is known here: what leads its bytes to a sink; null when it stays on TCP anyway. */
  attachTls(socket: Socket): ((sink: Sink) => void) | null {
    const mover = this.moverOf(socket);
    if (mover === null) return null;
    if (mover.carrier === null) {
      mover.stay(REASONS.TLS);
      return null;
    }
    return (sink) => mover.carrier?.divert(sink);
  }

  giveAway(socket: Socket): Buffer {
    const mover = this.moverOf(socket);
    if (mover === null) return Buffer.alloc(0);
    const unread = mover.bringBackNow(REASONS.GIVENAWAY, BRING_BACK_MS);
    if (unread === null)
      throw new PassError('the other end did not answer in time: the socket cannot be given to another process now');
    this.#watchHandle(socket);
    return unread;
  }

  /** Node.js takes the handle off a socket that was given away, which then ends without a word. */
  #watchHandle(socket: Socket): void {
    const { _handle: handle } = internalsOf(socket);
    if (handle === null) return;
    const { close } = handle;
    const known = this.#known.get(socket);
    handle.close = (closed) => {
      if (known !== undefined) this.#end(socket, known);
      close.call(handle, closed);
    };
  }

  loadsIsthmus(env: readonly string[]): boolean {
    const loads = env.some((pair) => pair.startsWith('NODE_OPTIONS=') && loadsPreload(pair, this.#registerUrl));
    return loads && !env.includes('ISTHMUS_POLICY=off');
  }
}
