import http from 'node:http';
import axios from 'axios';
import { echoServer } from '../http.mjs';

export const serve = echoServer;

export function connect(port) {
  const httpAgent = new http.Agent({ keepAlive: true });
  const client = axios.create({ baseURL: `http://127.0.0.1:${port}`, httpAgent, proxy: false, responseType: 'text' });
  return {
    request: async (body) => (await client.post('/', body)).data,
    close: () => httpAgent.destroy(),
  };
}
