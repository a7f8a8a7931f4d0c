/** Devices and clients, and who is told of whom (drivers/dibs/dibs_main.c). */
import type { Client } from './client.ts';
import type { Device } from './device.ts';
import { IsmError } from './errors.ts';

export const MAX_CLIENTS = 8;

export class Registry {
  readonly #devices = new Set<Device>();
  readonly #clients = new Set<Client>();

  get devices(): Iterable<Device> {
    return this.#devices;
  }

  /** Every client is told before the device is listed. */
  addDevice(device: Device): void {
    device.setEventListener((event) => {
      if (!this.#devices.has(device)) return;
      for (const client of [...this.#clients]) client.handleEvent(device, event);
    });
    for (const client of [...this.#clients]) client.addDevice(device);
    this.#devices.add(device);
  }

  /** Order as in Linux: no more events, clients told, out of the list, device closed. */
  async removeDevice(device: Device): Promise<void> {
    if (!this.#devices.delete(device)) return;
    device.setEventListener(() => {});
    for (const client of [...this.#clients]) client.removeDevice(device);
    await device.close();
  }

  /** Throws IsmError BUSY when there are eight already. */
  registerClient(client: Client): void {
    if (this.#clients.size === MAX_CLIENTS) {
      throw new IsmError('ERR_ISTHMUS_BUSY', 'local', `there are ${MAX_CLIENTS} clients already`);
    }
    this.#clients.add(client);
    for (const device of [...this.#devices]) client.addDevice(device);
  }

  /** Throws IsmError BUSY while a device has DMBs of this client. */
  unregisterClient(client: Client): void {
    for (const device of this.#devices) {
      if (device.dmbsOf(client) > 0) {
        throw new IsmError('ERR_ISTHMUS_BUSY', 'local', `client ${client.name} has DMBs on device ${device.name}`);
      }
    }
    if (!this.#clients.delete(client)) return;
    for (const device of [...this.#devices]) client.removeDevice(device);
  }
}
