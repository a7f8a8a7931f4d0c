/** What a person sees of a run, and what is kept of it in .torture/, so that it can go on later. */
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../integration/commands.ts';
import type { Counts } from './round.ts';

const FOLDER = join(ROOT, '.torture');
const STATE = join(FOLDER, 'state.json');
const PROGRESS_MS = 10_000;

export interface State {
  nextSeed: number;
  playedMs: number;
  rounds: number;
  /** Seeds of rounds with failures. */
  failedSeeds: number[];
  failures: number;
  readonly counts: Counts;
}

export class Log {
  readonly state: State;
  /** Options that a repetition needs, too. */
  readonly #more: string;
  #plan = '';
  #roundBegan = 0;
  #failuresBefore = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(seed: number, more: string, resume: boolean) {
    this.#more = more;
    mkdirSync(FOLDER, { recursive: true });
    const counts = { connections: 0, moved: 0, bytes: 0, kills: 0, stops: 0 };
    this.state = (resume && readState()) || {
      nextSeed: seed,
      playedMs: 0,
      rounds: 0,
      failedSeeds: [],
      failures: 0,
      counts,
    };
  }

  begin(plan: string): void {
    this.#plan = plan;
    this.#roundBegan = Date.now();
    this.#failuresBefore = this.state.failures;
    process.stdout.write(`round ${this.state.rounds + 1}, seed ${this.state.nextSeed}\n`);
    this.#timer = setInterval(() => process.stdout.write(`${this.#line()}\n`), PROGRESS_MS);
  }

  failed(fault: string): void {
    const { state } = this;
    const seed = state.nextSeed;
    const atMs = Date.now() - this.#roundBegan;
    state.failures++;
    let text = `FAILED after ${(atMs / 1000).toFixed(1)} s of seed ${seed}: ${fault}\n`;
    if (!state.failedSeeds.includes(seed)) {
      state.failedSeeds.push(seed);
      text = `${this.#plan}\nTo repeat it: npm run torture -- --minutes 1 --seed ${seed}${this.#more}\n${text}`;
    }
    process.stderr.write(text);
    appendFileSync(join(FOLDER, `${seed}${this.#more.replaceAll(' ', '')}.txt`), text);
  }

  end(): void {
    const { state } = this;
    clearInterval(this.#timer);
    state.rounds++;
    state.nextSeed++;
    state.playedMs += Date.now() - this.#roundBegan;
    this.#roundBegan = Date.now();
    const failures = state.failures - this.#failuresBefore;
    process.stdout.write(`${this.#line()}${failures > 0 ? `; ${failures} in this round` : ''}\n`);
    writeFileSync(STATE, JSON.stringify(state));
  }

  /** @returns whether nothing failed */
  summary(): boolean {
    const { rounds, failures, failedSeeds } = this.state;
    process.stdout.write(
      failures === 0
        ? `${rounds} rounds, nothing failed\n`
        : `${rounds} rounds, ${failures} failures; seeds ${failedSeeds.join(', ')}: see .torture/\n`,
    );
    return failures === 0;
  }

  #line(): string {
    const { playedMs, failures, counts } = this.state;
    const seconds = Math.round((playedMs + Date.now() - this.#roundBegan) / 1000);
    const { connections, moved, bytes, kills, stops } = counts;
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
    return `${clock}  ${connections} connections, ${moved} ends moved, ${(bytes / 1e9).toFixed(2)} GB, ${kills} kills, ${stops} stops, ${failures} failures`;
  }
}

function readState(): State | null {
  try {
    return JSON.parse(readFileSync(STATE, 'utf8')) as State;
  } catch {
    return null; // there was none
  }
}
