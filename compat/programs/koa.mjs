import { text } from 'node:stream/consumers';
import Router from '@koa/router';
import Koa from 'koa';
import { poster } from '../http.mjs';
import { answerTo } from '../payload.mjs';

export function serve() {
  const router = new Router();
  router.post('/echo', async (context) => {
    context.body = answerTo(await text(context.req));
  });
  return new Koa().use(router.routes()).listen(0, '127.0.0.1');
}

export const connect = (port) => poster(port, { path: '/echo' });
