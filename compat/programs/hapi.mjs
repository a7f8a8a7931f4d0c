import Hapi from '@hapi/hapi';
import { poster } from '../http.mjs';
import { answerTo } from '../payload.mjs';

export async function serve() {
  const server = Hapi.server({ host: '127.0.0.1', port: 0 });
  server.route({ method: 'POST', path: '/echo', handler: ({ payload }) => answerTo(payload) });
  await server.start();
  return server.listener;
}

export const connect = (port) => poster(port, { path: '/echo' });
