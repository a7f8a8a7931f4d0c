/** Host devices in one event loop, introduced as the fabric does it. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { type Device, randomGid, virtualChid } from '../../ism/index.ts';
import { createPipe, packetSocketPair, testDoorbell } from '../../os/index.ts';
import { type DeviceFabric, eventually } from '../../testing/index.ts';
import { HostDevice } from './index.ts';

function introduce(one: HostDevice, other: HostDevice): void {
  const [channelOne, channelOther] = packetSocketPair();
  const [toOne, toOther] = [createPipe(), createPipe()];
  one.addPair({ peer: other.gid, channelFd: channelOne, wakeFd: toOne.readFd, ringFd: toOther.writeFd });
  other.addPair({ peer: one.gid, channelFd: channelOther, wakeFd: toOther.readFd, ringFd: toOne.writeFd });
}

export function makeHostFabric(access: 'mapped' | 'store', busyPollUs: number) {
  return async (): Promise<DeviceFabric> => {
    await testDoorbell();
    const before = readdirSync('/proc/self/fd').length;
    const chid = virtualChid(1);
    const device = () => new HostDevice({ gid: randomGid(), chid, access, busyPollUs, maxDmbs: 300 });
    const [a, b, stranger] = [device(), device(), device()];
    introduce(a, b);
    introduce(a, stranger);
    introduce(b, stranger);
    assert.ok((await a.queryRemoteGid(b.gid)) && (await b.queryRemoteGid(a.gid)));
    return {
      a,
      b,
      stranger,
      // What a kill does: all descriptors are closed, nothing is said.
      abandon: (device: Device) => {
        const host = device as HostDevice;
        for (const peer of host.peers) host.endPair(peer, 'abandoned');
      },
      async close() {
        for (const device of [a, b, stranger]) await device.close();
        await eventually('all descriptors are closed', () => readdirSync('/proc/self/fd').length === before);
      },
    };
  };
}
