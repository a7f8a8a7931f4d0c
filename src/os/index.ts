/**
 * The only place that calls the system through FFI. Linux, 64 bit, little-endian; everywhere else the first call throws
 * OsUnavailableError and Isthmus stays on TCP. Everything here that opens a descriptor has a caller that closes it.
 */
export * from './cgroup.ts';
export * from './closing.ts';
export * from './descriptor.ts';
export * from './doorbell.ts';
export * from './errors.ts';
export { ffi, type PollHandle } from './ffi.ts';
export * from './heap.ts';
export { openLedger, watchWorker } from './ledger.ts';
export * from './lock.ts';
export * from './memory.ts';
export * from './packet.ts';
export * from './pipe.ts';
export * from './readiness.ts';
export * from './sched.ts';
export * from './socket-options.ts';
export * from './tcp-bytes.ts';
export { tcpPair } from './tcp-pair.ts';
export { watchWorkers } from './workers.ts';
