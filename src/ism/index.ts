/**
 * `isthmus/ism`: the ISM layer. Device and Client are its two interfaces; a Registry brings them together.
 * It knows no socket and no device.
 * @module
 */
export * from './chid.ts';
export type { Client } from './client.ts';
export * from './device.ts';
export type { Dmb, DmbRequest, RemoteDmb } from './dmb.ts';
export { Ring } from './duplex-ring.ts';
export * from './eid.ts';
export * from './errors.ts';
export * from './events.ts';
export * from './gid.ts';
export * from './order.ts';
export { MAX_CLIENTS, Registry } from './registry.ts';
export * from './ring.ts';
export * from './signal-ring.ts';
export * from './token.ts';
