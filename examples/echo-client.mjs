// Measures an echo server: round trips of 64 bytes, then a stream. Compares every byte that comes back with what was sent.
//
//   node examples/echo-client.mjs PORT [HOST] [--seconds 2] [--json]
import { once } from 'node:events';
import { connect } from 'node:net';
import { parseArgs } from 'node:util';
import { patternAt } from './pattern.mjs';

const MESSAGE = 64;
const CHUNK = 64 * 1024;
const WARM_UP = 2000; // until the compiler is done

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '2' }, json: { type: 'boolean' } },
});
const duration = 1000 * Number(values.seconds);

const socket = connect({ port: Number(positionals[0]), host: positionals[1] ?? '127.0.0.1', noDelay: true });
socket.on('error', (error) => fail(error.message));
socket.setTimeout(10_000, () => fail('nothing came back for 10 s'));
await once(socket, 'connect');

let sent = 0;
let received = 0;
let allIsBack = () => {};

socket.on('data', (chunk) => {
  if (!chunk.equals(patternAt(received, chunk.length))) fail(`wrong bytes after ${received} right ones`);
  received += chunk.length;
  if (received === sent) allIsBack();
});
socket.on('end', () => {
  if (received !== sent) fail(`the connection ended and ${sent - received} bytes are missing`);
});

await roundTrips(WARM_UP);
const times = (await roundTrips(duration)).sort((a, b) => a - b);
await stream(WARM_UP);
const bytesPerSecond = await stream(duration);
socket.end();
await once(socket, 'close');

const microseconds = (quantile) => 1000 * times[Math.floor(quantile * times.length)];
const result = { bytes: received, p50: microseconds(0.5), p99: microseconds(0.99), bytesPerSecond };
if (values.json) {
  console.log(JSON.stringify(result));
} else {
  console.log(`round trip of ${MESSAGE} B  p50 ${result.p50.toFixed(1)} us, p99 ${result.p99.toFixed(1)} us`);
  console.log(`stream, there and back  ${(bytesPerSecond / 1e9).toFixed(2)} GB/s`);
  console.log(`compared  ${received} bytes, all as sent`);
}

/** Sends the next bytes of the pattern. False: more of them after 'drain'. */
function send(length) {
  const bytes = patternAt(sent, length);
  sent += length;
  return socket.write(bytes);
}

/** One message at a time, for so long. Resolves to how long each of them took. */
function roundTrips(milliseconds) {
  return new Promise((resolve) => {
    const times = [];
    let start = performance.now();
    const end = start + milliseconds;
    allIsBack = () => {
      const now = performance.now();
      times.push(now - start);
      if (now > end) return resolve(times);
      start = now;
      send(MESSAGE);
    };
    send(MESSAGE);
  });
}

/** As fast as the socket takes it, for so long. Resolves to bytes per second that came back. */
function stream(milliseconds) {
  return new Promise((resolve) => {
    const start = performance.now();
    const before = received;
    let isOver = false;
    const push = () => {
      while (!isOver && send(CHUNK));
    };
    allIsBack = () => {
      if (!isOver) return;
      socket.off('drain', push);
      resolve((1000 * (received - before)) / (performance.now() - start));
    };
    setTimeout(() => {
      isOver = true;
      if (received === sent) allIsBack();
    }, milliseconds);
    socket.on('drain', push);
    push();
  });
}

function fail(text) {
  console.error(text);
  process.exit(1);
}
