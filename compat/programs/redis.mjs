import { createClient } from 'redis';
import { respServer } from '../resp.mjs';

export const serve = respServer;

export async function connect(port) {
  const client = await createClient({ RESP: 2, socket: { host: '127.0.0.1', port } }).connect();
  return {
    async request(text, i) {
      await client.set(`key ${i}`, text);
      return await client.get(`key ${i}`);
    },
    close: () => client.close(),
  };
}
