/** Plays a round: starts its programs, deals the blows, lets all come to an end, and looks what is left. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { readTables } from '../../src/cli/rows.ts';
import { formatConnections } from '../../src/cli/ss.ts';
import { findFabric } from '../../src/fabric/client.ts';
import { closeFd, peerCredentials } from '../../src/os/index.ts';
import { type Program, Stage } from '../integration/two-programs.ts';
import { unfinishedIn } from './ledger.ts';
import { countsOf, descriptorsOf, processesOf } from './leftovers.ts';
import { type Blow, HANDSHAKES, lifeOf, type Pair, type Round, SETTINGS, type Side } from './plan.ts';
import { type Case, judge } from './referee.ts';
import type { Command, Outcome, Report, Role } from './words.ts';

const PROGRAM = new URL('./program.js', import.meta.url).href;
const SIDES = ['client', 'server'] as const;

/** Ids: pair, generation of the program, thread in it, connection. */
const PAIR_IDS = 1 << 27;
const GENERATION_IDS = 1 << 22;

/** A killed program is followed by another one after so long. */
const REST_MS = 300;
/** A connection is excused by a kill so long before it began, or after it was over: it may have waited, with its program stopped. */
const DISTURBED_MS = 8000;
/** A program that is not stopped says something every second. */
const SILENT_MS = 60_000;
/** Longer than a connection may last without anything happening. */
const FINISH_MS = 120_000;
const QUIET_MS = 20_000;
const LINGER_MS = 1000;
/** Descriptors that Node.js may have opened once, for something that is kept. */
const MORE_DESCRIPTORS = 8;
/** What a program may have more at the end than after a third of its life. */
const MORE_RSS_BYTES = 150e6;

export interface Counts {
  connections: number;
  moved: number;
  bytes: number;
  kills: number;
  stops: number;
}

export interface RoundOptions {
  /** Without Isthmus: what TCP itself does. */
  readonly isPlain: boolean;
  readonly counts: Counts;
  failed(fault: string): void;
}

export async function playRound(round: Round, options: RoundOptions): Promise<void> {
  const director = new Director(round, options);
  try {
    await director.play();
  } finally {
    await director.close();
  }
}

/** One program after the other in one place of a pair. */
interface Place {
  readonly pair: number;
  readonly side: Side;
  generation: number;
  actor: Actor | null;
  /** Whoever is here is to be followed by another one. */
  isNeeded: boolean;
}

interface Actor {
  readonly program: Program;
  readonly ledgers: string;
  stoppedUntil: number;
  heardAt: number;
  isKilled: boolean;
  isLeaving: boolean;
  isFinished: boolean;
  descriptors: readonly string[] | null;
  readonly rss: number[];
}

interface Two {
  client: Outcome | null;
  server: Outcome | null;
}

class Director {
  readonly #round: Round;
  readonly #options: RoundOptions;
  readonly #stage = new Stage();
  readonly #files = mkdtempSync(join(tmpdir(), 'isthmus-torture-'));
  readonly #places: readonly Place[];
  readonly #cases = new Map<number, Two>();
  /** Of each pair: when one of its ends was killed, and when it had been followed. */
  readonly #disturbances: { pair: number; side: Side; from: number; to: number }[] = [];
  readonly #stops: { pair: number; from: number; to: number }[] = [];
  readonly #ports = new Map<number, number>();
  readonly #dying: Promise<void>[] = [];
  #isOver = false;

  constructor(round: Round, options: RoundOptions) {
    this.#round = round;
    this.#options = options;
    this.#places = round.pairs.flatMap((_, pair) =>
      SIDES.map((side) => ({ pair, side, generation: 0, actor: null, isNeeded: true })),
    );
  }

  async play(): Promise<void> {
    const began = Date.now();
    for (const place of this.#places) this.#start(place);
    const watch = setInterval(() => this.#watch(), 1000);
    try {
      for (const blow of this.#round.blows) {
        await sleep(Math.max(0, began + blow.atMs - Date.now()));
        this.#deal(blow);
      }
      await sleep(Math.max(0, began + this.#round.durationMs - Date.now()));
      await this.#end();
    } finally {
      clearInterval(watch);
    }
  }

  async close(): Promise<void> {
    this.#isOver = true;
    await this.#stage.close();
    rmSync(this.#files, { recursive: true, force: true });
  }

  // --- Programs ---

  #start(place: Place): void {
    const { isPlain } = this.#options;
    const pair = this.#round.pairs[place.pair] as Pair;
    const ledgers = join(this.#files, `${place.pair}-${place.side}-${place.generation}`);
    // Clients alone give ids, but the main thread of a server's program with threads is a client, too.
    const half = place.side === 'server' ? GENERATION_IDS << 4 : 0;
    const firstId = place.pair * PAIR_IDS + half + place.generation++ * GENERATION_IDS;
    const role: Role = { seed: this.#round.seed, kind: pair.kind, side: place.side, firstId, isPlain, ledgers };
    const env = {
      ISTHMUS_LINGER_MS: String(LINGER_MS),
      ISTHMUS_FABRIC_IDLE_MS: '2000',
      ...SETTINGS[pair[place.side]],
      ...HANDSHAKES[pair.handshake],
      ...(isPlain ? { NODE_OPTIONS: '' } : {}),
    };
    const program = this.#stage.run(`await import(${JSON.stringify(PROGRAM)});`, [JSON.stringify(role)], env);
    const actor: Actor = {
      program,
      ledgers,
      stoppedUntil: 0,
      heardAt: Date.now(),
      isKilled: false,
      isLeaving: false,
      isFinished: false,
      descriptors: null,
      rss: [],
    };
    place.actor = actor;
    createInterface(program.child.stdout as NodeJS.ReadableStream).on('line', (line) => {
      program.lines.length = 0;
      actor.heardAt = Date.now();
      this.#heard(place, actor, line);
    });
    program.child.stdin?.on('error', () => {}); // killed
    this.#dying.push(program.exited.then((how) => this.#exited(place, actor, how)));
    const port = this.#ports.get(place.pair);
    if (place.side === 'client' && port !== undefined) this.#tell(actor, { does: 'dial', port });
  }

  #tell(actor: Actor, command: Command): void {
    actor.program.tell(JSON.stringify(command));
  }

  #exited(place: Place, actor: Actor, how: { code: number | null; signal: NodeJS.Signals | null }): void {
    const said = actor.program.stderr
      .split('\n')
      .filter((line) => line !== '' && !/Warning|--trace-warnings/.test(line));
    const where = this.#nameOf(place);
    if (this.#isOver) return;
    // A child whose parent is killed may die of that inside of Node.js, and says so.
    const isOrphan = actor.isKilled && this.#round.pairs[place.pair]?.kind === 'sticky';
    if (said.length > 0 && !isOrphan) this.#fail(`${where} said: ${said.join('\n')}`);
    if (!actor.isKilled && !(actor.isLeaving && how.code === 0))
      this.#fail(`${where} ended by itself: ${JSON.stringify(how)}`);
    for (const name of readdirSync(this.#files))
      if (join(this.#files, name).startsWith(`${actor.ledgers}-`)) this.#died(join(this.#files, name));
    if (place.actor !== actor || !place.isNeeded || actor.isLeaving) return;
    setTimeout(() => {
      if (place.isNeeded) this.#start(place);
    }, REST_MS);
  }

  /** Of whoever wrote this ledger: nothing more will be told. */
  #died(ledger: string): void {
    for (const one of unfinishedIn(ledger)) {
      const told = this.#cases.get(one.id)?.[one.side] ?? null;
      if (told !== null) continue;
      const now = Date.now();
      this.#over({
        ...one,
        wrongAt: null,
        events: [],
        moved: false,
        startedAt: now,
        overAt: now,
        stuck: null,
        died: true,
      });
    }
  }

  #heard(place: Place, actor: Actor, line: string): void {
    let report: Report;
    try {
      report = JSON.parse(line) as Report;
    } catch {
      this.#fail(`${this.#nameOf(place)} said: ${line}`);
      return;
    }
    const { counts } = this.#options;
    switch (report.says) {
      case 'port':
        this.#ports.set(place.pair, report.port);
        this.#followed(place);
        for (const { pair, side, actor: client } of this.#places)
          if (pair === place.pair && side === 'client' && client !== null && !client.isKilled)
            this.#tell(client, { does: 'dial', port: report.port });
        break;
      case 'over':
        this.#over(report.outcome);
        break;
      case 'stray':
        this.#stray(place, report.text);
        break;
      case 'terminated':
        this.#died(report.ledger);
        if (place.side === 'client') this.#followed(place);
        break;
      case 'alive':
        actor.descriptors ??= descriptorsIfThere(actor.program.pid);
        counts.bytes += report.bytes;
        actor.rss.push(report.rssBytes);
        break;
      case 'finished':
        actor.isFinished = true;
        break;
      case 'dump':
        this.#options.failed(`${this.#nameOf(place)} has ${JSON.stringify(report.ends)}`);
        break;
      default:
        report satisfies never;
    }
  }

  /** A program that is neither stopped nor killed has to say something. */
  #watch(): void {
    const now = Date.now();
    for (const place of this.#places) {
      const { actor } = place;
      if (actor === null || actor.isKilled || actor.isLeaving) continue;
      if (now - Math.max(actor.heardAt, actor.stoppedUntil) < SILENT_MS) continue;
      this.#fail(`${this.#nameOf(place)} is silent`);
      this.#kill(place);
    }
  }

  // --- Blows ---

  #deal(blow: Blow): void {
    const { counts } = this.#options;
    if (blow.does === 'kill fabric' || blow.does === 'stop fabric') {
      const pid = this.#fabricPid();
      if (pid === null) return;
      counts.kills += blow.does === 'kill fabric' ? 1 : 0;
      process.kill(pid, blow.does === 'kill fabric' ? 'SIGKILL' : 'SIGSTOP');
      if (blow.does === 'stop fabric') setTimeout(() => goOn(pid), blow.forMs);
      return;
    }
    const place = this.#places.find(({ pair, side }) => pair === blow.pair && side === blow.side) as Place;
    const { actor } = place;
    if (actor === null || actor.isKilled) return; // another one will come
    switch (blow.does) {
      case 'kill':
        counts.kills++;
        this.#kill(place);
        break;
      case 'terminate':
        counts.kills++;
        this.#disturb(place);
        this.#tell(actor, { does: 'terminate' });
        break;
      case 'stop': {
        counts.stops++;
        const { pid } = actor.program;
        process.kill(pid, 'SIGSTOP');
        actor.stoppedUntil = Date.now() + blow.forMs;
        this.#stops.push({ pair: place.pair, from: Date.now(), to: actor.stoppedUntil });
        setTimeout(() => actor.isKilled || goOn(pid), blow.forMs);
        break;
      }
      default:
        blow satisfies never;
    }
  }

  #kill(place: Place): void {
    const { actor } = place;
    if (actor === null) return;
    actor.isKilled = true;
    this.#disturb(place);
    actor.program.child.kill('SIGKILL');
    if (place.side === 'client') void actor.program.exited.then(() => this.#followed(place));
  }

  #disturb({ pair, side }: Place): void {
    if (side === 'server') this.#ports.delete(pair);
    this.#disturbances.push({ pair, side, from: Date.now(), to: Number.POSITIVE_INFINITY });
  }

  /** Whoever was killed has been followed by another one. */
  #followed({ pair, side }: Place): void {
    for (const one of this.#disturbances)
      if (one.pair === pair && one.side === side) one.to = Math.min(one.to, Date.now());
  }

  #fabricPid(): number | null {
    const found = findFabric({ ISTHMUS_RUNTIME_DIR: this.#stage.directory });
    if (found === null || found === undefined) return null;
    const { pid } = peerCredentials(found.fd);
    closeFd(found.fd);
    return pid;
  }

  // --- Connections ---

  #over(outcome: Outcome): void {
    const { counts } = this.#options;
    const two = this.#cases.get(outcome.id) ?? { client: null, server: null };
    this.#cases.set(outcome.id, two);
    if (two[outcome.side] !== null) {
      this.#fail(
        `the ${outcome.side} of ${outcome.id} is there twice: ${JSON.stringify([two[outcome.side], outcome])}`,
      );
      return;
    }
    two[outcome.side] = outcome;
    if (outcome.moved) counts.moved++;
    if (outcome.stuck !== null) this.#showAll(outcome);
    if (two.client === null || two.server === null) return;
    counts.connections++;
    this.#judge(outcome.id, two);
  }

  #judge(id: number, { client, server }: Two): void {
    const pair = Math.floor(id / PAIR_IDS);
    const { kind, handshake } = this.#round.pairs[pair] as Pair;
    const ends = [client, server].filter((one) => one !== null);
    const from = Math.min(...ends.map(({ startedAt }) => startedAt));
    const to = Math.max(...ends.map(({ overAt }) => overAt));
    const life = lifeOf(this.#round.seed, kind, id);
    const disturbed = wasWithin(this.#disturbances, pair, from, to);
    const unanswered = handshake !== 'fabric' && (disturbed || wasWithin(this.#stops, pair, from, to));
    const one: Case = { kind, life, client, server, disturbed, unanswered, saysLate: handshake === 'kernel' };
    const faults = judge(one);
    if (faults.length === 0) return;
    const text = [client, server].map((end) => JSON.stringify(end)).join('\n    ');
    this.#fail(
      `${faults.join('; ')}\n  connection ${id} of pair ${pair}, ${kind}${one.disturbed ? ', disturbed' : ''}\n    ${text}\n    life: ${JSON.stringify(life)}`,
    );
  }

  #stray(place: Place, text: string): void {
    const now = Date.now();
    const isKnown = /: (ECONNRESET|EPIPE|ECONNREFUSED)$/.test(text);
    // Ends of which nothing is known yet may be reset by the other one's part, also when a client is through with the TLS handshake.
    const isUnknown = text.startsWith('before') || text.startsWith('tlsClientError');
    if (isKnown && (isUnknown || wasWithin(this.#disturbances, place.pair, now, now))) return;
    this.#fail(`${this.#nameOf(place)}: ${text}`);
  }

  /** A connection does not end: what there is of it and of all the others. */
  #showAll({ id, side }: Outcome): void {
    const pair = Math.floor(id / PAIR_IDS);
    this.#options.failed(`connection ${id} hangs at the ${side}; isthmus ss of pair ${pair}:\n${this.#ssOf(pair)}`);
    for (const place of this.#places)
      if (place.pair === pair && place.actor !== null) this.#tell(place.actor, { does: 'dump' });
  }

  #ssOf(pair: number): string {
    const rows = this.#places
      .filter((place) => place.pair === pair && place.actor !== null)
      .flatMap(({ actor }) => readTables(String(actor?.program.pid)).rows);
    return formatConnections(rows, true);
  }

  // --- The end ---

  async #end(): Promise<void> {
    for (const side of SIDES) {
      const places = this.#places.filter((place) => place.side === side);
      await this.#until('there is a program in each place', () =>
        places.every(({ actor }) => actor?.isKilled === false),
      );
      for (const { actor } of places) if (actor !== null) this.#tell(actor, { does: 'finish' });
      await this.#until(
        `${side}s have finished`,
        () => places.every(({ actor }) => actor?.isFinished),
        () => places.filter(({ actor }) => !actor?.isFinished).map((place) => this.#nameOf(place)),
      );
    }
    for (const place of this.#places) place.isNeeded = false;
    await Promise.all(this.#places.map((place) => this.#quiet(place)));
    for (const { actor } of this.#places) {
      if (actor === null) continue;
      actor.isLeaving = true;
      this.#tell(actor, { does: 'leave' });
    }
    const stayed = () =>
      this.#places.filter(({ actor }) => actor?.program.child.exitCode === null).map((place) => this.#nameOf(place));
    await this.#until('programs end by themselves', () => stayed().length === 0, stayed, QUIET_MS);
    for (const { actor } of this.#places) {
      if (actor === null) continue;
      actor.isKilled = true;
      actor.program.child.kill('SIGKILL');
    }
    await Promise.all(this.#dying);
    for (const [id, two] of this.#cases) if (two.client === null || two.server === null) this.#judge(id, two);
    const left = () => readdirSync(this.#stage.directory).filter((name) => name !== 'fabric.lock');
    await this.#until('the runtime directory is empty', () => left().length === 0, left, QUIET_MS);
    const processes = () => [this.#stage.directory, this.#files].flatMap(processesOf);
    await this.#until('no process is left', () => processes().length === 0, processes, QUIET_MS);
  }

  /** With no connection left, a program has the descriptors that it had at the beginning, and not much more memory. */
  async #quiet(place: Place): Promise<void> {
    const { actor } = place;
    const before = actor?.descriptors;
    if (!actor || !before) return;
    const now = () => descriptorsIfThere(actor.program.pid) ?? [];
    const describe = () => [
      this.#nameOf(place),
      'before',
      countsOf(before),
      'now',
      countsOf(now()),
      this.#ssOf(place.pair),
    ];
    await this.#until(
      'descriptors are closed',
      () => now().length <= before.length + MORE_DESCRIPTORS,
      describe,
      QUIET_MS,
    );
    const third = Math.max(...actor.rss.slice(0, Math.ceil(actor.rss.length / 3)));
    const last = actor.rss.at(-1) ?? 0;
    if (last > third + MORE_RSS_BYTES) this.#fail(`${this.#nameOf(place)} has grown from ${third} to ${last} bytes`);
  }

  async #until(
    what: string,
    holds: () => boolean,
    describe: () => unknown = () => '',
    limitMs = FINISH_MS,
  ): Promise<void> {
    for (const end = Date.now() + limitMs; !holds(); await sleep(50)) {
      if (Date.now() < end) continue;
      this.#fail(`not so after ${limitMs / 1000} s: ${what} ${JSON.stringify(describe())}`);
      return;
    }
  }

  #nameOf({ pair, side, generation }: Place): string {
    const { kind, handshake, [side]: setting } = this.#round.pairs[pair] as Pair;
    return `${side} ${generation} of pair ${pair} (${kind}, ${handshake}, ${setting})`;
  }

  #fail(fault: string): void {
    this.#options.failed(fault);
  }
}

interface Span {
  readonly pair: number;
  readonly from: number;
  readonly to: number;
}

function wasWithin(spans: readonly Span[], pair: number, from: number, to: number): boolean {
  return spans.some((one) => one.pair === pair && one.from <= to + DISTURBED_MS && one.to >= from - DISTURBED_MS);
}

function descriptorsIfThere(pid: number): string[] | null {
  return existsSync(`/proc/${pid}/fd`) ? descriptorsOf(pid) : null;
}

function goOn(pid: number): void {
  try {
    process.kill(pid, 'SIGCONT');
  } catch {
    // It was killed meanwhile.
  }
}
