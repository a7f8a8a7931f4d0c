/** What a partition gives back when its connections have ended. Both are in this loop; the fabric between them is real. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Partition } from '../../src/net/partition.ts';
import { DEFAULT_POLICY } from '../../src/net/policy.ts';
import { eventually } from '../../src/testing/index.ts';
import './own-fabric.ts';
import { assertHost, MOVES, movablePair } from './pairs.ts';

test('a pair ends, and then the membership, though its last DMB was in quarantine when they were first looked at', async (t) => {
  const create = (lingerMs: number) => Partition.create({ ...DEFAULT_POLICY, lingerMs }, () => {});
  const lingerMs = 100;
  const [ofClient, ofServer] = [await create(3_600_000), await create(lingerMs)];
  const pair = await movablePair({}, async () => [ofClient, ofServer]);
  t.after(() => pair.close());
  await MOVES['moved at the first byte'](pair);
  assertHost(pair);
  const { client, server } = pair;
  // The client holds on to the DMB of a server that has closed, as long as it has not read everything.
  server.write('unread');
  server.destroy();
  await once(server, 'close');
  await pause(2 * lingerMs); // timers expire in order: ours comes after that of the partition
  assert.notEqual(ofServer.gid, null);
  client.destroy();
  await eventually('the partition of the server has left', () => ofServer.gid === null);
});
