// Runs one end of a program of programs/: each is a server and a client of a package, as a user of the package would write them.
//
//   node compat/run.mjs NAME serve                     prints `listening on PORT`
//   node compat/run.mjs NAME connect PORT [SECONDS [TURN]]
//                                                      prints what came back, as JSON
//
// A program exports `serve()`, which resolves to a port or to a listening server, and `connect(port)`, which resolves to
// `request(text, i)` and `close()`. Answers may depend on nothing but the request. First come REQUESTS requests, whose answers make
// up the digest; then the same again, for so many seconds, each answer compared with the first one. With a turn, 0 or 1, only in every
// second slot of time: two clients that run at the same time then take turns, and meet with the same moods of the machine.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { payload } from './payload.mjs';

const REQUESTS = 300;
const IN_FLIGHT = 4;
/** Slots are the same in all processes: parts of the clock's time. Long, since a program that has rested is slow to begin with. */
const SLOT_MS = 1000;

const [name, role, port, seconds = '0', turn] = process.argv.slice(2);
const { serve, connect } = await import(`./programs/${name}.mjs`);
if (role === 'serve') {
  const server = await serve();
  if (server.listening === false) await once(server, 'listening');
  console.log(`listening on ${typeof server === 'number' ? server : server.address().port}`);
} else {
  const client = await connect(Number(port));
  console.log(JSON.stringify(await measure(client.request)));
  await client.close?.();
}

async function measure(request) {
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
  const again = async (i) => {
    if ((await ask(i % REQUESTS)) !== answers[i % REQUESTS]) throw new Error(`answer ${i % REQUESTS} has changed`);
  };
  /** Requests per second by number of the slot. */
  const rates = {};
  const end = Date.now() + 1000 * Number(seconds);
  while (Date.now() < end) {
    const slot = Math.floor(Date.now() / SLOT_MS);
    const until = (slot + 1) * SLOT_MS;
    if (turn !== undefined && slot % 2 !== Number(turn)) {
      await sleep(until - Date.now());
      continue;
    }
    const start = performance.now();
    const requests = await all(() => Date.now() < until, again);
    rates[slot] = (1000 * requests) / (performance.now() - start);
  }
  return {
    digest: createHash('sha256').update(answers.join()).digest('hex').slice(0, 16),
    distinct: new Set(answers).size,
    requests: REQUESTS,
    bytes,
    rates,
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
