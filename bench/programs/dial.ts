/** Connections to a server of the benchmark. */
import { connect, type Socket, type TcpNetConnectOpts } from 'node:net';
import type { Address } from './control.ts';

/** @param options more for `connect` */
export function open(to: Address, options: Partial<TcpNetConnectOpts> = {}): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = dial(to, options);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      socket.on('error', () => {}); // 'close' tells
      resolve(socket);
    });
  });
}

export function dial(to: Address, options: Partial<TcpNetConnectOpts> = {}): Socket {
  if (to.path !== undefined) return connect({ ...options, path: to.path });
  return connect({ ...options, port: to.port ?? 0, host: '127.0.0.1', noDelay: true });
}

export function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.once('close', () => resolve());
  });
}
