/** Ways back that begin while a direction is on its way there. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { movedPair, twoPartitions } from './pairs.ts';

const directory = mkdtempSync(join(tmpdir(), 'isthmus-restoring-'));
after(() => rmSync(directory, { recursive: true, force: true }));
Object.assign(process.env, { ISTHMUS_RUNTIME_DIR: directory, ISTHMUS_FABRIC_IDLE_MS: '500' });

test('restore is settled, though the words of the way back had come before the bytes of TCP that they are about', async () => {
  const makePair = movedPair('moved at the first byte', twoPartitions('store'));
  for (let round = 0; round < 12; round++) {
    const { client, server, movers, close } = await makePair();
    server.resume();
    client.write(Buffer.alloc(33_000));
    for (let i = 0; i < 3; i++) await turn();
    await movers[1].restore();
    for (const mover of movers) mover.retry();
    client.write('x');
    for (let i = 0; i < round % 4; i++) await turn();
    await movers[1].restore();
    assert.ok(!movers[1].isMoved);
    await close();
  }
});
