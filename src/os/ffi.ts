/**
 * The seam between Isthmus and C: what a foreign function interface must do for us, and koffi as the one that does it.
 * koffi is an optional dependency and is loaded on first need (6-8 ms, 2.5 MB), never at import.
 *
 * What is deliberately not used: koffi's poll. Its callback aborts the process when a watched descriptor is readable while
 * Node.js closes its handles, at the natural end of a program and at `worker.terminate()`. See doorbell.ts for what we do instead.
 */
import { createRequire } from 'node:module';
import { OsUnavailableError, SystemError } from './errors.ts';
import { unterminated } from './termination.ts';

/** Types of parameters and results. `ptr` takes a Buffer, a typed array, an address (bigint) or null, and gives an address. */
export type CType = 'i32' | 'u32' | 'i64' | 'usize' | 'ptr' | 'str' | 'void';

export type CArgument = number | bigint | string | null | Uint8Array;

/** A C function. 64-bit results come as number when they fit into one exactly, else as bigint. */
export type CFunction = (...args: CArgument[]) => number | bigint;

export interface PollHandle {
  close(): void;
}

export interface Ffi {
  /** Throws when the C library has no such function. */
  func(name: string, result: CType, parameters: readonly CType[]): CFunction;
  /** Runs on a helper thread; the callback gets the result. */
  async(fn: CFunction, args: readonly CArgument[], callback: (result: number) => void): void;
  /** errno of the last call made on this thread. */
  errno(): number;
  /** Memory at an address, without a copy. Touching it after it was unmapped ends the process. */
  view(address: bigint, lengthBytes: number): ArrayBuffer;
  /** Level-triggered readability. Only for a process that ends by `process.exit`: see the head of this file. */
  poll(fd: number, readable: () => void): PollHandle;
}

const KOFFI_TYPES: Record<CType, string> = {
  i32: 'int',
  u32: 'unsigned int',
  i64: 'int64_t',
  usize: 'size_t',
  ptr: 'void *',
  str: 'const char *',
  void: 'void',
};

/** The part of koffi that is used; its own types are not needed to build without it. */
interface Koffi {
  load(path: null): { func(name: string, result: string, parameters: string[]): KoffiFunction };
  errno(): number;
  view(address: bigint, length: number): ArrayBuffer;
  node: { poll(fd: number, options: { readable: true }, callback: () => void): PollHandle };
}
type KoffiFunction = CFunction & { async(...args: unknown[]): void };

let loaded: Ffi | undefined;

/** The FFI of this thread. Throws OsUnavailableError with the reason where there is none. */
export function ffi(): Ffi {
  loaded ??= unterminated(loadKoffi);
  return loaded;
}

function loadKoffi(): Ffi {
  if (process.platform !== 'linux') {
    throw new OsUnavailableError('ERR_ISTHMUS_PLATFORM', `shared memory needs Linux, this is ${process.platform}`);
  }
  let koffi: Koffi;
  try {
    koffi = createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new OsUnavailableError('ERR_ISTHMUS_FFI', `the optional package koffi cannot be loaded: ${reason}`, error);
  }
  const libc = koffi.load(null);
  const polls = new Set<PollHandle>();
  return {
    func: (name, result, parameters) =>
      unterminated(() =>
        libc.func(
          name,
          KOFFI_TYPES[result],
          parameters.map((type) => KOFFI_TYPES[type]),
        ),
      ),
    async: (fn, args, callback) =>
      (fn as KoffiFunction).async(...args, (error: unknown, result: number) => callback(error ? -1 : result)),
    errno: () => koffi.errno(),
    view: (address, lengthBytes) => unterminated(() => koffi.view(address, lengthBytes)),
    poll(fd, readable) {
      const handle = koffi.node.poll(fd, { readable: true }, () => readable());
      polls.add(handle); // a handle that is garbage-collected stops without a word
      return {
        close() {
          if (polls.delete(handle)) handle.close();
        },
      };
    },
  };
}

/** Declares a function of the C library; it is looked up at its first call. */
export function declare(name: string, result: CType, parameters: readonly CType[]): CFunction {
  let fn: CFunction | undefined;
  return (...args) => {
    fn ??= ffi().func(name, result, parameters);
    return fn(...args);
  };
}

/** The result of a call as a number; a negative one becomes a SystemError. */
export function check(syscall: string, result: number | bigint): number {
  const value = Number(result);
  if (value < 0) throw new SystemError(syscall, ffi().errno());
  return value;
}
