// Two programs pass bytes by a ring in shared memory, without sockets: round trips of 64 bytes, then a stream. Every byte is compared.
//
//   node examples/ring.mjs [--seconds 2] [--json]
import { fork } from 'node:child_process';
import { on, once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openHostDevice } from 'isthmus/devices/host';
import { Ring } from 'isthmus/ism';

const MESSAGE = 64;
const CHUNK = 64 * 1024;
const SPIN_US = 1000; // then the event loop has a turn: only there it is learnt that the other one has gone

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '2' }, json: { type: 'boolean' } } });
const duration = 1000 * Number(values.seconds);

// We spin: nobody has to be told of signals.
const client = { name: 'example', addDevice() {}, removeDevice() {}, handleSignal() {}, handleEvent() {} };
const pattern = Buffer.from(Array.from({ length: CHUNK }, (_, i) => i % 251));
const [END, ONE_MESSAGE, ONE_CHUNK] = [0, 1, 2].map((kind) => Buffer.from([kind])); // what comes next

// The program that was started asks; the one that it starts answers. They find each other by IPC.
const other = process.send ? process : fork(fileURLToPath(import.meta.url));
const messages = on(other, 'message');
const device = await openHostDevice();
device.setEventListener(({ type }) => {
  if (type === 'peer-gone') fail('the other one has gone');
});
const ring = await meet();
await (other === process ? answer() : ask());
await device.close();

/** Tells the other one our GID and the token of our buffer, by whatever way there is. */
async function meet() {
  other.send(device.gid);
  const gid = await told();
  if (!(await device.queryRemoteGid(gid))) fail('the other one cannot be reached');
  const dmb = await device.registerDmb({ peer: gid, lengthBytes: 1 << 20, client });
  other.send(String(dmb.token));
  return new Ring(dmb, await device.attachDmb(BigInt(await told())));
}

async function told() {
  const { value } = await messages.next();
  return value[0];
}

async function ask() {
  const { count, times } = await roundTrips();
  const bytesPerSecond = (1000 * (await stream())) / duration;
  device.setEventListener(() => {});
  ring.write(END);
  const [code] = await once(other, 'exit');
  if (code !== 0) fail('the other one has failed');
  const p50 = 1000 * times.sort((a, b) => a - b)[times.length >> 1];
  const text = `${count} round trips of ${MESSAGE} B, p50 ${p50.toFixed(2)} us; stream ${(bytesPerSecond / 1e9).toFixed(2)} GB/s`;
  console.log(values.json ? JSON.stringify({ count, p50, bytesPerSecond }) : text);
}

async function answer() {
  const [kind, message, chunk] = [Buffer.alloc(1), Buffer.alloc(MESSAGE), Buffer.alloc(CHUNK)];
  for (;;) {
    await readAll(kind);
    if (kind.equals(END)) break;
    const bytes = kind.equals(ONE_MESSAGE) ? message : chunk;
    await readAll(bytes);
    if (!bytes.equals(pattern.subarray(0, bytes.length))) fail('wrong bytes');
    if (bytes === message) await writeAll(message);
  }
  process.disconnect();
}

async function roundTrips() {
  const request = Buffer.concat([ONE_MESSAGE, pattern.subarray(0, MESSAGE)]);
  const reply = Buffer.alloc(MESSAGE);
  const times = [];
  let count = 0;
  for (const end = performance.now() + duration; performance.now() < end; count++) {
    const start = performance.now();
    await writeAll(request);
    await readAll(reply);
    times.push(performance.now() - start);
    if (!reply.equals(pattern.subarray(0, MESSAGE))) fail('wrong bytes');
  }
  return { count, times };
}

async function stream() {
  const chunk = Buffer.concat([ONE_CHUNK, pattern]);
  let bytes = 0;
  for (const end = performance.now() + duration; performance.now() < end; bytes += CHUNK) await writeAll(chunk);
  return bytes;
}

async function readAll(into) {
  for (let done = 0; done < into.length; ) {
    done += ring.read(done === 0 ? into : into.subarray(done));
    if (done < into.length && !ring.spinForBytes(SPIN_US)) await new Promise(setImmediate);
  }
}

async function writeAll(bytes) {
  for (let done = 0; done < bytes.length; ) {
    done += ring.write(bytes, done);
    if (done < bytes.length && !ring.spinForRoom(SPIN_US)) await new Promise(setImmediate);
  }
}

function fail(text) {
  console.error(text);
  process.exit(1);
}
