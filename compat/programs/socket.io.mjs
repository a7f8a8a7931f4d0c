import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';
import { answerTo } from '../payload.mjs';

export function serve() {
  const server = createServer();
  new Server(server).on('connection', (socket) => {
    socket.on('echo', (text, acknowledge) => acknowledge(answerTo(text)));
  });
  return server.listen(0, '127.0.0.1');
}

export function connect(port) {
  const socket = io(`http://127.0.0.1:${port}`);
  return {
    request: (text) => socket.emitWithAck('echo', text),
    close: () => socket.close(),
  };
}
