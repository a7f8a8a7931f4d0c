import { once } from 'node:events';
import http2 from 'node:http2';
import { text } from 'node:stream/consumers';
import { respond } from '../http.mjs';

export const serve = () => http2.createServer(respond).listen(0, '127.0.0.1');

export async function connect(port) {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  await once(session, 'connect');
  return {
    async request(body) {
      const stream = session.request({ ':path': '/', ':method': 'POST' });
      stream.end(body);
      return await text(stream);
    },
    close: () => session.close(),
  };
}
