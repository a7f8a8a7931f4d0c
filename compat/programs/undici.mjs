import { Pool } from 'undici';
import { echoServer } from '../http.mjs';

export const serve = echoServer;

export function connect(port) {
  const pool = new Pool(`http://127.0.0.1:${port}`, { connections: 4 });
  return {
    async request(body) {
      const response = await pool.request({ path: '/', method: 'POST', body });
      return await response.body.text();
    },
    close: () => pool.close(),
  };
}
