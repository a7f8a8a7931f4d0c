import { readlinkSync } from 'node:fs';
import { keepAcrossExec, kindOf } from './descriptor.ts';
import { SystemError } from './errors.ts';
import { declare, ffi } from './ffi.ts';
import { allocateScratch } from './scratch.ts';

const execvpe = declare('execvpe', 'i32', ['str', 'ptr', 'ptr']);
const signal = declare('signal', 'i64', ['i32', 'i64']);

const SIGPIPE = 13;
const SIGXFSZ = 25;
const SIG_DFL = 0;

/**
 * Node.js marks all descriptors that it finds at start as not to be inherited. Those it was started with have the numbers below its
 * first own one, which is an epoll instance; higher ones cannot be told from its own.
 */
function keepInherited(): void {
  for (let fd = 0; ; fd++) {
    const kind = kindOf(fd);
    if (fd > 2 && (kind === 'closed' || linkOf(fd) === 'anon_inode:[eventpoll]')) return;
    if (kind !== 'closed') keepAcrossExec(fd);
  }
}

function linkOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

/**
 * Replaces this program by another one, found by PATH: same process id, the descriptors it was started with, nothing in between.
 * Returns only by throwing (ENOENT, EACCES, E2BIG ...).
 */
export function replaceProcess(file: string, args: readonly string[], env: NodeJS.ProcessEnv): never {
  const texts = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
  // Two arrays of addresses, each closed by a null, then the strings themselves.
  const slots = args.length + 1 + texts.length + 1;
  const length = [...args, ...texts].reduce((sum, one) => sum + Buffer.byteLength(one) + 1, 8 * slots);
  const { address, bytes } = allocateScratch(length);
  let slot = 0;
  let text = 8 * slots;
  for (const group of [args, texts]) {
    for (const one of group) {
      bytes.writeBigUInt64LE(address + BigInt(text), slot);
      text += bytes.write(one, text) + 1; // fresh memory is zero: each string ends by itself, and so does each array
      slot += 8;
    }
    slot += 8;
  }
  keepInherited();
  // Node.js ignores these, and an ignored signal stays ignored across exec.
  for (const one of [SIGPIPE, SIGXFSZ]) signal(one, SIG_DFL);
  execvpe(file, address, address + BigInt(8 * (args.length + 1)));
  throw new SystemError('execve', ffi().errno());
}
