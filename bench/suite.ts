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
import { findPlacements, type Placement, type PlacementName, steadiest } from './placement.ts';
import { Ends, Program } from './program.ts';
import type { Comparison, Context, Inquiry, Step } from './question.ts';
import { type Answer, type ComparisonRow, column, type Report } from './report.ts';
import { rtt } from './rtt.ts';
import { short } from './short.ts';
import { start } from './start.ts';
import { shuffled } from './statistics.ts';
import { streams } from './stream.ts';
import { environmentOf, LOOPBACK, MAPPED, STORE, TCP, type Transport, UNIX } from './transports.ts';

export const COMPARISONS: readonly Comparison[] = [rtt, streams, connects, http];
export const INQUIRIES: readonly Inquiry[] = [start, alone, short, idle, memory, clc];
export const QUESTION_NAMES: readonly string[] = [...COMPARISONS, ...INQUIRIES].map(({ name }) => name);

export interface BenchOptions {
  readonly rounds: number;
  /** Some steps, some transports, one place, shorter windows: less than half a minute. */
  readonly isQuick: boolean;
  /** Names of questions; null = all that belong to the form. */
  readonly only: readonly string[] | null;
  /** Null = all that belong to the form. */
  readonly placements: readonly PlacementName[] | null;
  progress(text: string): void;
}

const QUICK_WINDOW = { warmMs: 100, windowMs: 400 };
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
    const comparisons = await compare(context, options, gaps);
    const answers = await inquire(context, options, gaps);
    return {
      machine: machine(),
      startedAt: startedAt.toISOString(),
      seconds: (Date.now() - startedAt.getTime()) / 1000,
      rounds: options.rounds,
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
type Values = (readonly number[] | null)[];

async function compare(context: Context, options: BenchOptions, gaps: string[]): Promise<ComparisonRow[]> {
  const steps = COMPARISONS.filter(({ name }) => options.only?.includes(name) ?? true).flatMap((question) =>
    question.steps.filter(({ isQuick }) => isQuick || !options.isQuick).map((step) => ({ question, step })),
  );
  if (steps.length === 0) return [];
  const stages = chosenPlacements(context, options).map((placement) => new Stage(placement, context, options.isQuick));
  for (let round = 0; round < options.rounds; round++) {
    for (const stage of stages) {
      context.progress(`round ${round + 1} of ${options.rounds}: ${stage.placement.title}`);
      await stage.perform(
        round,
        steps.map(({ step }) => step),
      );
    }
  }
  for (const stage of stages) gaps.push(...stage.gaps);
  return stages.flatMap((stage) =>
    steps.flatMap(({ question, step }) =>
      step.figures.map(({ name, unit, better }, i) => ({
        question: question.name,
        placement: { name: stage.placement.name, title: stage.placement.title },
        step: step.name,
        figure: name,
        unit,
        better,
        transports: stage.transports.map((transport) => {
          const of = (one: Transport) => stage.valuesOf(step, one).map((values) => values?.[i] ?? null);
          return column(transport, better, of(TCP), of(transport));
        }),
      })),
    ),
  );
}

function chosenPlacements({ placements }: Context, { placements: wanted, isQuick }: BenchOptions): Placement[] {
  const { possible } = placements;
  if (wanted !== null) return possible.filter(({ name }) => wanted.includes(name));
  if (!isQuick) return [...possible];
  return [steadiest(placements)];
}

/** One place, with all its transports. */
class Stage {
  readonly placement: Placement;
  readonly transports: readonly Transport[];
  readonly #context: Context;
  readonly #isQuick: boolean;
  readonly #values = new Map<Step, Map<Transport, Values>>();
  /** By step and transport, in words. */
  readonly #failures = new Map<string, string[]>();
  #sockets = 0;

  constructor(placement: Placement, context: Context, isQuick: boolean) {
    this.placement = placement;
    this.#context = context;
    this.#isQuick = isQuick;
    this.transports = placement.isInside
      ? [TCP, UNIX, LOOPBACK]
      : isQuick
        ? [TCP, UNIX, MAPPED]
        : [TCP, UNIX, MAPPED, STORE];
  }

  get gaps(): string[] {
    return [...this.#failures].map(
      ([what, why]) => `${what}: ${why.at(-1)}${why.length > 1 ? ` (${why.length} times)` : ''}`,
    );
  }

  valuesOf(step: Step, transport: Transport): Values {
    const ofStep = this.#values.get(step) ?? new Map<Transport, Values>();
    this.#values.set(step, ofStep);
    const values = ofStep.get(transport) ?? [];
    ofStep.set(transport, values);
    return values;
  }

  /** The programs of all transports live through the round, so that what is compared follows closely on each other. */
  async perform(round: number, steps: readonly Step[]): Promise<void> {
    const cast = new Map(this.transports.map((transport) => [transport, this.#start(transport)]));
    try {
      for (const step of steps) {
        for (const transport of shuffled(this.transports)) {
          let ends = cast.get(transport) as Ends;
          if (ends.failure !== null) {
            await this.#stop(ends);
            ends = this.#start(transport);
            cast.set(transport, ends);
          }
          this.valuesOf(step, transport)[round] = await this.#measure(step, transport, ends);
        }
      }
    } finally {
      await Promise.all([...cast.values()].map((ends) => this.#stop(ends)));
    }
  }

  #start(transport: Transport): Ends {
    const { cpus, isInside } = this.placement;
    const env = environmentOf(transport, this.#context.folder);
    if (isInside) {
      const both = new Program({ role: 'both', cpu: null, env });
      return new Ends(both, both);
    }
    return Ends.start({ cpus, env });
  }

  /** What hangs does not end by itself. */
  async #stop(ends: Ends): Promise<void> {
    if (ends.failure !== null) for (const program of ends.programs) program.kill();
    await ends.stop();
  }

  async #measure(step: Step, transport: Transport, ends: Ends): Promise<readonly number[] | null> {
    const what = `${this.placement.title}, ${transport.title}, ${step.name}`;
    const failures = this.#failures.get(what) ?? [];
    if (failures.length >= MAX_FAILURES) return null;
    const path = () => (transport.isUnix ? join(this.#context.folder, `${this.#sockets++}.sock`) : null);
    try {
      return await step.measure({ ends, expects: transport.expects, path }, this.#isQuick ? QUICK_WINDOW : step.window);
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
