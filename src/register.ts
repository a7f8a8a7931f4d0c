/**
 * `node --import isthmus/register program.js`: connections of the program inside this host move to shared memory by themselves.
 * @module
 */
import { sharedRuntime } from './net/runtime.ts';

sharedRuntime(import.meta.url).watchAll();
