/**
 * `isthmus/devices/host`: ISM between the processes and threads of one host.
 * @module
 */
export { NO_DESCRIPTORS } from './channel.ts';
export { DEVICE_COUNTER, makeDeviceCounters } from './counters.ts';
export { HostDevice, type HostDeviceOptions } from './device.ts';
export { type OpenOptions, openHostDevice } from './member.ts';
export { PIECE_BYTES } from './memory.ts';
export { type Introduction, SIGNAL_CAPACITY } from './pair.ts';
