/**
 * Closing what strangers have sent. The last close of a socket with SO_LINGER waits for its bytes, for as long as the stranger likes, and
 * nobody knows which close is the last. So close(2) runs on helper threads, a few at a time for each stranger; one that waits is
 * interrupted by a signal to its thread, and the kernel sends the rest without us.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { type CFunction, declare, ffi } from './ffi.ts';
import { strikeFd } from './ledger.ts';

const syscall = declare('syscall', 'i64', ['i64', 'i64', 'i64', 'i64']);
const signal = declare('signal', 'i64', ['i32', 'i64']);
const dlsym = declare('dlsym', 'i64', ['ptr', 'str']);

/** Numbers of system calls: close, tgkill. */
const NUMBERS: { readonly [arch: string]: readonly [close: number, tgkill: number] } = {
  x64: [3, 234],
  arm64: [57, 131],
  riscv64: [57, 131],
  loong64: [57, 131],
  ppc64: [6, 250],
  s390x: [6, 241],
};
/** The last real-time signal: neither Node.js nor the C library has a use for it. */
const SIGNAL = 64;

/** Of one stranger. A program that sets nothing has four helper threads, and needs them for its files. */
const MOST_OF_ONE = 2;
/** koffi throws at the 65th call that is under way. */
const MOST = 64;
const LATE_MS = 20;

const underWay = new Set<{ readonly fd: number; readonly startedAt: number }>();
/** Those for which there was no thread. */
const queue = new Set<Closer>();
let timer: NodeJS.Timeout | null = null;
let close: CFunction | undefined;

/** What one stranger has sent. What it is waited for there holds up its own only. */
export class Closer {
  readonly #waiting: { readonly fd: number; readonly closed: () => void }[] = [];
  #closing = 0;

  /** Never blocks. Calls back when it is done. */
  close(fd: number, closed: () => void = () => {}): void {
    strikeFd(fd);
    this.#waiting.push({ fd, closed });
    this.#next();
  }

  #next(): void {
    while (this.#closing < MOST_OF_ONE) {
      if (underWay.size >= MOST) {
        queue.add(this);
        return;
      }
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#closing++;
      start(next.fd, () => {
        this.#closing--;
        this.#next();
        next.closed();
      });
    }
  }

  static goOn(): void {
    for (const closer of queue) {
      if (underWay.size >= MOST) return;
      queue.delete(closer);
      closer.#next();
    }
  }
}

function start(fd: number, done: () => void): void {
  if (close === undefined) {
    close = ffi().func('close', 'i32', ['i32']);
    process.on('exit', () => interrupt(0)); // it waits for its threads
  }
  const closing = { fd, startedAt: performance.now() };
  underWay.add(closing);
  if (timer === null) timer = setTimeout(late, LATE_MS).unref();
  ffi().async(close, [fd], () => {
    underWay.delete(closing);
    done();
    Closer.goOn();
  });
}

function late(): void {
  timer = null;
  interrupt(LATE_MS);
  if (underWay.size > 0) timer = setTimeout(late, LATE_MS).unref();
}

/** Without /proc, or where the signal is the program's, they wait: for each stranger a few. */
function interrupt(afterMs: number): void {
  const before = performance.now() - afterMs;
  const fds = new Set([...underWay].filter(({ startedAt }) => startedAt <= before).map(({ fd }) => fd));
  const numbers = NUMBERS[process.arch];
  if (fds.size === 0 || numbers === undefined || !canInterrupt()) return;
  const [closeNumber, tgkill] = numbers;
  for (const thread of threads()) {
    const [number, argument] = callOf(thread);
    if (Number(number) === closeNumber && fds.has(Number(argument)))
      syscall(tgkill, process.pid, Number(thread), SIGNAL);
  }
}

/** The handler has to do nothing at all, and be no JavaScript: abs(3) is as good as any. */
function canInterrupt(): boolean {
  const nothing = dlsym(null, 'abs');
  const before = signal(SIGNAL, nothing);
  if (Number(before) === 0 || before === nothing) return true;
  signal(SIGNAL, before);
  return false;
}

function threads(): readonly string[] {
  try {
    return readdirSync('/proc/self/task');
  } catch {
    return [];
  }
}

/** The system call that a thread is in: its number and first argument. */
function callOf(thread: string): readonly string[] {
  try {
    return readFileSync(`/proc/self/task/${thread}/syscall`, 'latin1').split(' ', 2);
  } catch {
    return []; // it has ended, or may not be looked at
  }
}
