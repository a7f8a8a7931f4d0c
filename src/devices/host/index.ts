/** ISM between the processes of one host. */
export { DEVICE_COUNTER, makeDeviceCounters } from './counters.ts';
export { HostDevice, type HostDeviceOptions } from './device.ts';
export { PIECE_BYTES } from './memory.ts';
export { type Introduction, SIGNAL_CAPACITY } from './pair.ts';
