import { declare } from './ffi.ts';

const malloc = declare('malloc', 'ptr', ['usize']);
const free = declare('free', 'void', ['ptr']);

/** glibc goes up to 32 MiB. */
const LESSON_BYTES = 31 << 20;

/**
 * Teaches the C library that this program gets and frees much memory: glibc keeps up to twice the largest block that was freed, and
 * gives all above to the system. With its first threshold of 128 KiB the chunks of a stream (64 KiB each, many freed at once by the
 * garbage collector) are given back and fetched page by page again, which may take ten times longer than moving their
 * bytes. The block is never touched and costs nothing. What the user has set (MALLOC_TRIM_THRESHOLD_) holds; other C
 * libraries do not care.
 */
export function keepFreedMemory(): void {
  free(BigInt(malloc(LESSON_BYTES)));
}
