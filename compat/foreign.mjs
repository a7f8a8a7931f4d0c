// Servers that are not Node.js programs: Debian's, started on a port that is free.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** @param commandOf the command, given a port and a folder that is removed again. Resolves to the port once somebody listens. */
export async function foreignServer(commandOf) {
  const folder = mkdtempSync(join(tmpdir(), 'isthmus-foreign-'));
  const port = await freePort();
  const [file, ...args] = commandOf(port, folder);
  const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  child.on('exit', () => {
    rmSync(folder, { recursive: true, force: true });
    process.exit();
  });
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => child.kill());
  while (!(await listens(port))) await sleep(20);
  return port;
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await once(server.close(), 'close');
  return port;
}

async function listens(port) {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
