// Measures an HTTP server that sends bodies back: some connections that are kept alive, one request after the other on each.
// Compares every byte of every answer with what was sent.
//
//   node examples/http-client.mjs PORT [--seconds 2] [--json]
import { Agent, request } from 'node:http';
import { parseArgs } from 'node:util';
import { patternAt } from './pattern.mjs';

const CONNECTIONS = 2;
const BODY = 1024;
const WARM_UP = 2000; // until the compiler is done

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '2' }, json: { type: 'boolean' } },
});
const duration = 1000 * Number(values.seconds);

const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
const options = {
  agent,
  host: '127.0.0.1',
  port: Number(positionals[0]),
  method: 'POST',
  path: '/',
  headers: { 'content-type': 'application/octet-stream', 'content-length': BODY },
  timeout: 10_000,
};

let requests = 0;
let bytes = 0;

await all(WARM_UP);
const before = requests;
const start = performance.now();
await all(duration);
const requestsPerSecond = (1000 * (requests - before)) / (performance.now() - start);
agent.destroy();

if (values.json) {
  console.log(JSON.stringify({ bytes, requests, requestsPerSecond }));
} else {
  console.log(`requests with ${BODY} B there and back  ${Math.round(requestsPerSecond)} a second`);
  console.log(`compared  ${bytes} bytes of ${requests} answers, all as sent`);
}

/** Requests on all connections, for so long. */
async function all(milliseconds) {
  const end = performance.now() + milliseconds;
  const one = async () => {
    while (performance.now() < end) await exchange();
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, one));
}

function exchange() {
  return new Promise((resolve) => {
    const position = BODY * requests++;
    let received = 0;
    const sent = request(options, (response) => {
      if (response.statusCode !== 200) fail(`status ${response.statusCode}`);
      response.on('data', (chunk) => {
        if (!chunk.equals(patternAt(position + received, chunk.length))) fail(`wrong bytes in answer ${requests}`);
        received += chunk.length;
      });
      response.on('end', () => {
        if (received !== BODY) fail(`an answer of ${received} bytes instead of ${BODY}`);
        bytes += received;
        resolve();
      });
    });
    sent.on('timeout', () => fail('no answer for 10 s'));
    sent.on('error', (error) => fail(error.message));
    sent.end(patternAt(position, BODY));
  });
}

function fail(text) {
  console.error(text);
  process.exit(1);
}
