/**
 * `isthmus/testing`: suites for those who write devices, or carry the bytes of sockets. They run under node:test.
 * @module
 */
export * from './device-conformance.ts';
export * from './socket-conformance.ts';
