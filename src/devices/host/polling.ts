/**
 * Waiting for peers: a partition looks at the pairs that had traffic, for a short budget; then it says that it sleeps, looks once
 * more, and leaves the rest to the doorbell.
 *
 * The budget is earned: it is full when the last wait was shorter than it, and halved when it was spent for nothing. How we wait
 * depends on where the peer runs: beside us, we spin; on our own CPU, we give it away after each look, as long as that brings something;
 * and with a quota of less than two CPUs' time we sleep at once, since spinning would take the time from the peer. So we do where others
 * have the CPU all the time: who has spun gets it late, and who has slept when it is woken.
 * And all spinning together has a limit (spin-allowance.ts).
 */
import { count } from '../../ism/counters.ts';
import { now as clock, isTurnWanted, nextTick, setImmediate } from '../../os/event-loop.ts';
import { allowedCpus, cgroupCpus, currentCpu, yieldCpu } from '../../os/index.ts';
import { DEVICE_COUNTER, makeDeviceCounters } from './counters.ts';
import { SpinAllowance } from './spin-allowance.ts';

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
/** Less than that is not worth a turn. */
const SMALLEST_BUDGET_MS = 0.01;
/** Looks for nothing between two turns of the event loop. */
const LOOKS_PER_TURN = 768;
/** Of them in one go, at least: else as many as a part of those that there were. */
const LOOKS_AT_ONCE = 16;
const PART_AT_ONCE = 1 / 4;
/** How often the CPU is given away for nothing between two turns. */
const YIELDS_PER_TURN = 4;
/** An answer that takes more of that comes sooner to who sleeps: the peer has the CPU in one piece then. */
const YIELDS_PER_ANSWER = 2;
/** So often in a row for nothing or too often, and the CPU is not given away for this pair for a while: that costs us our share of it. */
const MISSES = 4;
const MISSED_FOR_MS = 100;
/** However much is found, everything else that the program waits for has its turn after that time. */
const TURN_MS = 0.2;
/** A CPU that was away for so long, while we waited, is wanted by others too. */
const STALL_MS = 0.5;
/** A stall costs so many times what it costs to be woken: it pays where so much was found since the one before, and else not to wait. */
const FOUND_PER_STALL = 16;
/** How long we do not, at first and at most. */
const CROWDED_FOR_MS = 50;
const CROWDED_FOR_MOST_MS = 200;
/** Without a stall for that time, it is no longer so crowded. */
const CALM_MS = 1000;
/** What a turn of the event loop costs. */
const TURN_COST_MS = 0.005;
/** How often it is looked where we run. */
const PLACE_MS = 0.1;
/** How often the number of CPUs is asked for. */
const CPU_CHECK_MS = 1000;

/** Its `then` is the cheapest way to a microtask. */
const RESOLVED = Promise.resolve();

type Manner = 'spin' | 'yield' | 'sleep';

interface Watch {
  budgetMs: number;
  lastFound: number;
  /** Something was found since `lastFound` was set. */
  found: boolean;
  /** How often the CPU had been given away when something was found. */
  yieldsAtFound: number;
  /** How often in a row the CPU was given away for nothing between two turns, or too often for what came. */
  misses: number;
  /** Until then it is not tried. */
  missedUntil: number;
}

export class Polling {
  readonly #maxBudgetMs: number;
  readonly #watches = new Map<PolledPair, Watch>();
  readonly #active = new Set<PolledPair>();
  #scheduled = false;
  #cpusCheckedAt = Number.NEGATIVE_INFINITY;
  #hasTime = false;
  #crowdedUntil = 0;
  #crowdedForMs = CROWDED_FOR_MS;
  #foundSinceStall = 0;
  readonly #allowance = new SpinAllowance();
  #looksLeft = 0;
  #yieldsLeft = 0;
  #yields = 0;
  #turnEnds = 0;
  #placedAt = Number.NEGATIVE_INFINITY;
  #cpu = -1;
  readonly #counters: Float64Array;

  /** @param budgetUs the longest time to look for nothing; 0 = always sleep at once. */
  constructor(budgetUs = DEFAULT_BUDGET_US, counters = makeDeviceCounters()) {
    this.#maxBudgetMs = budgetUs / 1000;
    this.#counters = counters;
  }

  add(pair: PolledPair): void {
    pair.tellPlace(currentCpu(), allowedCpus());
    this.#watches.set(pair, {
      budgetMs: this.#maxBudgetMs,
      lastFound: 0,
      found: false,
      yieldsAtFound: 0,
      misses: 0,
      missedUntil: 0,
    });
    this.#rest(pair);
  }

  remove(pair: PolledPair): void {
    this.#watches.delete(pair);
    this.#active.delete(pair);
  }

  /** The doorbell of a pair was rung. */
  rung(pair: PolledPair): void {
    const watch = this.#watches.get(pair);
    if (watch === undefined || this.#active.has(pair)) return;
    count(this.#counters, DEVICE_COUNTER.wakeUps);
    const now = clock();
    // Waiting a little longer would have paid.
    if (now - watch.lastFound < this.#maxBudgetMs) watch.budgetMs = this.#maxBudgetMs;
    watch.lastFound = now;
    const waits = watch.budgetMs > 0 && this.#manner(now, pair, watch) !== 'sleep';
    if (waits) {
      pair.wake();
      this.#place(now);
    }
    pair.look();
    if (!waits) {
      this.#rest(pair);
    } else if (!pair.isDead) {
      watch.yieldsAtFound = this.#yields;
      this.#active.add(pair);
      this.#schedule();
    }
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  #manner(now: number, pair: PolledPair, watch: Watch): Manner {
    if (this.#maxBudgetMs === 0) return 'sleep';
    if (now - this.#cpusCheckedAt > CPU_CHECK_MS) {
      this.#cpusCheckedAt = now;
      this.#hasTime = cgroupCpus() >= 2;
      const allowed = allowedCpus();
      for (const one of this.#watches.keys()) one.tellPlace(currentCpu(), allowed);
    }
    if (!this.#hasTime) return 'sleep';
    if (now < this.#crowdedUntil) return 'sleep';
    if (pair.canRunBeside && !pair.isOnOurCpu) return this.#allowance.isLeft(now) ? 'spin' : 'sleep';
    return now < watch.missedUntil ? 'sleep' : 'yield';
  }

  /** Marks asleep, and looks again: what was written before the mark was not rung for. */
  #rest(pair: PolledPair): void {
    if (pair.isDead || !this.#watches.has(pair)) return;
    count(this.#counters, DEVICE_COUNTER.sleeps);
    pair.sleep();
    // The peer did not ring for what is found now, and will not ring again for this mark.
    if (pair.look() > 0) setImmediate(() => this.rung(pair));
  }

  /** One turn of the event loop: a look at every active pair, and more of them between this turn and the next. */
  readonly #turn = (): void => {
    this.#scheduled = false;
    const now = clock();
    if (now - this.#placedAt > PLACE_MS) this.#place(now);
    let spins = false;
    for (const pair of this.#active) {
      const watch = this.#watches.get(pair);
      if (watch === undefined) continue;
      this.#lookAt(pair, watch);
      const manner = this.#manner(now, pair, watch);
      if (manner === 'spin') spins = true;
      if (watch.found) {
        watch.found = false;
        watch.lastFound = now;
        watch.budgetMs = this.#maxBudgetMs;
      }
      const isSpent = now - watch.lastFound > watch.budgetMs;
      if (isSpent) watch.budgetMs = watch.budgetMs > SMALLEST_BUDGET_MS ? watch.budgetMs / 2 : 0;
      if (isSpent || manner === 'sleep' || (manner === 'yield' && this.#noteMiss(watch, now))) {
        this.#active.delete(pair);
        this.#rest(pair);
      }
    }
    if (this.#active.size === 0) return;
    if (spins) this.#allowance.spent(TURN_COST_MS);
    this.#schedule();
    this.#expectMore();
    this.#turnEnds = clock() + TURN_MS;
    void RESOLVED.then(spins ? this.#hop : this.#yield);
  };

  /** Whether the peer has had our CPU and has not answered: it needs it longer, or another one. */
  #noteMiss(watch: Watch, now: number): boolean {
    if (this.#yields - watch.yieldsAtFound < YIELDS_PER_TURN) return false;
    this.#missed(watch, now);
    return true;
  }

  #missed(watch: Watch, now: number): void {
    if (++watch.misses < MISSES) return;
    watch.misses = 0;
    watch.missedUntil = now + MISSED_FOR_MS;
  }

  /**
   * A turn costs a system call, and an answer often comes sooner. Until the next turn we go on looking, in microtasks: what the
   * program has to do in ticks and microtasks comes first whenever something was found; later it waits a microsecond each time, and more
   * when it has had its chance.
   */
  readonly #hop = (): void => {
    const before = clock();
    if (this.#looksLeft <= 0 || before > this.#turnEnds || isTurnWanted()) return;
    const isFound = this.#waitForWork();
    // Within a hop nothing of the program's takes time.
    const after = clock();
    this.#lookForStall(before, after);
    this.#allowance.spent(after - before);
    if (isFound) this.#takeFound(this.#hop);
    else void RESOLVED.then(this.#hop);
  };

  #expectMore(): void {
    this.#looksLeft = LOOKS_PER_TURN;
    this.#yieldsLeft = YIELDS_PER_TURN;
  }

  /** One look is one pair; without any the loop has to end as well. */
  #waitForWork(): boolean {
    const done = LOOKS_PER_TURN - this.#looksLeft;
    const until = Math.max(0, this.#looksLeft - Math.max(LOOKS_AT_ONCE, done * PART_AT_ONCE));
    for (; this.#looksLeft > until; this.#looksLeft -= this.#active.size || 1) if (this.#hasWork()) return true;
    return false;
  }

  #hasWork(): boolean {
    for (const pair of this.#active) if (pair.hasWork) return true;
    return false;
  }

  /** What was found, of every pair; then what the program has to do for it, and on. */
  #takeFound(goOn: () => void): void {
    this.#expectMore();
    for (const pair of this.#active) if (pair.hasWork) this.#lookAt(pair);
    nextTick(this.#afterTicks, goOn);
  }

  /** In a microtask of the program may stand a tick, and in that tick the listener of what comes next. */
  readonly #afterTicks = (look: () => void): void => {
    void RESOLVED.then(look);
  };

  /** The peer runs on our CPU, if at all: it is its turn. */
  readonly #yield = (): void => {
    const before = clock();
    if (--this.#yieldsLeft < 0 || before > this.#turnEnds || isTurnWanted()) return;
    yieldCpu();
    this.#yields++;
    this.#lookForStall(before, clock());
    count(this.#counters, DEVICE_COUNTER.yields);
    if (this.#hasWork()) this.#takeFound(this.#yield);
    else void RESOLVED.then(this.#yield);
  };

  /** Others have had the CPU while we looked: only being woken gets us our turn in time then, unless much comes each time we have it. */
  #lookForStall(before: number, now: number): void {
    if (now - before < STALL_MS) return;
    const pays = this.#foundSinceStall >= FOUND_PER_STALL;
    this.#foundSinceStall = 0;
    if (pays || now - this.#crowdedUntil > CALM_MS) this.#crowdedForMs = CROWDED_FOR_MS;
    if (pays) return;
    this.#crowdedUntil = now + this.#crowdedForMs;
    this.#crowdedForMs = Math.min(2 * this.#crowdedForMs, CROWDED_FOR_MOST_MS);
  }

  #lookAt(pair: PolledPair, watch = this.#watches.get(pair)): void {
    count(this.#counters, DEVICE_COUNTER.looks);
    if (pair.look() === 0) return;
    count(this.#counters, DEVICE_COUNTER.found);
    this.#allowance.found();
    this.#foundSinceStall++;
    if (watch === undefined) return;
    watch.found = true;
    const yields = this.#yields - watch.yieldsAtFound;
    watch.yieldsAtFound = this.#yields;
    if (yields > YIELDS_PER_ANSWER) this.#missed(watch, clock());
    else watch.misses = 0;
  }

  /** Tells peers where we run, when that has changed. */
  #place(now: number): void {
    this.#placedAt = now;
    const cpu = currentCpu();
    if (cpu === this.#cpu) return;
    this.#cpu = cpu;
    for (const pair of this.#watches.keys()) pair.tellCpu(cpu);
  }
}
