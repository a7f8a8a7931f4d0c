/** A program for tests of reasons: connections in whatever state, and what is asked of them. */
import { INDEX_URL } from './exchange.ts';
import { PRELUDE, type Program, type Stage } from './two-programs.ts';

/** Listens, connects, and writes a byte on all its connections now and then; does to them what it is told. */
export const TALKER = `${PRELUDE}
  const { accelerate, attach, info, restore } = await import(${JSON.stringify(INDEX_URL)});
  const sockets = [], servers = [];
  const keep = (socket) => { sockets.push(socket); socket.on('error', () => {}).resume(); tell('connection ' + sockets.length); };
  let isQuiet = false;
  setInterval(() => { if (!isQuiet) for (const socket of sockets) if (socket.writable) socket.write('.'); }, 5);
  told('listen', (address = '127.0.0.1', port = 0) => {
    const server = net.createServer({ allowHalfOpen: true }, keep).listen(+port, address, () => tell('port ' + server.address().port));
  });
  told('connect', (port, address = '127.0.0.1') => {
    const socket = net.connect({ port: +port, host: address, allowHalfOpen: true }, () => keep(socket)).on('error', (error) => tell('failed ' + error.code));
  });
  told('byte', () => sockets.at(-1).write('.'));
  told('quiet', () => { isQuiet = true; });
  told('talk', () => { isQuiet = false; });
  told('pause', () => { for (const socket of sockets) socket.pause(); tell('paused'); });
  told('resume', () => { for (const socket of sockets) socket.resume(); });
  told('end', () => { for (const socket of sockets) socket.end(); });
  told('ask', (name) => {
    const asking = setInterval(() => {
      const { reason } = info(sockets.at(-1));
      if (reason.name !== name) return;
      tell('reason ' + JSON.stringify(reason));
      clearInterval(asking);
    }, 10);
  });
  told('restore', () => restore(sockets.at(-1)));
  told('accelerate', async () => tell('accelerated ' + (await accelerate(sockets.at(-1), { timeoutMs: 15_000 })).mode));
  tell('ready');
`;

/** One that listens; its port. */
export async function listening(stage: Stage, env: NodeJS.ProcessEnv = {}): Promise<{ server: Program; port: string }> {
  const server = stage.run(TALKER, [], env);
  server.tell('listen');
  return { server, port: await server.says('port ') };
}

/** A new connection between two programs moves. */
export async function othersMove(stage: Stage, env: NodeJS.ProcessEnv = {}): Promise<void> {
  const { server, port } = await listening(stage, env);
  const client = stage.run(TALKER, [], env);
  client.tell(`connect ${port}`);
  await Promise.all([client.moves(), server.moves()]);
}
