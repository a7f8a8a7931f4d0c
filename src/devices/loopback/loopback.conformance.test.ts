import assert from 'node:assert/strict';
import type { Device } from '../../ism/index.ts';
import { type DeviceFabric, deviceConformance, deviceTests } from '../../testing/index.ts';
import { LoopbackFabric } from './index.ts';

async function makeFabric(): Promise<DeviceFabric> {
  const fabric = new LoopbackFabric();
  const [a, b, stranger] = [fabric.createDevice(), fabric.createDevice(), fabric.createDevice()];
  return {
    a,
    b,
    stranger,
    // Inside one loop nothing can die alone; the nearest is to be closed without anybody waiting for it.
    abandon: (device: Device) => void device.close(),
    async close() {
      for (const device of [a, b, stranger]) await device.close();
      assert.equal(fabric.devices.size + fabric.dmbs.size, 0);
    },
  };
}

deviceConformance('loopback', makeFabric, {
  deviations: [{ test: deviceTests.isolation['a peer cannot read'], reason: 'both ends hold the same memory' }],
});
