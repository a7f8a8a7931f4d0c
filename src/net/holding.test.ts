import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { eventually } from '../testing/index.ts';
import { holdServers } from './holding.ts';
import { internalsOf, type TcpHandle } from './internals.ts';

test('a socket that was given more than it wants while it was held is read on by its program', async () => {
  const server = createServer();
  holdServers(
    (one) => one === server,
    async (socket) => {
      const handle = internalsOf(socket)._handle as TcpHandle;
      handle.readStart();
      await eventually('the stream is full', () => !handle.reading);
      return null;
    },
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = connect((server.address() as { port: number }).port, '127.0.0.1');
  client.end(Buffer.alloc(1 << 20));
  const [socket] = (await once(server, 'connection')) as [Socket];
  try {
    let got = 0;
    for await (const chunk of socket) got += chunk.length;
    assert.equal(got, 1 << 20);
  } finally {
    client.destroy();
    server.close();
  }
});
