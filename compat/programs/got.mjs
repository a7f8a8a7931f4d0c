import http from 'node:http';
import got from 'got';
import { echoServer } from '../http.mjs';

export const serve = echoServer;

export function connect(port) {
  const agent = new http.Agent({ keepAlive: true });
  const client = got.extend({ agent: { http: agent }, retry: { limit: 0 } });
  return {
    request: (body) => client.post(`http://127.0.0.1:${port}/`, { body }).text(),
    close: () => agent.destroy(),
  };
}
