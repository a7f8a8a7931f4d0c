import { once } from 'node:events';
import { WebSocket, WebSocketServer } from 'ws';
import { answerTo } from '../payload.mjs';

export function serve() {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  server.on('connection', (socket) => socket.on('message', (data) => socket.send(answerTo(data.toString()))));
  return once(server, 'listening').then(() => server);
}

export async function connect(port) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`);
  await once(socket, 'open');
  const waiting = [];
  socket.on('message', (data) => waiting.shift()(data.toString()));
  return {
    request: (text) =>
      new Promise((resolve) => {
        waiting.push(resolve);
        socket.send(text);
      }),
    close: () => socket.close(),
  };
}
