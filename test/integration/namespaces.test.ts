/** Programs in two network namespaces that share nothing of the network but a wire: one fabric introduces them. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove } from './commands.ts';
import { PRELUDE, Program, Stage } from './two-programs.ts';

function cannotMakeNamespaces(): string | false {
  if (process.getuid?.() !== 0) return 'network namespaces are made by root';
  const missing = ['ip', 'nft'].find((command) => spawnSync(command, ['-V']).error !== undefined);
  return missing === undefined ? false : `${missing} is not there (Debian packages iproute2, nftables)`;
}

const skip = cannotMove() || cannotMakeNamespaces();
const [CLIENT_NS, SERVER_NS] = [`isthmus-c-${process.pid}`, `isthmus-s-${process.pid}`];
const SERVER_ADDRESS = '10.77.0.2';
/** Known to the client alone: translated where the server is. */
const SERVICE = { address: '10.99.0.9', port: 80 };
const PORT = 7777;

const run = (command: string, input = '') => {
  const [file = '', ...args] = command.split(' ');
  return execFileSync(file, args, { input, stdio: ['pipe', 'pipe', 'inherit'] });
};

let stage: Stage;
let fabric: Program;
before(async () => {
  if (skip) return;
  for (const [ns, end, address] of [
    [CLIENT_NS, 'isthmus0', '10.77.0.1'],
    [SERVER_NS, 'isthmus1', SERVER_ADDRESS],
  ] as const) {
    run(`ip netns add ${ns}`);
    if (end === 'isthmus0') run(`ip -n ${ns} link add isthmus0 type veth peer name isthmus1`);
    else run(`ip -n ${CLIENT_NS} link set isthmus1 netns ${ns}`);
    run(`ip -n ${ns} addr add ${address}/24 dev ${end}`);
    for (const link of [end, 'lo']) run(`ip -n ${ns} link set ${link} up`);
  }
  run(`ip -n ${CLIENT_NS} route add default via ${SERVER_ADDRESS}`);
  run(
    `ip netns exec ${SERVER_NS} nft -f -`,
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
  for (const ns of [CLIENT_NS, SERVER_NS]) spawnSync('ip', ['netns', 'del', ns]);
});

const SERVER = `${PRELUDE}
  const server = net.createServer({ allowHalfOpen: true }, (socket) => { server.close(); socket.pipe(socket); });
  server.listen(${PORT}, () => tell('listening'));
`;

/** Sends bytes as long as it is not told to end, and compares what comes back. */
const CLIENT = `${PRELUDE}
  const socket = net.connect(+args[1], args[0]);
  let sent = 0, got = 0, exact = true;
  const more = setInterval(() => { const length = 1 + sent % 3000; socket.write(pattern(sent, length)); sent += length; }, 2);
  socket.on('data', (chunk) => { exact &&= chunk.equals(pattern(got, chunk.length)); got += chunk.length; });
  socket.on('error', (error) => tell('failed ' + error.code));
  told('end', () => { clearInterval(more); socket.end(); });
  socket.on('close', () => tell('closed ' + exact + ' ' + (got - sent)));
`;

for (const [what, address, port] of [
  ['the address of its server', SERVER_ADDRESS, PORT],
  ['an address that is translated', SERVICE.address, SERVICE.port],
] as const) {
  test(`a client in another network namespace moves: ${what}`, { skip }, async () => {
    const env = { ISTHMUS_FABRIC: join(stage.directory, 'fabric.sock') };
    const server = stage.run(SERVER, [], env, ['ip', 'netns', 'exec', SERVER_NS]);
    await server.says('listening');
    const client = stage.run(CLIENT, [address, port], env, ['ip', 'netns', 'exec', CLIENT_NS]);
    await Promise.all([client.moves(), server.moves()]);
    client.tell('end');
    assert.equal(await client.says('closed '), 'true 0');
    await server.exited;
  });
}
