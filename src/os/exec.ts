import { SystemError } from './errors.ts';
import { declare, ffi } from './ffi.ts';
import { allocateScratch } from './scratch.ts';

const execvpe = declare('execvpe', 'i32', ['str', 'ptr', 'ptr']);
const signal = declare('signal', 'i64', ['i32', 'i64']);

const SIGPIPE = 13;
const SIG_DFL = 0;

/**
 * Replaces this program by another one, found by PATH: same process id, same descriptors 0 to 2, nothing in between.
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
  signal(SIGPIPE, SIG_DFL); // Node.js ignores it, and an ignored signal stays ignored across exec
  execvpe(file, address, address + BigInt(8 * (args.length + 1)));
  throw new SystemError('execve', ffi().errno());
}
