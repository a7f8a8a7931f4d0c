/** Some hundred connections at once, as a load generator makes them. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { findFabric } from '../../src/fabric/client.ts';
import { askStatus, type FabricStatus } from '../../src/fabric/status.ts';
import { eventually } from '../../src/testing/index.ts';
import { PRELUDE, Stage } from './two-programs.ts';

const COUNT = 400;

const SERVER = `${PRELUDE}
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', (error) => tell('failed ' + error.code)).pipe(socket);
  });
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1000 }, () => tell('port ' + server.address().port));
  told('end', () => server.close());
`;

/** Bytes pass on each until it is told to end; then it says of how many all came back as they were. */
const CLIENT = `${PRELUDE}
  const ends = Array.from({ length: +args[1] }, () => {
    const end = { socket: net.connect(+args[0], '127.0.0.1'), sent: 0, got: 0, exact: true };
    end.socket.on('data', (chunk) => { end.exact &&= chunk.equals(pattern(end.got, chunk.length)); end.got += chunk.length; });
    end.socket.on('error', (error) => tell('failed ' + error.code));
    return end;
  });
  const more = setInterval(() => {
    for (const end of ends) if (end.got === end.sent) { end.socket.write(pattern(end.sent, 100)); end.sent += 100; }
  }, 20);
  setInterval(() => {}, 1000); // it stays
  told('end', async () => {
    clearInterval(more);
    await Promise.all(ends.map(({ socket }) => new Promise((closed) => socket.on('close', closed).end())));
    tell('whole ' + ends.filter(({ sent, got, exact }) => exact && got === sent && sent > 0).length);
  });
`;

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.close());

async function status(): Promise<FabricStatus> {
  const found = findFabric(stage.env());
  assert.ok(found);
  return JSON.parse(await askStatus(found.fd));
}

test(`${COUNT} connections at once all move, not a byte is lost, and nothing is left of them`, async () => {
  const server = stage.run(SERVER);
  const client = stage.run(CLIENT, [await server.says('port '), COUNT]);
  for (const program of [server, client]) await program.moves(COUNT);
  const { pid, claims, counters } = await status();
  assert.deepEqual([claims, counters.matched], [0, COUNT]);
  // Who is stopped for too long is asked anew.
  assert.ok(counters.declined < COUNT / 10, `${counters.declined} declined`);
  // Channel and pipes of a pair are the two partitions' own: of the connections the fabric holds nothing.
  await eventually('closed', () => readdirSync(`/proc/${pid}/fd`).length < 100);
  client.tell('end');
  assert.equal(await client.says('whole '), String(COUNT));
  assert.deepEqual([client.stderr, server.stderr, server.lines.length], ['', '', 1]);
  for (const program of [server, client]) await eventually('no rows', () => program.connections.length === 0);
  // It ends once nobody has a claim there, and no pair with a DMB in it.
  await eventually('the fabric has ended', () => !existsSync(`/proc/${pid}`));
});
