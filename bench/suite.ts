/** Runs questions in rounds and puts together what they say. What cannot be measured says why, and the rest goes on. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { alone } from './alone.ts';
import { clc } from './clc.ts';
import { connects } from './connect.ts';
import { endOwnFabric } from './fabric.ts';
import { http } from './http.ts';
import { idle } from './idle.ts';
import { lookAtMachine } from './machine.ts';
import { memory } from './memory.ts';
import { peers } from './peers.ts';
import { findPlacements, type Placement, type PlacementName, steadiest } from './placement.ts';
import { Ends, Program } from './program.ts';
import type { Comparison, Context, Inquiry, Step } from './question.ts';
import { type Answer, type ComparisonRow, column, type Report } from './report.ts';
import { rtt } from './rtt.ts';
import { scale } from './scale.ts';
import { short } from './short.ts';
import { start } from './start.ts';
import { shuffled } from './statistics.ts';
import { streams } from './stream.ts';
import { sweep } from './sweep.ts';
import { environmentOf, isOfThreads, LOOPBACK, MAPPED, STORE, TCP, type Transport, UNIX } from './transports.ts';
import { ws } from './ws.ts';

export const COMPARISONS: readonly Comparison[] = [rtt, streams, connects, http, ws, peers, sweep, scale];
export const INQUIRIES: readonly Inquiry[] = [start, alone, short, idle, memory, clc];
export const QUESTION_NAMES: readonly string[] = [...COMPARISONS, ...INQUIRIES].map(({ name }) => name);

export interface BenchOptions {
  /** Null = three; in the short form as many as there is time for. */
  readonly rounds: number | null;
  /** Some steps, some transports, one place, shorter windows; of all questions, less than half a minute. */
  readonly isQuick: boolean;
  /** Names of questions; null = all that belong to the form. */
  readonly only: readonly string[] | null;
  /** Null = all that belong to the form. */
  readonly placements: readonly PlacementName[] | null;
  progress(text: string): void;
}

export const DEFAULT_ROUNDS = 3;
const QUICK_WINDOW = { warmMs: 250, windowMs: 400 };
/** No round of the short form begins that would not have ended then. */
const QUICK_MS = 25_000;
/** After that many failures a step is not tried again. */
const MAX_FAILURES = 2;

export async function runBench(options: BenchOptions): Promise<Report> {
  const machine = lookAtMachine();
  const startedAt = new Date();
  const folder = mkdtempSync(join(tmpdir(), 'isthmus-bench-'));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  process.once('exit', remove);
  const interrupted = () => process.exit(130); // with the programs, see program.ts
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    const placements = findPlacements();
    const context: Context = {
      folder,
      placements,
      isQuick: options.isQuick,
      progress: options.progress,
    };
    const gaps = [...placements.impossible];
    const { rows: comparisons, rounds } = await compare(context, options, gaps);
    const answers = await inquire(context, options, gaps);
    return {
      machine: machine(),
      startedAt: startedAt.toISOString(),
      seconds: (Date.now() - startedAt.getTime()) / 1000,
      rounds,
      comparisons,
      answers,
      gaps,
    };
  } finally {
    await endOwnFabric(folder);
    remove();
    process.off('exit', remove).off('SIGINT', interrupted).off('SIGTERM', interrupted);
  }
}

// --- Comparisons ---

/** Values of one step of one transport in one place: by round, by figure. */
type Values = (readonly (number | null)[] | null)[];

interface Compared {
  readonly rows: readonly ComparisonRow[];
  readonly rounds: number;
}

async function compare(context: Context, options: BenchOptions, gaps: string[]): Promise<Compared> {
  const { only, isQuick } = options;
  const questions = COMPARISONS.filter(({ name, isShort = false }) => only?.includes(name) ?? (isShort || !isQuick));
  const stages = chosenPlacements(context, options)
    .map((placement) => new Stage(placement, tasksAt(placement, questions, context, options), context))
    .filter(({ tasks }) => tasks.length > 0);
  if (stages.length === 0) return { rows: [], rounds: 0 };
  const began = performance.now();
  let rounds = 0;
  const isTimeForMore = () =>
    rounds === 0 || options.rounds !== null || !isQuick || (performance.now() - began) * (1 + 1 / rounds) < QUICK_MS;
  for (const wanted = options.rounds ?? DEFAULT_ROUNDS; rounds < wanted && isTimeForMore(); rounds++) {
    for (const stage of stages) {
      context.progress(`round ${rounds + 1} of ${wanted}: ${stage.placement.title}`);
      await stage.perform(rounds);
    }
  }
  for (const stage of stages) gaps.push(...stage.gaps);
  return { rows: stages.flatMap((stage) => stage.rows()), rounds };
}

function chosenPlacements({ placements }: Context, { placements: wanted, isQuick }: BenchOptions): Placement[] {
  const { possible } = placements;
  if (wanted !== null) return possible.filter(({ name }) => wanted.includes(name));
  if (!isQuick) return [...possible];
  return [steadiest(placements)];
}

/** A step, and who takes it in one place. */
interface Task {
  readonly question: Comparison;
  readonly step: Step;
  readonly transports: readonly Transport[];
}

function tasksAt(
  placement: Placement,
  questions: readonly Comparison[],
  { placements }: Context,
  { isQuick, placements: wanted }: BenchOptions,
): Task[] {
  return questions
    .filter(({ isInOnePlace }) => !isInOnePlace || wanted !== null || placement === steadiest(placements))
    .flatMap((question) => {
      const transports = transportsOf(question, placement, isQuick);
      const steps = question.steps.filter((step) => step.isQuick || !isQuick);
      return transports.length === 0 ? [] : steps.map((step) => ({ question, step, transports }));
    });
}

function transportsOf({ transports }: Comparison, { isInside }: Placement, isQuick: boolean): readonly Transport[] {
  if (isInside) return transports === undefined ? [TCP, UNIX, LOOPBACK] : [];
  return transports ?? (isQuick ? [TCP, UNIX, MAPPED] : [TCP, UNIX, MAPPED, STORE]);
}

/** One place. */
class Stage {
  readonly placement: Placement;
  readonly tasks: readonly Task[];
  readonly #context: Context;
  readonly #values = new Map<Step, Map<Transport, Values>>();
  /** By step and transport, in words. */
  readonly #failures = new Map<string, string[]>();
  #sockets = 0;

  constructor(placement: Placement, tasks: readonly Task[], context: Context) {
    this.placement = placement;
    this.tasks = tasks;
    this.#context = context;
  }

  get gaps(): string[] {
    return [...this.#failures].map(
      ([what, why]) => `${what}: ${why.at(-1)}${why.length > 1 ? ` (${why.length} times)` : ''}`,
    );
  }

  rows(): ComparisonRow[] {
    const { name, title } = this.placement;
    return this.tasks.flatMap(({ question, step, transports }) =>
      step.figures.map((figure, i) => ({
        question: question.name,
        placement: { name, title },
        step: step.name,
        point: i === 0 ? (step.point ?? null) : null,
        figure: figure.name,
        unit: figure.unit,
        better: figure.better,
        transports: transports.map((transport) => {
          const of = (one: Transport) => this.#valuesOf(step, one).map((values) => values?.[i] ?? null);
          return column(transport, figure.better, of(TCP), of(transport));
        }),
      })),
    );
  }

  #valuesOf(step: Step, transport: Transport): Values {
    const ofStep = this.#values.get(step) ?? new Map<Transport, Values>();
    this.#values.set(step, ofStep);
    const values = ofStep.get(transport) ?? [];
    ofStep.set(transport, values);
    return values;
  }

  async perform(round: number): Promise<void> {
    for (const tasks of this.#context.isQuick ? [this.tasks] : this.#tasksByQuestion()) await this.#take(tasks, round);
  }

  /**
   * What an earlier question has taught the collector of garbage can make a stream five times slower, on TCP as well: each has programs of
   * its own, but for the short form, where they would be cold.
   */
  #tasksByQuestion(): (readonly Task[])[] {
    const questions = new Set(this.tasks.map(({ question }) => question));
    return [...questions].map((question) => this.tasks.filter((task) => task.question === question));
  }

  /** The programs of all transports live through it, so that what is compared follows closely on each other. */
  async #take(tasks: readonly Task[], round: number): Promise<void> {
    const cast = new Map<Transport, Ends>();
    try {
      for (const { step, transports } of tasks) {
        for (const transport of shuffled(transports.filter((one) => step.canTake?.(one) ?? true))) {
          const old = cast.get(transport);
          if (old !== undefined && old.failure !== null) await this.#stop(old);
          const ends = old === undefined || old.failure !== null ? this.#start(transport) : old;
          cast.set(transport, ends);
          this.#valuesOf(step, transport)[round] = await this.#measure(step, transport, ends);
        }
      }
    } finally {
      await Promise.all([...cast.values()].map((ends) => this.#stop(ends)));
    }
  }

  #start(transport: Transport): Ends {
    const { cpus, isInside } = this.placement;
    const env = environmentOf(transport, this.#context.folder);
    if (transport.peer !== null) {
      // What it starts as a process is pinned by itself; threads cannot be.
      const own = cpus && (isOfThreads(transport.peer) ? [...new Set([cpus.server, cpus.client])] : [cpus.client]);
      const peer = new Program({ role: 'peer', cpus: own, env });
      return new Ends(peer, peer);
    }
    if (isInside) {
      const both = new Program({ role: 'both', cpus: null, env });
      return new Ends(both, both);
    }
    return Ends.start({ cpus, env });
  }

  /** What hangs does not end by itself. */
  async #stop(ends: Ends): Promise<void> {
    if (ends.failure !== null) for (const program of ends.programs) program.kill();
    await ends.stop();
  }

  async #measure(step: Step, transport: Transport, ends: Ends): Promise<readonly (number | null)[] | null> {
    const what = `${this.placement.title}, ${transport.title}, ${step.name}`;
    const failures = this.#failures.get(what) ?? [];
    if (failures.length >= MAX_FAILURES) return null;
    const hasPath = transport.isUnix || transport.peer === 'zeromq';
    // What is killed leaves its socket behind: no name comes twice.
    const name = () => `${this.placement.name}-${this.#sockets++}.sock`;
    const path = () => (hasPath ? join(this.#context.folder, name()) : null);
    try {
      const window = this.#context.isQuick ? QUICK_WINDOW : step.window;
      return await step.measure({ ends, transport, placement: this.placement, path }, window);
    } catch (error) {
      failures.push((error as Error).message);
      this.#failures.set(what, failures);
      return null;
    }
  }
}

// --- Inquiries ---

async function inquire(context: Context, options: BenchOptions, gaps: string[]): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (const inquiry of INQUIRIES) {
    if (!(options.only?.includes(inquiry.name) ?? !options.isQuick)) continue;
    context.progress(inquiry.title);
    try {
      answers.push({ question: inquiry.name, title: inquiry.title, findings: await inquiry.answer(context) });
    } catch (error) {
      gaps.push(`${inquiry.title}: ${(error as Error).message}`);
    }
  }
  return answers;
}
