// A small server of Redis' protocol, on top of redis-parser: there is none in pure JavaScript to install.
import { createServer } from 'node:net';
import Parser from 'redis-parser';

const bulk = (value) => (value === undefined ? ['$-1\r\n'] : [`$${Buffer.byteLength(value)}\r\n`, value, '\r\n']);

export function respServer() {
  const values = new Map();
  const commands = {
    SET: ([key, value]) => {
      values.set(`${key}`, value);
      return ['+OK\r\n'];
    },
    GET: ([key]) => bulk(values.get(`${key}`)),
    INFO: () => bulk('redis_version:7.0.0\r\nloading:0\r\n'),
    CLIENT: () => ['+OK\r\n'],
  };
  return createServer((socket) => {
    const parser = new Parser({
      returnBuffers: true,
      returnReply([name, ...args]) {
        const command = commands[`${name}`.toUpperCase()];
        socket.cork();
        for (const part of command?.(args) ?? ['-ERR unknown command\r\n']) socket.write(part);
        socket.uncork();
      },
      returnError: (error) => socket.destroy(error),
    });
    socket.on('data', (chunk) => parser.execute(chunk));
    socket.on('error', () => socket.destroy());
  }).listen(0, '127.0.0.1');
}
