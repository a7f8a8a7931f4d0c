import Fastify from 'fastify';
import { poster } from '../http.mjs';
import { answerTo } from '../payload.mjs';

export async function serve() {
  const app = Fastify();
  app.post('/echo', async (request) => answerTo(request.body));
  await app.listen({ host: '127.0.0.1', port: 0 });
  return app.server;
}

export const connect = (port) => poster(port, { path: '/echo' });
