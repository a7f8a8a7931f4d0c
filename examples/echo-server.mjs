// An echo server: sends every byte back.
//
//   node examples/echo-server.mjs [PORT] [ADDRESS]
import { createServer } from 'node:net';

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', (error) => console.error(error.message));
  socket.pipe(socket);
});

server.listen(Number(process.argv[2] ?? 0), process.argv[3] ?? '127.0.0.1', () => {
  console.log(`listening on ${server.address().port}`);
});
