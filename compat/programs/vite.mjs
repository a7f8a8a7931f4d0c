import http from 'node:http';
import { createServer } from 'vite';
import { answerTo, payload } from '../payload.mjs';

const NOTE = /^\/note-(\d+)\.js$/;

/** The dev server, with a module for each request. */
export async function serve() {
  const server = await createServer({
    configFile: false,
    root: import.meta.dirname,
    logLevel: 'error',
    server: { host: '127.0.0.1', port: 0, watch: null, ws: false },
    optimizeDeps: { noDiscovery: true },
    plugins: [
      {
        name: 'notes',
        resolveId: (id) => (NOTE.test(id) ? id : null),
        load: (id) =>
          NOTE.test(id) ? `export default ${JSON.stringify(answerTo(payload(Number(NOTE.exec(id)[1]))))};` : null,
      },
    ],
  });
  await server.listen();
  return server.httpServer;
}

export function connect(port) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  return {
    request: (_, i) =>
      new Promise((resolve, reject) => {
        http
          .get({ host: '127.0.0.1', port, path: `/note-${i}.js`, agent }, (response) => {
            const chunks = [];
            response.on('data', (chunk) => chunks.push(chunk));
            response.on('end', () => resolve(Buffer.concat(chunks)));
          })
          .on('error', reject);
      }),
    close: () => agent.destroy(),
  };
}
