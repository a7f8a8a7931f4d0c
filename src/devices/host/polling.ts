/**
 * Waiting for peers: a partition looks at the pairs that had traffic, once per turn of its event loop, for a short budget; then
 * it says that it sleeps, looks once more, and leaves the rest to the doorbell.
 *
 * The budget is earned: a wake-up soon after falling asleep says that waiting longer would have paid, a budget that was spent
 * for nothing is halved. With less than two CPUs' worth of time spinning would starve the peer: then nobody ever spins.
 */
import { allowedCpus, cgroupCpus, currentCpu } from '../../os/index.ts';

export interface PolledPair {
  /** Whether there is something to take: one load. */
  readonly hasWork: boolean;
  /** Takes what is there; how much there was. */
  look(): number;
  /** Says that we sleep (again). To be followed by a look. */
  sleep(): void;
  /** Says that we are awake. */
  wake(): void;
  tellPlace(cpu: number, allowed: { readonly low: number; readonly high: number }): void;
  tellCpu(cpu: number): void;
  readonly canRunBeside: boolean;
  readonly isOnOurCpu: boolean;
  readonly isDead: boolean;
}

const DEFAULT_BUDGET_US = 200;
const SMALLEST_BUDGET_MS = 0.01;
/** Looks between two turns of the event loop. */
const HOPS_PER_TURN = 100;
/** How often it is looked where we run. */
const PLACE_MS = 0.1;
/** How often the number of CPUs is asked for. */
const CPU_CHECK_MS = 1000;

/** Its `then` is the cheapest way to a microtask. */
const RESOLVED = Promise.resolve();

interface Watch {
  budgetMs: number;
  lastFound: number;
  asleepSince: number;
}

export class Polling {
  readonly #maxBudgetMs: number;
  readonly #watches = new Map<PolledPair, Watch>();
  readonly #active = new Set<PolledPair>();
  #scheduled = false;
  #cpusCheckedAt = Number.NEGATIVE_INFINITY;
  #hasTime = false;
  #hopsLeft = 0;
  #placedAt = Number.NEGATIVE_INFINITY;
  #cpu = -1;
  readonly counters = { looks: 0, found: 0, wakeUps: 0, sleeps: 0 };

  /** @param budgetUs the longest time to look for nothing; 0 = never spin. */
  constructor(budgetUs = DEFAULT_BUDGET_US) {
    this.#maxBudgetMs = budgetUs / 1000;
  }

  add(pair: PolledPair): void {
    pair.tellPlace(currentCpu(), allowedCpus());
    this.#watches.set(pair, { budgetMs: this.#maxBudgetMs, lastFound: 0, asleepSince: 0 });
    this.#rest(pair, performance.now());
  }

  remove(pair: PolledPair): void {
    this.#watches.delete(pair);
    this.#active.delete(pair);
  }

  /** The doorbell of a pair was rung. */
  rung(pair: PolledPair): void {
    const watch = this.#watches.get(pair);
    if (watch === undefined || this.#active.has(pair)) return;
    this.counters.wakeUps++;
    const now = performance.now();
    if (now - watch.asleepSince < this.#maxBudgetMs) {
      watch.budgetMs = Math.min(this.#maxBudgetMs, Math.max(2 * watch.budgetMs, SMALLEST_BUDGET_MS));
    }
    watch.lastFound = now;
    const spins = watch.budgetMs > 0 && this.#spins(now, pair);
    if (spins) {
      pair.wake();
      this.#place(now);
    }
    pair.look();
    if (!spins) {
      this.#rest(pair, now);
    } else if (!pair.isDead) {
      this.#active.add(pair);
      this.#schedule();
    }
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#turn());
  }

  #spins(now: number, pair: PolledPair): boolean {
    if (this.#maxBudgetMs === 0) return false;
    if (now - this.#cpusCheckedAt > CPU_CHECK_MS) {
      this.#cpusCheckedAt = now;
      this.#hasTime = cgroupCpus() >= 2;
      const allowed = allowedCpus();
      for (const one of this.#watches.keys()) one.tellPlace(currentCpu(), allowed);
    }
    return this.#hasTime && pair.canRunBeside;
  }

  /** Marks asleep, and looks again: what was written before the mark was not rung for. */
  #rest(pair: PolledPair, now: number): void {
    const watch = this.#watches.get(pair);
    if (watch === undefined || pair.isDead) return;
    this.counters.sleeps++;
    watch.asleepSince = now;
    pair.sleep();
    // The peer did not ring for what is found now, and will not ring again for this mark.
    if (pair.look() > 0) setImmediate(() => this.rung(pair));
  }

  /** One turn of the event loop: a look at every active pair, and more of them as long as nothing else waits. */
  #turn(): void {
    this.#scheduled = false;
    const now = performance.now();
    if (now - this.#placedAt > PLACE_MS) this.#place(now);
    for (const pair of this.#active) {
      const watch = this.#watches.get(pair);
      if (watch === undefined) continue;
      this.counters.looks++;
      if (pair.look() > 0) {
        this.counters.found++;
        watch.lastFound = now;
      } else if (now - watch.lastFound > watch.budgetMs || pair.isOnOurCpu || !this.#spins(now, pair)) {
        this.#active.delete(pair);
        watch.budgetMs = watch.budgetMs > SMALLEST_BUDGET_MS ? watch.budgetMs / 2 : 0;
        this.#rest(pair, now);
      }
    }
    if (this.#active.size === 0) return;
    this.#schedule();
    this.#hopsLeft = HOPS_PER_TURN;
    void RESOLVED.then(this.#hop);
  }

  /**
   * A turn costs a system call, and an answer often comes sooner. Until the next turn we go on looking, a microtask a look: what the
   * program has to do in ticks and microtasks comes first whenever something was found, and waits some microseconds otherwise.
   */
  readonly #hop = (): void => {
    if (--this.#hopsLeft < 0) return;
    for (const pair of this.#active) {
      if (!pair.hasWork) continue;
      this.counters.looks++;
      this.counters.found++;
      pair.look();
      const watch = this.#watches.get(pair);
      if (watch !== undefined) watch.lastFound = performance.now();
      process.nextTick(this.#hop);
      return;
    }
    void RESOLVED.then(this.#hop);
  };

  /** Tells peers where we run, when that has changed. */
  #place(now: number): void {
    this.#placedAt = now;
    const cpu = currentCpu();
    if (cpu === this.#cpu) return;
    this.#cpu = cpu;
    for (const pair of this.#watches.keys()) pair.tellCpu(cpu);
  }
}
