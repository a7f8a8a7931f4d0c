import type { Gid } from './gid.ts';

/** Told to every client of a device. */
export type IsmEvent =
  /** The peer has died or left: its DMBs and ours for it are of no more use. */
  | { readonly type: 'peer-gone'; readonly gid: Gid; readonly cause: string }
  /** Sent by a client of the peer with `Device.signalEvent`; the code is the clients' own. */
  | { readonly type: 'software'; readonly gid: Gid; readonly code: number; readonly data: bigint };

/** Codes that SMC-D uses for software events (smc_ism.c). */
export const EVENT_SMCD_SHUTDOWN = 0x80;
export const EVENT_SMCD_TESTLINK = 0x83;
