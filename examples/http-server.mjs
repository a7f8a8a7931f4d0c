// An HTTP server that answers every request with the request's body.
//
//   node examples/http-server.mjs [PORT]
import { createServer } from 'node:http';

const server = createServer((request, response) => {
  const { 'content-type': type = 'application/octet-stream', 'content-length': length } = request.headers;
  response.setHeader('content-type', type);
  if (length !== undefined) response.setHeader('content-length', length);
  request.pipe(response);
});

server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  console.log(`listening on ${server.address().port}`);
});
