import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Eid, IsmError } from '../../src/ism/index.ts';
import { LinkGroups } from '../../src/smc/link-group.ts';
import { REASONS } from '../../src/smc/reasons.ts';
import { assertDissected, type Exchange, noDissector } from '../handshake/dissector.ts';
import { variant } from '../handshake/ends.ts';
import { flipped, UEID } from './clc.ts';
import { Host } from './host.ts';
import { KERNEL_PORT, Kernel, noKernel } from './kernel.ts';
import { pcap } from './pcap.ts';

const UEIDS = [UEID, 'ISTHMUS.B', 'ISTHMUS.C', 'LONGEST.UEID.OF.32.CHARACTERS-32'] as Eid[];

test('Wireshark reads handshakes with the kernel', { skip: noKernel || noDissector() }, async () => {
  const kernel = await Kernel.boot({ ueids: UEIDS });
  const directory = mkdtempSync(join(tmpdir(), 'isthmus-capture-'));
  try {
    const exchanges = await talk(kernel);
    const capture = join(directory, 'kernel.pcap');
    writeFileSync(capture, pcap(kernel.network.frames));
    assertDissected(capture, exchanges);
  } finally {
    rmSync(directory, { recursive: true });
    await kernel.close();
  }
});

/** Every kind of message in both directions. */
async function talk(kernel: Kernel): Promise<Exchange[]> {
  const host = new Host(kernel);
  const full = () => Promise.reject(new IsmError('ERR_ISTHMUS_NO_DMB', 'system', 'in this test'));
  const fullDevice = { devices: [variant(host.device, { registerDmb: full })] };
  const unknownDevice = { devices: [variant(host.device, { gid: flipped(host.device.gid, 0) })] };
  const exchanges: Exchange[] = [];
  const asClient = async (name: string, has = {}) => {
    const { connection, messages } = await host.connect(has);
    exchanges.push({ name, messages, clientPort: connection.localPort, serverPort: KERNEL_PORT });
  };
  const asServer = async (name: string, has = {}) => {
    const { connection, messages } = await host.accept(has);
    exchanges.push({ name, messages, clientPort: connection.peerPort, serverPort: connection.localPort });
  };

  await asClient('we connect: no DMB is left', fullDevice);
  await asClient('we connect: first contact');
  await asClient('we connect: reuse of the link group');
  for (let count = 2; count <= UEIDS.length; count++) {
    await asClient(`we connect: ${count} UEIDs`, { ueids: UEIDS.slice(-count) });
  }
  await asClient('we connect: no UEID', { ueids: [] });
  await asClient('we connect: no common UEID', { ueids: ['NO.SUCH'] });
  await asClient('we connect: the device is not reached', unknownDevice);
  await asClient('we connect: no device', { devices: [] });
  await asServer('the kernel connects: reuse of the link group');
  await asServer('the kernel connects: first contact', { groups: new LinkGroups() });
  await asServer('the kernel connects: no device', { devices: [] });
  await asServer('the kernel connects: no DMB is left', fullDevice);
  await asServer('the kernel connects: not wanted', { refusal: REASONS.OPTUNSUPP });
  await asClient('we connect: out of sync', { groups: new LinkGroups() });
  return exchanges;
}
