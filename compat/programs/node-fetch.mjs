import { echoServer } from '../http.mjs';

export const serve = echoServer;

export const connect = (port) => ({
  async request(body) {
    const response = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body });
    if (!response.ok) throw new Error(`status ${response.status}`);
    return await response.text();
  },
});
