/** Programs in two network namespaces that share nothing of the network but a wire: one fabric introduces them. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove } from './commands.ts';
import { cannotMakeNetworks, Networks, sh } from './networks.ts';
import { ECHO_CLIENT, ECHO_SERVER, Program, Stage } from './two-programs.ts';

const skip = cannotMove() || cannotMakeNetworks();
const SERVER_ADDRESS = '10.77.0.2';
/** Known to the client alone: translated where the server is. */
const SERVICE = { address: '10.99.0.9', port: 80 };
const PORT = 7777;

const networks = new Networks();
let clientNetwork: string;
let serverNetwork: string;
let stage: Stage;
let fabric: Program;
before(async () => {
  if (skip) return;
  clientNetwork = networks.add();
  serverNetwork = networks.add();
  networks.wire(
    { network: clientNetwork, address: '10.77.0.1/24' },
    { network: serverNetwork, address: `${SERVER_ADDRESS}/24` },
  );
  sh(`ip -n ${clientNetwork} route add default via ${SERVER_ADDRESS}`);
  sh(
    `ip netns exec ${serverNetwork} nft -f -`,
    `table ip isthmus {
      chain service {
        type nat hook prerouting priority -100
        ip daddr ${SERVICE.address} tcp dport ${SERVICE.port} dnat to ${SERVER_ADDRESS}:${PORT}
      }
    }\n`,
  );
  stage = new Stage();
  const socket = join(stage.directory, 'fabric.sock');
  fabric = new Program([process.execPath, CLI, 'fabric', '--socket', socket], stage.env({ NODE_OPTIONS: '' }));
  await eventually('a fabric', () => existsSync(socket));
});
after(async () => {
  if (skip) return;
  fabric.child.kill();
  await fabric.exited;
  await stage.close();
  networks.close();
});

for (const [what, address, port] of [
  ['the address of its server', SERVER_ADDRESS, PORT],
  ['an address that is translated', SERVICE.address, SERVICE.port],
] as const) {
  test(`a client in another network namespace moves: ${what}`, { skip }, async () => {
    const env = { ISTHMUS_FABRIC: join(stage.directory, 'fabric.sock') };
    const server = stage.run(ECHO_SERVER, [PORT], env, ['ip', 'netns', 'exec', serverNetwork]);
    await server.says('listening');
    const client = stage.run(ECHO_CLIENT, [address, port], env, ['ip', 'netns', 'exec', clientNetwork]);
    await Promise.all([client.moves(), server.moves()]);
    client.tell('end');
    assert.equal(await client.says('closed '), 'true 0');
    await server.exited;
  });
}
