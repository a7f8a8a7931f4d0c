import { deviceConformance, deviceTests } from '../../testing/index.ts';
import { makeHostFabric } from './host.test.helper.ts';

for (const busyPollUs of [0, 200]) {
  const how = busyPollUs === 0 ? 'sleeping' : 'polling';
  deviceConformance(`host, mapped, ${how}`, makeHostFabric('mapped', busyPollUs), {
    deviations: [{ test: deviceTests.isolation['a peer cannot read'], reason: 'a mapping can be read' }],
  });
  deviceConformance(`host, store, ${how}`, makeHostFabric('store', busyPollUs));
}
