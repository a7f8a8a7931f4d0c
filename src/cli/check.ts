/** One connection to a server, and what is found out about its other end: the steps of `isthmus chk`. */
import { subscribe } from 'node:diagnostics_channel';
import { lookup } from 'node:dns/promises';
import { statSync } from 'node:fs';
import { isIP, type Socket } from 'node:net';
import { findFabric } from '../fabric/client.ts';
import { fabricPlaces } from '../fabric/locate.ts';
import { askStatus, readStatus } from '../fabric/status.ts';
import { canBeLocal } from '../net/addresses.ts';
import { CurrentPolicy } from '../net/current-policy.ts';
import { type ConnectionInfo, type Endpoint, formatEndpoint } from '../net/info.ts';
import { REASONS, type Reason, withCause } from '../smc/reasons.ts';
import { type FoundFabric, findingOf } from './local.ts';
import { holdersOf, namespaceOf, type Process, readProcess, userName, userText, whyNoTable } from './processes.ts';
import { hasTable, readTables } from './rows.ts';
import { listenersAt, otherEnd, plainAddress, tcpSockets } from './sockets.ts';
import type { Finding, Step } from './steps.ts';

/** For a server that speaks first, or to have looked at a connection under lazy. */
const MOMENT_MS = 1000;
const LOOK_MS = 20;
export const EXAMPLE = `--send 'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'`;

const pause = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms));

async function until(holds: () => boolean, timeoutMs: number): Promise<boolean> {
  for (const end = performance.now() + timeoutMs; !holds(); await pause(LOOK_MS))
    if (performance.now() > end) return false;
  return true;
}

const failed = (reason: Reason, cause: string, hint?: string): Finding => ({ failed: withCause(reason, cause, hint) });

/** One connection to the server, and what is found out about its other end. */
export class Check {
  readonly #host: string;
  readonly #port: number;
  readonly #bytes: Buffer | null;
  readonly #timeoutMs: number;
  #fabric: FoundFabric | null = null;
  #address = '';
  #socket: Socket | null = null;
  #info: ((socket: Socket) => ConnectionInfo) | null = null;
  #accelerate: (() => Promise<ConnectionInfo>) | null = null;
  #error: Error | null = null;
  /** Null when it cannot be told. */
  #process: Process | null = null;
  #client: ConnectionInfo | null = null;
  #server: ConnectionInfo | null = null;

  constructor(host: string, port: number, bytes: Buffer | null, timeoutMs: number) {
    this.#host = host;
    this.#port = port;
    this.#bytes = bytes;
    this.#timeoutMs = timeoutMs;
  }

  readonly meets = (fabric: FoundFabric): void => {
    this.#fabric = fabric;
  };

  steps(): Step[] {
    return [
      { name: 'address', look: () => this.#lookUp() },
      { name: 'connection', look: () => this.#connect() },
      { name: 'server', look: () => this.#findServer() },
      { name: 'isthmus', look: () => this.#isLoaded() },
      { name: 'its policy', look: () => this.#itsPolicy() },
      { name: 'its fabric', look: () => this.#itsFabric() },
      { name: 'a byte', look: () => this.#passByte() },
      ...STAGES.map((name, stage) => ({ name, look: () => this.#stage(stage) })),
    ];
  }

  /** What was seen of the two ends. */
  end(): { readonly client: ConnectionInfo | null; readonly server: ConnectionInfo | null } {
    this.#socket?.end();
    this.#socket?.destroySoon();
    return { client: this.#client, server: this.#server };
  }

  async #lookUp(): Promise<Finding> {
    const asIs = isIP(this.#host.split('%')[0] ?? '') !== 0;
    let all: string[];
    try {
      all = asIs ? [this.#host] : (await lookup(this.#host, { all: true })).map(({ address }) => address);
    } catch (error) {
      return failed(
        REASONS.NOTTCP,
        `${this.#host} has no address (${(error as NodeJS.ErrnoException).code})`,
        'see that the name is right',
      );
    }
    const { local: others } = new CurrentPolicy(process.env).now;
    const local = all.filter((address) => canBeLocal(address, others));
    if (local.length === 0) return failed(REASONS.NOTLOCAL, all.join(', '));
    // The first at which somebody listens: a server may have one of them only.
    const sockets = tcpSockets();
    this.#address =
      local.find((address) => listenersAt(sockets, { address, port: this.#port }).length > 0) ?? (local[0] as string);
    return `${this.#address}${asIs ? '' : ` (${this.#host})`} may be of this host`;
  }

  async #connect(): Promise<Finding> {
    process.env.ISTHMUS_POLICY = 'eager';
    const { accelerate, connect, info } = await import('../index.ts');
    const socket = connect({ host: this.#address, port: this.#port });
    this.#socket = socket;
    this.#info = info;
    this.#accelerate = () => accelerate(socket, { role: 'client', timeoutMs: this.#timeoutMs });
    socket.on('error', (error) => (this.#error ??= error)).resume();
    // Every change, also of a connection that the server closes at once. What is said after its end is not about its move.
    subscribe('isthmus:connection', (message) => {
      const { socket: which, info } = message as { socket: Socket; info: ConnectionInfo };
      if (which === socket && this.#client?.mode !== 'SMC-D') this.#client = info;
    });
    if (!(await until(() => !socket.connecting || this.#error !== null, this.#timeoutMs)))
      return failed(
        REASONS.NOTTCP,
        'the server did not accept it in time',
        'is it stopped? --timeout SECONDS waits longer',
      );
    if (this.#error !== null) return this.#refused(this.#error);
    return `${formatEndpoint(this.#ends.local)} to ${formatEndpoint(this.#ends.peer)}`;
  }

  #refused({ message, ...rest }: Error): Finding {
    const { code } = rest as { code?: string };
    if (code !== 'ECONNREFUSED') return failed(REASONS.NOTTCP, message, inBandHint(message));
    const others = tcpSockets().filter(({ isListening, local }) => isListening && local.port === this.#port);
    const elsewhere = others.map(({ local }) => formatEndpoint(local)).join(', ');
    const what = `nobody listens at ${formatEndpoint({ address: this.#address, port: this.#port })}`;
    if (others.length > 0)
      return failed(REASONS.NOTTCP, `${what}, but at ${elsewhere}`, `try isthmus chk ${elsewhere}`);
    return failed(REASONS.NOTTCP, what, 'start the server, or see that the port is right');
  }

  get #ends(): { readonly local: Endpoint; readonly peer: Endpoint } {
    const { localAddress = '', localPort = 0, remoteAddress = '', remotePort = 0 } = this.#socket ?? {};
    return { local: { address: localAddress, port: localPort }, peer: { address: remoteAddress, port: remotePort } };
  }

  /** Notes how the two ends stand; of a connection that has ended, how they stood. */
  #see(): void {
    const { local, peer } = this.#ends;
    const socket = this.#socket as Socket;
    this.#client ??= this.#info?.(socket) ?? null;
    if (this.#process === null) return;
    const is = (one: Endpoint | null, other: Endpoint) =>
      one !== null && one.port === other.port && plainAddress(one.address) === plainAddress(other.address);
    const { rows } = readTables(String(this.#process.pid));
    this.#server = rows.find((row) => is(row.local, peer) && is(row.peer, local)) ?? this.#server;
  }

  async #findServer(): Promise<Finding> {
    const { local, peer } = this.#ends;
    let end = otherEnd(tcpSockets(), local, peer);
    await until(() => {
      end = otherEnd(tcpSockets(), local, peer);
      return end === null || end.inode !== 0;
    }, MOMENT_MS);
    if (end === null)
      return {
        note: 'no socket of this network namespace is its other end: it is in a container, or behind a translated address',
      };
    if (end.inode === 0) {
      const [listener] = listenersAt(tcpSockets(), peer);
      const [pid] = holdersOf(listener?.inode ?? -1);
      const who = pid === undefined ? 'the server' : `process ${pid}`;
      return failed(
        REASONS.TIMEOUT,
        `${who} has not accepted the connection yet`,
        'is it stopped, or very busy? Try again when it answers',
      );
    }
    const [pid, ...more] = holdersOf(end.inode);
    this.#process = pid === undefined ? null : readProcess(pid);
    if (this.#process === null)
      return { note: `a process of ${userText(end.uid)}; which one can be seen by that user and root` };
    if (more.length > 0)
      return failed(
        REASONS.SHARED,
        `processes ${[pid, ...more].join(', ')} hold its socket`,
        'have all but one of them close it',
      );
    const { uid, command, env } = this.#process;
    const text = `process ${pid} of ${userText(uid)}: ${command}`;
    return env === null ? { note: `${text}; what is loaded there can be seen by that user and root` } : text;
  }

  async #isLoaded(): Promise<Finding> {
    const server = this.#process;
    if (server?.env == null) return { note: 'whether it is loaded there will be seen' };
    const { pid, program, preload, command } = server;
    if (preload !== null || hasTable(pid)) return `loaded in process ${pid}`;
    if (program !== null && !NODES.test(program))
      return failed(
        REASONS.PEERNOSMC,
        `${program} (process ${pid}) is no Node.js program`,
        'nothing helps: Isthmus is for programs of Node.js',
      );
    // A program may have it from the package, and load what shows it now.
    if (await until(() => hasTable(pid), MOMENT_MS)) return `loaded in process ${pid}, by the program itself`;
    return failed(
      REASONS.PEERNOSMC,
      `Isthmus is not loaded in process ${pid}`,
      `start it anew with Isthmus: \`isthmus run ${command}\``,
    );
  }

  #itsPolicy(): Finding {
    if (this.#process?.env == null) return { note: 'not known' };
    const { env, uid, script } = this.#process;
    const who = { uid, user: userName(uid), program: script ?? '' };
    const policy = new CurrentPolicy(env);
    const finding = findingOf({ direction: 'accept', address: this.#address, port: this.#port, who }, policy);
    if (typeof finding !== 'string') return finding;
    const { mode, lazyBytes, lazyMs } = policy.now;
    if (mode === 'eager') return 'eager: as soon as a byte has passed';
    const text = `lazy: after ${lazyBytes} bytes or ${lazyMs} ms`;
    return lazyMs < this.#timeoutMs ? text : { note: `${text}, which is longer than chk waits (--timeout)` };
  }

  async #itsFabric(): Promise<Finding> {
    const [server, fabric] = [this.#process, this.#fabric];
    if (server?.env == null || fabric === null) return { note: 'not known' };
    const { pid, uid, env } = server;
    const root = `/proc/${pid}/root`;
    const places = fabricPlaces(env as NodeJS.ProcessEnv, uid, root);
    const theirs = places.find(({ socket }) => identityOf(`${root}${socket}`) !== null) ?? places.at(-1);
    const identity = identityOf(`${root}${theirs?.socket}`);
    const isOtherRoot = namespaceOf(pid, 'mnt') !== namespaceOf('self', 'mnt');
    // A fabric that nobody uses may have ended meanwhile; the next one is where it was.
    const isSamePlace = theirs?.socket === fabric.place.socket && !isOtherRoot;
    if (isSamePlace || (identity !== null && identity === identityOf(fabric.place.socket)))
      return (await isMember(pid))
        ? 'it has joined the same'
        : 'the same; it joins with its first connection that could move';
    const where = `${theirs?.socket}${isOtherRoot ? ' in a file system of its own' : ''}`;
    const what = `process ${pid} meets others at ${where}, this command at ${fabric.place.socket}`;
    return failed(REASONS.PEERNOSMC, what, fabricHint(uid, where));
  }

  /**
   * A byte makes the ends announce the connection, and it moves with the next one: what is sent is sent in two parts, the rest once both
   * ends have agreed.
   */
  async #passByte(): Promise<Finding> {
    const socket = this.#socket as Socket;
    this.#see();
    if (this.#isMoved) return 'none was needed';
    const half = Math.ceil((this.#bytes?.length ?? 0) / 2);
    if (this.#bytes !== null) socket.write(this.#bytes.subarray(0, half));
    void this.#accelerate?.().then((info) => {
      this.#isSettled = true;
      if (this.#client?.id == null) this.#client = info; // nothing tells of what nobody has looked at
    });
    const passed = () => socket.bytesRead + socket.bytesWritten > 0;
    await until(() => passed() || socket.destroyed, MOMENT_MS);
    this.#see();
    if (!passed())
      return socket.destroyed
        ? failed(REASONS.ENDED, 'the server closed it')
        : failed(
            REASONS.NOBYTE,
            'the server says nothing by itself',
            `have chk say something that it understands: ${EXAMPLE}`,
          );
    await this.#until(() => this.#hasAgreed);
    if (this.#bytes !== null) socket.write(this.#bytes.subarray(half));
    await this.#until(() => false);
    return this.#bytes === null
      ? `${socket.bytesRead} bytes came by themselves`
      : `${this.#bytes.length} bytes were sent`;
  }
  #isSettled = false;

  /** Or it is clear what becomes of the connection, or nothing becomes of it in time. */
  async #until(holds: () => boolean): Promise<void> {
    await until(() => {
      this.#see();
      return holds() || this.#isMoved || this.#isSettled || this.#isRefused || this.#socket?.destroyed === true;
    }, this.#timeoutMs);
  }

  get #hasAgreed(): boolean {
    const agrees = (end: ConnectionInfo | null) => end?.reason.name === 'AGREED';
    return agrees(this.#client) && (this.#server === null || agrees(this.#server));
  }

  /** The last steps, by the reason that the connection stands at. */
  #stage(stage: number): Finding {
    const reason = this.#why();
    // What has ended came as far as it was seen.
    const last = reason?.name === 'ENDED' ? this.#client?.reason : reason;
    const isPassed = reason === null || stageOf(last ?? reason) > stage;
    return isPassed ? (STAGE_TEXTS[stage] ?? '') : { failed: reason };
  }

  get #isMoved(): boolean {
    return this.#client?.mode === 'SMC-D' && (this.#server === null || this.#server.mode === 'SMC-D');
  }

  /** The server has said for good that it does not want it. */
  get #isRefused(): boolean {
    return this.#server !== null && !PASSING.includes(this.#server.reason.name);
  }

  /** Null: it moved. The server's reason where the client only knows that there is one. */
  #why(): Reason | null {
    const [client, server] = [this.#client, this.#server];
    if (client === null) return REASONS.ENDED;
    if (client.mode === 'SMC-D') return null;
    // The client may not have come further when the server has said no.
    const isVague = client.reason.name === 'OPTUNSUPP' || PASSING.includes(client.reason.name);
    if (isVague && server !== null && !PASSING.includes(server.reason.name))
      return { ...server.reason, text: `at the server: ${server.reason.text}` };
    if (this.#socket?.destroyed && PASSING.includes(client.reason.name))
      return withCause(
        REASONS.ENDED,
        `the server closed it when it was at ${client.reason.name}`,
        'such connections are too short to be worth moving; have chk say something after which the server waits for more',
      );
    if (client.reason.name === 'AGREED' && this.#bytes === null)
      return { ...client.reason, hint: `it moves with its next byte; have chk say something: ${EXAMPLE}` };
    if (client.reason.name !== 'PEERNOSMC') return client.reason;
    if (this.#process === null) return client.reason;
    if (server === null)
      return withCause(
        client.reason,
        `in process ${this.#process.pid} ${whyNoTable(this.#process)}`,
        'see what the server says on stderr when it is started with NODE_DEBUG=isthmus',
      );
    return withCause(
      client.reason,
      `process ${server.pid} says ${server.reason.name}, ${server.reason.text}`,
      server.reason.hint,
    );
  }
}

const NODES = /^node(js)?(-?\d.*)?$/;

const STAGES = ['announcement', 'match', 'handshake', 'move'] as const;
const STAGE_TEXTS = [
  'both ends have announced it',
  'they were proven to be the two ends of one connection',
  'both ends have agreed',
  'bytes go through shared memory',
];
/** Reasons that may go away by themselves. */
const PASSING = ['MOVED', 'CHECKING', 'AGREED', 'PEERNOSMC', 'NOBYTE', 'YOUNG', 'FABRICLOST'];

const BY_STAGE: readonly (readonly string[])[] = [
  [
    'PEERNOSMC',
    'NOBYTE',
    'YOUNG',
    'OFF',
    'NOFABRIC',
    'UNTRUSTED',
    'FABRICBUSY',
    'FABRICSILENT',
    'FABRICLOST',
    'NOTTCP',
    'HALFCLOSED',
    'TLS',
    'HTTP2',
    'NATIVE',
    'PASSEDON',
    'GIVENAWAY',
    'RESTORED',
    'OVERRIDDEN',
    'ENDED',
    'SYSTEM',
    'FFI',
    'KERNEL',
    'INTERNALS',
    'RUNTIME',
  ],
  ['SHARED', 'MISMATCH', 'LINGER', 'SELF', 'UNKNOWNUSER', 'UNPROVEN'],
];

function stageOf({ name }: Reason): number {
  const stage = BY_STAGE.findIndex((names) => names.includes(name));
  if (stage >= 0) return stage;
  return name === 'AGREED' ? 3 : 2;
}

function identityOf(path: string): string | null {
  try {
    const { dev, ino } = statSync(path);
    return `${dev} ${ino}`;
  } catch {
    return null;
  }
}

async function isMember(pid: number): Promise<boolean> {
  try {
    const found = findFabric(process.env);
    const status = found === null ? null : readStatus(await askStatus(found.fd));
    return status?.partitions.some((one) => one.pid === pid) ?? false;
  } catch {
    return false; // of another user: it does not tell us
  }
}

function fabricHint(uid: number, where: string): string {
  const own = process.getuid?.();
  if (uid !== own)
    return `run chk as ${userText(uid)}; different users meet in a system-wide fabric only (root: \`install -d -m 755 /run/isthmus; isthmus fabric --socket /run/isthmus/fabric.sock\`)`;
  return `start both programs with the same ISTHMUS_FABRIC, ISTHMUS_RUNTIME_DIR and view of ${where.split(' ')[0]} (PrivateTmp= of systemd gives a service one of its own), or have a system-wide fabric`;
}

function inBandHint(message: string): string {
  return /in-band/.test(message)
    ? 'is the server told to shake hands in-band, too (ISTHMUS_IN_BAND)?'
    : 'see why with NODE_DEBUG=isthmus';
}
