import express from 'express';
import { poster } from '../http.mjs';
import { answerTo } from '../payload.mjs';

export function serve() {
  const app = express();
  app.use(express.text({ limit: '1mb' }));
  app.post('/echo', (request, response) => {
    response.type('text').send(answerTo(request.body));
  });
  return app.listen(0, '127.0.0.1');
}

export const connect = (port) => poster(port, { path: '/echo' });
