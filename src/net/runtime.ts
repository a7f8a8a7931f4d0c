/**
 * What this thread's copies of Isthmus share, under a versioned symbol: loading the preload twice, or two copies of the package, is
 * harmless. It watches sockets being born and loads the engine when the first of them could move.
 */
import { AsyncResource } from 'node:async_hooks';
import { subscribe } from 'node:diagnostics_channel';
import { type Server, Socket } from 'node:net';
import { IsthmusError } from '../ism/errors.ts';
import { watchWorkers } from '../os/workers.ts';
import { MORE_DESCRIPTORS, REASONS, type Reason, withCause } from '../smc/reasons.ts';
import { canBeLocal, destinations } from './addresses.ts';
import { forgetTls } from './below-tls.ts';
import type { Carrier } from './carrier.ts';
import { tellChange } from './changes.ts';
import { CurrentPolicy } from './current-policy.ts';
import type { Engine } from './engine.ts';
import { type Detour, holdClient, holdServers } from './holding.ts';
import { type ConnectionInfo, describeUnseen } from './info.ts';
import { hasOnread, IS_NODE, internalsOf, watchReuse } from './internals.ts';
import { type Lender, setLender } from './lender.ts';
import type { Role } from './mover.ts';
import { guardPassing } from './passing.ts';
import { forgetRefusals, givenAway, whyNot } from './refusals.ts';
import { SELF, subjectOf } from './rules.ts';
import { guardTls, leadClient, leadTo, lowest, prepareConnections, type Wrapping, watchTlsClient } from './wrapping.ts';
import { type Newborn, Nursery } from './young.ts';

/** Changes when what is shared changes its meaning. */
const SHARED = Symbol.for('isthmus.runtime.1');

export class Runtime {
  readonly #policy: CurrentPolicy;
  readonly #registerUrl: string;
  readonly #nursery: Nursery;
  /** Old enough, while the engine is being loaded. */
  readonly #grown = new Set<Socket>();
  /** Sockets that are not to be looked at any closer: their peer cannot be of this host, or the policy does not want them. */
  readonly #left = new WeakMap<Socket, Reason>();
  /** That shake hands in-band, whatever the policy says. */
  readonly #inBandServers = new WeakSet<Server>();
  readonly #inBandClients = new WeakSet<Socket>();
  /** Sockets that did. */
  readonly #entered = new WeakSet<Socket>();
  #engine: Engine | null = null;
  #loading: Promise<Engine | null> | null = null;
  /** Why the engine could not be loaded, if so. */
  #unloaded: Reason | null = null;
  /** What takes back what was put on a client until it is connected. */
  readonly #undo = new WeakMap<Socket, () => void>();
  #watching = false;
  #guarded = false;

  constructor(registerUrl: string) {
    this.#registerUrl = registerUrl;
    this.#policy = new CurrentPolicy(process.env, (text) => process.emitWarning(text, 'IsthmusWarning'));
    // Under another policy a connection is old enough as soon as it is looked at.
    const enough = () => (this.#policy.now.mode === 'lazy' ? this.#policy.now : { lazyBytes: 0, lazyMs: 0 });
    this.#nursery = new Nursery(enough, (one) => this.#consider(one));
  }

  /** Watches all sockets of the program from now on. @param isInBand it asked for in-band handshakes: also where the policy is off */
  watchAll(isInBand = false): void {
    const { isOffForGood, isInBandByEnvironment } = this.#policy;
    if (this.#watching || !((IS_NODE && !isOffForGood) || isInBandByEnvironment || isInBand)) return;
    this.#watching = true;
    if (isInBandByEnvironment) this.#holdServers();
    subscribe('net.server.socket', (message) => this.#born((message as { socket: Socket }).socket, 'server'));
    if (IS_NODE) prepareConnections(this.#wrapping);
    watchWorkers();
    this.#guard();
  }

  /** Not the channel net.client.socket: on Node.js 20 it says nothing of `new Socket().connect()`. */
  #patchConnect(): void {
    const connect = Socket.prototype.connect;
    const connecting = (socket: Socket, args: unknown[]) => this.#connecting(socket, args);
    const begun = (socket: Socket, args: unknown[]) => this.#begun(socket, args);
    const patched = function (this: Socket, ...args: unknown[]): Socket {
      connecting(this, args);
      const result = Reflect.apply(connect, this, args) as Socket;
      begun(this, args);
      return result;
    };
    Object.defineProperty(patched, 'name', { value: connect.name });
    Object.defineProperty(patched, 'length', { value: connect.length });
    Socket.prototype.connect = patched as typeof connect;
  }

  #connecting(socket: Socket, args: unknown[]): void {
    if (isOver(socket)) this.#forget(socket);
    if (!this.#watching) return;
    this.#enterClient(socket, args);
    if (isTls(socket) && IS_NODE) watchTlsClient(socket, this.#wrapping);
  }

  #begun(socket: Socket, args: unknown[]): void {
    if (!this.#watching || isTls(socket)) return;
    if (IS_NODE) leadClient(socket, args, this.#wrapping);
    this.#born(socket, 'client');
  }

  /** How TLS and HTTP/2 are put on sockets. */
  readonly #wrapping: Wrapping = {
    attach: (socket) => {
      if (this.#never !== null) return null;
      if (this.#engine?.knows(socket)) return this.#engine.attachTls(socket);
      const isWanted = this.#wants(socket.remoteAddress) && this.#decide(socket, this.roleOf(socket)) === null;
      return isWanted && !hasOnread(socket) ? leadTo(socket) : null;
    },
    leads: (tls, address, port) =>
      this.#never === null &&
      // An in-band handshake comes before TLS, on the handle of the TLSSocket itself.
      !this.#inBandClients.has(tls) &&
      this.#wants(address) &&
      this.#policy.decide({ direction: 'connect', address, port, who: SELF }).reason === null,
    leadsAccepted: (socket) => this.#wants(socket.remoteAddress) && this.#decide(socket, 'server') === null,
    leadsClient: (args) => {
      const { addresses, port } = destinations(args, this.#policy.now.local) ?? { addresses: [], port: 0 };
      const may = (address: string) =>
        this.#policy.decide({ direction: 'connect', address, port, who: SELF }).reason === null;
      return addresses.some(may);
    },
    accepting: () => {
      if (this.#holding || this.#policy.now.inBand === null) return false;
      this.#holdServers();
      return true;
    },
    connected: (socket) => this.#born(socket, 'client'),
  };

  #wants(address: string | undefined): boolean {
    return canBeLocal(address, this.#policy.now.local);
  }

  #decide(socket: Socket, role: Role): Reason | null {
    return this.#policy.decide(subjectOf(socket, role)).reason;
  }

  /** Whether the policy keeps this socket on TCP although its program asks for it; what is said of it tells why. */
  forbids(socket: Socket, role: Role): boolean {
    this.#policy.look();
    const why = this.#policy.forbids(subjectOf(socket, role));
    if (why !== null && !this.#engine?.knows(socket)) this.#leave(socket, why);
    return why !== null;
  }

  /** Sockets that are given to other processes: every child has to be known from its beginning. */
  #guard(): void {
    if (this.#guarded) return;
    this.#guarded = true;
    this.#patchConnect();
    guardPassing(
      () => this.#engine,
      () => this.#sockets(),
    );
  }

  /** All that have moved, or might. */
  *#sockets(): Iterable<Socket> {
    yield* this.#nursery.sockets();
    yield* this.#grown;
    if (this.#engine !== null) yield* this.#engine.sockets();
  }

  /** As if the socket had been born here. */
  attach(socket: Socket, role: Role): void {
    this.#guard();
    this.#attached.set(socket, role);
    this.#born(socket, role);
  }
  readonly #attached = new WeakMap<Socket, Role>();

  /** Of the end that a socket is. */
  roleOf(socket: Socket): Role {
    return this.#attached.get(socket) ?? (internalsOf(socket).server ? 'server' : 'client');
  }

  #born(socket: Socket, role: Role): void {
    // Nobody else looks at the file then.
    if (this.#policy.now.mode === 'off' && this.#policy.look().mode === 'off') {
      this.#left.set(socket, this.#policy.off);
      return;
    }
    if (role === 'client') watchReuse(internalsOf(socket)._handle);
    const one: Newborn = { socket, role, context: this.contextOf(role) };
    if (this.#policy.now.mode !== 'eager') this.#nursery.add(one);
    else if (socket.connecting) this.#considerConnected(one);
    else this.#consider(one);
  }

  #considerConnected(one: Newborn): void {
    const consider = () => this.#consider(one);
    one.socket.prependOnceListener('connect', consider);
    this.#toUndo(one.socket, () => one.socket.off('connect', consider));
  }

  #toUndo(socket: Socket, undo: () => void): void {
    const before = this.#undo.get(socket);
    this.#undo.set(socket, () => {
      before?.();
      undo();
    });
  }

  /** What is known of a socket that has ended is not true of the connection that it will be next. */
  #forget(socket: Socket): void {
    this.#undo.get(socket)?.();
    this.#nursery.forget(socket);
    for (const set of [this.#undo, this.#left, this.#inBandClients, this.#entered]) set.delete(socket);
    forgetRefusals(socket);
    forgetTls(socket);
    setLender(socket, null);
    this.#engine?.forget(socket);
  }

  /** Where listeners of a socket that is born now belong, as on TCP: a client's in the context of `connect`, a server's in none. */
  contextOf(role: Role): AsyncResource {
    return role === 'client' ? new AsyncResource('ISTHMUS') : this.#noContext;
  }
  /** That of the program's start, in which this is loaded. */
  readonly #noContext = new AsyncResource('ISTHMUS');

  /** Old enough: is it of this host, and wanted? */
  #consider({ socket, role, context }: Newborn): void {
    if (this.#entered.has(socket)) return;
    this.#policy.look();
    if (!this.#wants(socket.remoteAddress)) {
      this.#left.set(socket, REASONS.NOTLOCAL);
      return;
    }
    const why = this.#decide(socket, role);
    if (why !== null) {
      this.#leave(socket, why);
      return;
    }
    if (this.#unloaded !== null) return;
    this.#grown.add(socket);
    this.#withEngine((engine) => {
      this.#grown.delete(socket);
      if (!socket.destroyed && !socket.connecting) engine.start(socket, role, context);
    });
  }

  #leave(socket: Socket, reason: Reason): void {
    this.#left.set(socket, reason);
    tellChange(socket, (one) => this.info(one));
  }

  // --- In-band ---

  /** Connections that this server accepts shake hands in-band. */
  useInBand(server: Server): void {
    this.#inBandServers.add(server);
    this.#holdServers();
  }

  #holdServers(): void {
    if (this.#holding) return;
    this.#holding = true;
    const isWanted = (server: Server, { localAddress, localPort }: Socket) =>
      localAddress !== undefined &&
      (this.#inBandServers.has(server) || this.#policy.now.inBand?.has(localAddress, localPort) === true);
    holdServers(isWanted, this.#detour('server', this.contextOf('server')));
  }
  #holding = false;

  #enterClient(socket: Socket, args: unknown[]): void {
    const isAsked = handshakeOf(args) === 'in-band';
    if (!isAsked && this.#policy.now.inBand === null) return;
    this.#inBandClients.add(socket);
    // A Unix socket has no address.
    const isWanted = () =>
      socket.remoteAddress !== undefined &&
      (isAsked || this.#policy.now.inBand?.has(socket.remoteAddress, socket.remotePort) === true);
    const restore = holdClient(socket, isWanted, this.#detour('client', this.contextOf('client')));
    this.#toUndo(socket, restore);
  }

  #detour(role: Role, context: AsyncResource): Detour {
    return async (socket) => {
      this.#entered.add(socket);
      this.#policy.look();
      const refusal = this.#decide(socket, role) ?? whyNot(socket);
      const { remoteAddress, remotePort } = socket;
      try {
        const engine = await this.engine();
        const error = engine === null ? this.#notInBand() : await engine.enter(socket, role, context, refusal);
        // The program of a client is told by an error.
        if (error !== null && role === 'server') this.#warn(`${remoteAddress}:${remotePort}`, error);
        return error;
      } catch (error) {
        return error as Error;
      }
    };
  }

  #notInBand(): Error {
    return new IsthmusError('ERR_ISTHMUS_IN_BAND', 'system', `no in-band handshake: ${this.#unloaded?.text}`);
  }

  /** Once: most often one end was not told, and then there are many. */
  #warn(peer: string, { message, cause }: Error): void {
    if (this.#warned) return;
    this.#warned = true;
    const why = cause instanceof Error ? cause.message : message;
    process.emitWarning(
      `the connection from ${peer} did not come about: ${why}. Were both ends told to shake hands in-band? Further ones are not mentioned`,
      'IsthmusWarning',
    );
  }
  #warned = false;

  /** At once when the engine is there. */
  #withEngine(use: (engine: Engine) => void): void {
    if (this.#engine !== null) use(this.#engine);
    else void this.engine().then((engine) => engine !== null && use(engine));
  }

  /** Null when it cannot be loaded: then nothing moves in this thread. */
  engine(): Promise<Engine | null> {
    this.#guard();
    this.#loading ??= this.#load();
    return this.#loading;
  }

  async #load(): Promise<Engine | null> {
    try {
      const { Engine } = await import('./engine.ts');
      this.#engine = await Engine.create(this.#policy, this.#registerUrl, () => guardTls(this.#wrapping));
    } catch (error) {
      const [why] = String((error as Error).message).split('\n');
      const hint = ['EMFILE', 'ENFILE'].includes(String((error as NodeJS.ErrnoException).code))
        ? MORE_DESCRIPTORS
        : 'the program has to be able to read the package as long as it runs, also as another user';
      this.#grown.clear();
      this.#unloaded = withCause(REASONS.SYSTEM, `the package cannot be read: ${why}`, hint);
    }
    return this.#engine;
  }

  /** What carries the bytes of this very socket now, if something does. */
  carrierOf(socket: Socket): Carrier | null {
    return this.#engine?.moverOf(socket)?.carrier ?? null;
  }

  /** From now on what the socket gets through a ring waits for this lender, also when it moves later; null: it goes to the stream. */
  lend(socket: Socket, lender: Lender | null): void {
    setLender(socket, lender);
    this.carrierOf(socket)?.lend(lender);
  }

  /** Why nothing moves in this thread, if that is known. */
  get #never(): Reason | null {
    return this.#unloaded ?? this.#engine?.never ?? null;
  }

  info(program: Socket): ConnectionInfo {
    const socket = lowest(program);
    if (this.#engine?.knows(socket)) return this.#engine.info(socket);
    return describeUnseen(socket, this.#whyUnseen(socket));
  }

  #whyUnseen(socket: Socket): Reason {
    if (!IS_NODE) return REASONS.RUNTIME;
    if (this.#unloaded !== null) return this.#unloaded;
    if (socket.destroyed) return REASONS.ENDED;
    const kind = internalsOf(socket)._handle?.constructor.name;
    if (socket.pending || kind === 'Pipe') return REASONS.NOTTCP;
    const why = this.#left.get(socket) ?? (this.#policy.now.mode === 'off' ? this.#policy.off : null);
    if (why !== null || kind !== 'TLSWrap') return why ?? REASONS.YOUNG;
    // A client of TLS that was not led away from its handle: nobody looks at it again.
    if (!this.#wants(socket.remoteAddress)) return REASONS.NOTLOCAL;
    return this.#decide(socket, 'client') ?? REASONS.TLS;
  }
}

function isTls(socket: Socket): boolean {
  return (socket as { encrypted?: boolean }).encrypted === true;
}

/** Whether this is no connection any more: closed, or another process has it. */
function isOver(socket: Socket): boolean {
  return socket.destroyed || (givenAway.has(socket) && internalsOf(socket)._handle === null);
}

/** The option of that name, of whomever's `connect`: Node.js hands its options on in an array. */
export function handshakeOf([first]: readonly unknown[]): unknown {
  const options: unknown = Array.isArray(first) ? first[0] : first;
  return typeof options === 'object' && options !== null ? Reflect.get(options, 'handshake') : undefined;
}

/** The one runtime of this thread. @param registerUrl of the preload that belongs to the caller's copy of the package */
export function sharedRuntime(registerUrl: string): Runtime {
  const shared = globalThis as { [SHARED]?: Runtime };
  shared[SHARED] ??= new Runtime(registerUrl);
  return shared[SHARED];
}
