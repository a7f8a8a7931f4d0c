/**
 * `node --require isthmus/register program.js`, or `--import`: connections of the program inside this host move to shared memory by
 * themselves.
 * @module
 */
import { sharedRuntime } from './net/runtime.ts';

sharedRuntime(import.meta.url).watchAll();
