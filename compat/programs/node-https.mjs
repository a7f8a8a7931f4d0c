import { readFileSync } from 'node:fs';
import https from 'node:https';
import { poster, respond } from '../http.mjs';

const tls = (name) => readFileSync(new URL(`../../test/fixtures/tls/${name}`, import.meta.url));

export const serve = () =>
  https.createServer({ key: tls('key.pem'), cert: tls('cert.pem') }, respond).listen(0, '127.0.0.1');

export const connect = (port) => poster(port, { library: https, rejectUnauthorized: false });
