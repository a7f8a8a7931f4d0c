// Runs one end of a program of programs/: each is a server and a client of a package, as a user of the package would write them.
//
//   node compat/run.mjs NAME serve                     prints `listening on PORT`
//   node compat/run.mjs NAME connect PORT [SECONDS]    prints what came back, as JSON
//
// A program exports `serve()`, which resolves to a port or to a listening server, and `connect(port)`, which resolves to
// `request(text, i)` and `close()`. Answers may depend on nothing but the request. First come REQUESTS requests, whose answers make
// up the digest; then the same again, for so many seconds, each answer compared with the first one.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { payload } from './payload.mjs';

const REQUESTS = 300;
const IN_FLIGHT = 4;
/** Of the seconds, for the compiler to be done. */
const WARM_UP = 1 / 3;

const [name, end, port, seconds = '0'] = process.argv.slice(2);
const { serve, connect } = await import(`./programs/${name}.mjs`);
if (end === 'serve') {
  const server = await serve();
  if (server.listening === false) await once(server, 'listening');
  console.log(`listening on ${typeof server === 'number' ? server : server.address().port}`);
} else {
  const client = await connect(Number(port));
  console.log(JSON.stringify(await measure(client.request, Number(seconds))));
  await client.close?.();
}

async function measure(request, duration) {
  let bytes = 0;
  const ask = async (i) => {
    const answer = await request(payload(i), i);
    bytes += answer.length;
    return createHash('sha256').update(answer).digest('base64');
  };
  const answers = [];
  await all(
    () => answers.length < REQUESTS,
    async (i) => {
      answers[i] = null; // asked for
      answers[i] = await ask(i);
    },
  );
  const again = (until) =>
    all(
      () => performance.now() < until,
      async (i) => {
        if ((await ask(i % REQUESTS)) !== answers[i % REQUESTS]) throw new Error(`answer ${i % REQUESTS} has changed`);
      },
    );
  const start = performance.now();
  await again(start + 1000 * duration * WARM_UP);
  const warm = performance.now();
  const requests = await again(start + 1000 * duration);
  return {
    digest: createHash('sha256').update(answers.join()).digest('hex').slice(0, 16),
    distinct: new Set(answers).size,
    requests: REQUESTS,
    bytes,
    requestsPerSecond: (1000 * requests) / (performance.now() - warm),
  };
}

/** Some at a time, in order, as long as there are more; how many there were. */
async function all(more, one) {
  let next = 0;
  const lane = async () => {
    while (more()) await one(next++);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
  return next;
}
