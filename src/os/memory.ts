/**
 * Memory that two processes share: memfd, seals, mappings.
 *
 * A mapping is never unmapped while JavaScript can reach it (touching it would be a SIGSEGV): `map` ties munmap to the
 * garbage collection of its ArrayBuffer, so a mapping lives exactly as long as the last view on it.
 */
import { cgroupMemoryBytes } from './cgroup.ts';
import { closeFd, noted } from './descriptor.ts';
import { EINVAL, ENOMEM, SystemError } from './errors.ts';
import { check, declare, ffi } from './ffi.ts';
import { noteMapping, strikeMapping } from './ledger.ts';

const memfd_create = declare('memfd_create', 'i32', ['str', 'u32']);
const ftruncate = declare('ftruncate', 'i32', ['i32', 'i64']);
const fcntl = declare('fcntl', 'i32', ['i32', 'i32', 'i64']);
const mmap = declare('mmap', 'ptr', ['ptr', 'usize', 'i32', 'i32', 'i32', 'i64']);
const munmap = declare('munmap', 'i32', ['ptr', 'usize']);
const fallocate = declare('fallocate', 'i32', ['i32', 'i32', 'i64', 'i64']);
const madvise = declare('madvise', 'i32', ['ptr', 'usize', 'i32']);
const open = declare('open', 'i32', ['str', 'i32', 'i32']);
const pwrite = declare('pwrite', 'i64', ['i32', 'ptr', 'usize', 'i64']);

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_NOEXEC_SEAL = 8; // Linux 6.3
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;
const F_SEAL_WRITE = 8;
const F_SEAL_FUTURE_WRITE = 16;
const SIZE_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_FIXED = 0x10;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const O_WRONLY = 1;
const O_CLOEXEC = 0x80000;
const MADV_DONTFORK = 10;
const MADV_DONTDUMP = 16;

/** A memfd of fixed size, sealed so that nobody can shrink it under our feet (SIGBUS), grow it, or seal it further. */
export function createSharedMemory(name: string, lengthBytes: number): number {
  const fd = createMemfd(name);
  try {
    check('ftruncate', ftruncate(fd, lengthBytes));
    check('fcntl', fcntl(fd, F_ADD_SEALS, SIZE_SEALS));
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

function createMemfd(name: string): number {
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const fd = Number(memfd_create(name, flags | MFD_NOEXEC_SEAL));
  if (fd >= 0) return noted(fd);
  if (ffi().errno() !== EINVAL) throw new SystemError('memfd_create', ffi().errno());
  return noted(check('memfd_create', memfd_create(name, flags)));
}

/**
 * Whether a descriptor from elsewhere is memory whose size and seals cannot change any more, and which can be written. False for
 * anything that is no memfd.
 */
export function isSizeSealed(fd: number): boolean {
  const seals = Number(fcntl(fd, F_GET_SEALS, 0));
  return seals >= 0 && (seals & (SIZE_SEALS | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) === SIZE_SEALS;
}

/**
 * Gives pages to a range now, so that a lack of memory is an error here and never a fault later.
 * Throws ENOSPC or ENOMEM. Over the limit of a cgroup the kernel would not refuse, but kill a process of it.
 */
export function populate(fd: number, offset: number, lengthBytes: number): void {
  const now = performance.now();
  if (now - lookedAt > LOOK_AGAIN_MS || roomBytes < lengthBytes) {
    roomBytes = cgroupMemoryBytes();
    lookedAt = now;
  }
  if (roomBytes < lengthBytes) throw new SystemError('fallocate', ENOMEM);
  roomBytes -= lengthBytes;
  check('fallocate', fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, lengthBytes));
}

/** A look takes some tenths of a millisecond. */
const LOOK_AGAIN_MS = 100;
let lookedAt = Number.NEGATIVE_INFINITY;
let roomBytes = 0;

/** Gives the pages of a range back. What is mapped there reads as zeros afterwards, on both sides. */
export function giveBack(fd: number, offset: number, lengthBytes: number): void {
  check('fallocate', fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, lengthBytes));
}

interface Mapping {
  readonly address: bigint;
  readonly lengthBytes: number;
}
const mappings = new WeakMap<ArrayBuffer, Mapping>();
const unmapper = new FinalizationRegistry<Mapping>(({ address, lengthBytes }) => {
  strikeMapping(address);
  munmap(address, lengthBytes);
});

/** Of a thread that has ended: nobody can reach it any more. */
export function unmapRemains(address: bigint, lengthBytes: number): void {
  munmap(BigInt.asUintN(64, address), lengthBytes);
}

/** Maps shared memory for reading and writing. The mapping ends when the ArrayBuffer is garbage-collected. */
export function map(fd: number, lengthBytes: number): ArrayBuffer {
  const address = mapAt(null, fd, lengthBytes);
  noteMapping(address, lengthBytes);
  const memory = ffi().view(address, lengthBytes);
  const mapping = { address, lengthBytes };
  mappings.set(memory, mapping);
  unmapper.register(memory, mapping);
  return memory;
}

/**
 * Lets go of what was mapped, now: views that still exist read zeros, and what is stored through them reaches nobody. Without this the
 * memory of a peer that has died would stay, and count against its cgroup, until our garbage is collected.
 */
export function forsake(memory: ArrayBuffer): void {
  const mapping = mappings.get(memory);
  if (mapping === undefined || !mappings.delete(memory)) return;
  try {
    // Not anonymous memory: the kernel may refuse that when it has unmapped what was there.
    const fd = createSharedMemory('isthmus-forsaken', mapping.lengthBytes);
    try {
      mapAt(mapping.address, fd, mapping.lengthBytes);
    } finally {
      closeFd(fd);
    }
  } catch {
    // No descriptor is left, or no memory: it goes with the garbage.
  }
}

/** @param at what is mapped there is replaced; null: where there is room */
function mapAt(at: bigint | null, fd: number, lengthBytes: number): bigint {
  const flags = at === null ? MAP_SHARED : MAP_SHARED | MAP_FIXED;
  const address = BigInt(mmap(at, lengthBytes, PROT_READ | PROT_WRITE, flags, fd, 0));
  if (BigInt.asIntN(64, address) === -1n) throw new SystemError('mmap', ffi().errno());
  // Neither a forked child nor a core file has any business with a peer's bytes.
  madvise(address, lengthBytes, MADV_DONTFORK);
  madvise(address, lengthBytes, MADV_DONTDUMP);
  return address;
}

/** A second descriptor on the same memory that can be written (pwrite) but neither read nor mapped. Needs /proc. */
export function openWriteOnly(fd: number): number {
  // Not fs.openSync: a worker thread would close the number a second time when it ends.
  return noted(check('open', open(`/proc/self/fd/${fd}`, O_WRONLY | O_CLOEXEC, 0)));
}

/** Stores bytes through a descriptor. A range that leaves the memory is an error, even when a part of it was stored. */
export function store(fd: number, data: Uint8Array, offset: number): void {
  const stored = check('pwrite', pwrite(fd, data, data.byteLength, offset));
  if (stored !== data.byteLength) throw new RangeError(`stored ${stored} of ${data.byteLength} bytes at ${offset}`);
}
