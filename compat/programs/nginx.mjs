import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { foreignServer } from '../foreign.mjs';
import { echoServer, poster } from '../http.mjs';

/** In front of a server in Node.js. */
export async function serve() {
  const backend = echoServer();
  return await foreignServer((port, folder) => {
    const configuration = join(folder, 'nginx.conf');
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
      (name) => `${name}_temp_path ${join(folder, name)};`,
    );
    writeFileSync(
      configuration,
      `daemon off; pid ${join(folder, 'pid')}; error_log stderr error; user root;
       events {}
       http {
         access_log off; client_max_body_size 1m; ${temporary.join(' ')}
         upstream backend { server 127.0.0.1:${backend.address().port}; keepalive 4; }
         server {
           listen 127.0.0.1:${port};
           keepalive_requests 1000000;
           location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }
         }
       }`,
    );
    return ['nginx', '-c', configuration, '-e', 'stderr'];
  });
}

export const connect = (port) => poster(port);
