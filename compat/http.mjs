// The other end for programs that are one end of HTTP only.
import http from 'node:http';
import { text } from 'node:stream/consumers';
import { answerTo } from './payload.mjs';

/** Answers every body. */
export async function respond(request, response) {
  response.setHeader('content-type', 'text/plain');
  response.end(answerTo(await text(request)));
}

export const echoServer = () => http.createServer(respond).listen(0, '127.0.0.1');

/** Posts text to a path, over connections that are kept. */
export function poster(port, { path = '/', library = http, ...options } = {}) {
  const agent = new library.Agent({ keepAlive: true, maxSockets: 4 });
  const headers = { 'content-type': 'text/plain' };
  return {
    request: (body) =>
      new Promise((resolve, reject) => {
        library
          .request({ host: '127.0.0.1', port, path, method: 'POST', agent, headers, ...options }, (response) => {
            const isRight = response.statusCode === 200;
            text(response).then(isRight ? resolve : (wrong) => reject(new Error(wrong)), reject);
          })
          .on('error', reject)
          .end(body);
      }),
    close: () => agent.destroy(),
  };
}
