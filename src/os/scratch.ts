/**
 * A page of memory at a known address, for the structures that system calls want: they hold addresses of each other, and
 * JavaScript memory has none that stays. One per thread; every use fills it and is done with it before it returns.
 */
import { SystemError } from './errors.ts';
import { declare, ffi } from './ffi.ts';

const mmap = declare('mmap', 'ptr', ['ptr', 'usize', 'i32', 'i32', 'i32', 'i64']);

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;

export const SCRATCH_BYTES = 128 * 1024;

export interface Scratch {
  readonly address: bigint;
  readonly bytes: Buffer;
}

let scratchOfThread: Scratch | undefined;

export function scratch(): Scratch {
  scratchOfThread ??= allocateScratch(SCRATCH_BYTES);
  return scratchOfThread;
}

/** Memory of its own, for what does not fit; it is never given back. */
export function allocateScratch(lengthBytes: number): Scratch {
  const address = BigInt(mmap(null, lengthBytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0));
  if (BigInt.asIntN(64, address) === -1n) throw new SystemError('mmap', ffi().errno());
  return { address, bytes: Buffer.from(ffi().view(address, lengthBytes)) };
}
