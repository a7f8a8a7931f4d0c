/**
 * `isthmus/devices/loopback`: ISM inside one process. The reference that other devices are measured against.
 * @module
 */
export { LoopbackDevice, LoopbackFabric } from './device.ts';
