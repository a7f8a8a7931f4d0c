import { once } from 'node:events';
import http from 'node:http';
import httpProxy from 'http-proxy';
import { echoServer, poster } from '../http.mjs';

/** The server behind the proxy is in the same process: those connections move, too. */
export async function serve() {
  const backend = echoServer();
  await once(backend, 'listening');
  const agent = new http.Agent({ keepAlive: true });
  const target = `http://127.0.0.1:${backend.address().port}`;
  const proxy = httpProxy.createProxyServer({ target, agent });
  return http.createServer((request, response) => proxy.web(request, response)).listen(0, '127.0.0.1');
}

export const connect = (port) => poster(port);
