import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { answerTo } from '../payload.mjs';

const { Echo } = grpc.loadPackageDefinition(loadSync(fileURLToPath(new URL('./echo.proto', import.meta.url))));

export function serve() {
  const server = new grpc.Server();
  server.addService(Echo.service, {
    echo: ({ request }, respond) => respond(null, { text: answerTo(request.text) }),
  });
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

export function connect(port) {
  const client = new Echo(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  return {
    request: (text) =>
      new Promise((resolve, reject) => {
        client.echo({ text }, (error, answer) => (error === null ? resolve(answer.text) : reject(error)));
      }),
    close: () => client.close(),
  };
}
