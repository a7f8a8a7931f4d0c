import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countingClient } from '../../smc/connection.test.helper.ts';
import { eventually } from '../../testing/index.ts';
import type { HostDevice } from './device.ts';
import { makeHostFabric } from './host.test.helper.ts';

test('memory of a peer that has died is let go of when nothing of it is attached any more', async () => {
  const { a, b, abandon, close } = await makeHostFabric('mapped', 0)();
  const register = () => b.registerDmb({ peer: a.gid, lengthBytes: 16384, client: countingClient({ count: 0 }) });
  const dmbs = [await register(), await register()];
  const [one, other] = await Promise.all(dmbs.map(({ token }) => a.attachDmb(token)));
  assert.ok(one?.bytes && other?.bytes);
  one.bytes.write('written');
  abandon(b);
  await eventually('the pair has ended', () => !(a as HostDevice).peers.includes(b.gid));
  a.detachDmb(other);
  assert.equal(String(one.bytes.subarray(0, 7)), 'written', 'a reservation in it may be read');
  a.detachDmb(one);
  assert.equal(one.bytes[0], 0);
  assert.equal(String(dmbs[0]?.bytes.subarray(0, 7)), 'written', 'it is not memory of the peer any more');
  for (const dmb of dmbs) await b.unregisterDmb(dmb);
  await close();
});
