import type { Device } from './device.ts';
import type { Dmb } from './dmb.ts';
import type { IsmEvent } from './events.ts';

/**
 * Who uses devices; SMC-D is one. At most eight are registered at a time.
 *
 * `addDevice` is called once for every device, at registration or when the device comes; `removeDevice` once when either
 * goes, after which the device must not be used.
 * `handleSignal` and `handleEvent` are called from the event loop, never from inside a call of the client's own, and must
 * not throw. Signals of one DMB may have been merged into one call. A client copes with a signal for what it already gave up.
 */
export interface Client {
  readonly name: string;
  addDevice(device: Device): void;
  removeDevice(device: Device): void;
  handleSignal(device: Device, dmb: Dmb): void;
  handleEvent(device: Device, event: IsmEvent): void;
}
