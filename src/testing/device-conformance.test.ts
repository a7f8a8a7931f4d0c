import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { LoopbackFabric } from '../devices/loopback/index.ts';
import { FAULTS, type FaultName, FaultyDevice } from '../devices/middleware/faulty.ts';
import type { Device, Dmb, Token } from '../ism/index.ts';
import { allDeviceTests, type DeviceFabric, deviceTests, runDeviceTest } from './device-conformance.ts';

async function makeFaultyFabric(fault: FaultName): Promise<DeviceFabric> {
  const fabric = new LoopbackFabric();
  const others = new Map<Token, { inner: Device; dmb: Dmb }>();
  const faulty = () => new FaultyDevice(fabric.createDevice(), fault, others);
  const [a, b, stranger] = [faulty(), faulty(), faulty()];
  return {
    a,
    b,
    stranger,
    abandon: (device) => void device.close(),
    async close() {
      for (const device of [a, b, stranger]) await device.close();
    },
  };
}

/** Titles of the tests that fail. */
async function failures(fault: FaultName): Promise<string[]> {
  const results = await Promise.all(
    allDeviceTests()
      .filter(({ run }) => run !== deviceTests.isolation['a peer cannot read']) // loopback's deviation
      .map(({ title, run }) =>
        runDeviceTest(run, () => makeFaultyFabric(fault)).then(
          () => [],
          () => [title],
        ),
      ),
  );
  return results.flat();
}

test('the wrapping alone changes nothing', async () => {
  assert.deepEqual(await failures('none'), []);
});

// At the same time: what never comes is waited for.
describe('the suite finds a device of which it is true that', { concurrency: true }, () => {
  for (const fault of FAULTS) {
    test(fault, async (t) => {
      const titles = await failures(fault);
      t.diagnostic(titles.join(', '));
      assert.ok(titles.length > 0, 'no test failed');
      assert.ok(titles.length < 16, 'a single fault is found by the tests that look for it');
    });
  }
});
