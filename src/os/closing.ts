/**
 * Closing what strangers have sent. The last close of a socket with SO_LINGER waits for its bytes, for as long as the stranger likes, and
 * nobody knows which close is the last. So close(2) runs on helper threads, a few at a time for each stranger; one that waits is
 * interrupted by a signal to its thread, and the kernel sends the rest without us.
 *
 * A thread for each descriptor costs ten times what closing it does. So sockets are sent into another one, which holds them then, and that one
 * is what the thread closes. Sockets only: closing a file may ask its file system, also where it is not the last close.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { closeFd } from './descriptor.ts';
import { setTimeout } from './event-loop.ts';
import { type CFunction, declare, ffi } from './ffi.ts';
import { strikeFd } from './ledger.ts';
import { MAX_DESCRIPTORS, packetSocketPair, sendPacket } from './packet.ts';
import { isSocket } from './socket-options.ts';

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
/** In a storm of connections one comes every half a millisecond. */
const SOON_MS = 4;

const underWay = new Set<{ readonly fd: number; readonly startedAt: number }>();
/** Those for which there was no thread. */
const queue = new Set<Closer>();
let timer: NodeJS.Timeout | null = null;
let close: CFunction | undefined;

interface Closing {
  readonly fd: number;
  readonly isSocket: boolean;
  readonly closed: () => void;
}

/** What one stranger has sent. What it is waited for there holds up its own only. */
export class Closer {
  readonly #waiting: Closing[] = [];
  #closing = 0;
  #isComing = false;

  /** Never blocks. Calls back when it is done. */
  close(fd: number, closed: () => void = () => {}): void {
    this.#waiting.push({ fd, isSocket: isSocket(fd), closed });
    if (this.#waiting.length >= MAX_DESCRIPTORS) this.#next();
    if (this.#isComing) return;
    this.#isComing = true;
    // With all others that come soon.
    setTimeout(() => {
      this.#isComing = false;
      this.#next();
    }, SOON_MS);
  }

  #next(): void {
    while (this.#closing < MOST_OF_ONE && this.#waiting.length > 0) {
      if (underWay.size >= MOST) {
        queue.add(this);
        return;
      }
      const some = this.#waiting.splice(0, this.#togetherNext());
      const holder = some.length > 1 ? gather(some) : null;
      if (holder === null) this.#waiting.unshift(...some.splice(1));
      this.#closing++;
      start(holder ?? (some[0] as Closing).fd, () => {
        this.#closing--;
        this.#next();
        for (const { closed } of some) closed();
      });
    }
  }

  #togetherNext(): number {
    const sockets = this.#waiting.slice(0, MAX_DESCRIPTORS).findIndex((one) => !one.isSocket);
    return sockets < 0 ? MAX_DESCRIPTORS : Math.max(sockets, 1);
  }

  static goOn(): void {
    for (const closer of queue) {
      if (underWay.size >= MOST) return;
      queue.delete(closer);
      closer.#next();
    }
  }
}

/** A socket that holds all of them. Null where there is none, or too many are on their way. */
function gather(some: readonly Closing[]): number | null {
  const fds = some.map(({ fd }) => fd);
  let pair: readonly [number, number];
  try {
    pair = packetSocketPair();
  } catch {
    return null;
  }
  const [holder, sender] = pair;
  try {
    if (!sendPacket(sender, ONE_BYTE, fds)) throw new Error('a fresh socket is full');
  } catch {
    closeFd(holder);
    return null;
  } finally {
    closeFd(sender);
  }
  for (const fd of fds) closeFd(fd); // which is not the last of it
  return holder;
}
const ONE_BYTE = Buffer.alloc(1);

function start(fd: number, done: () => void): void {
  strikeFd(fd);
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
