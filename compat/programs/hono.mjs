import { serve as listen } from '@hono/node-server';
import { Hono } from 'hono';
import { poster } from '../http.mjs';
import { answerTo } from '../payload.mjs';

export function serve() {
  const app = new Hono();
  app.post('/echo', async (context) => context.text(answerTo(await context.req.text())));
  return listen({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 });
}

export const connect = (port) => poster(port, { path: '/echo' });
