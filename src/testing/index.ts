/**
 * `isthmus/testing`: suites for those who write devices. They run under node:test.
 * @module
 */
export * from './device-conformance.ts';
