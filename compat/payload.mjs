import { createHash } from 'node:crypto';

const EVERY = 50;
const LONG = 100_000; // more than a buffer of Isthmus, and than one write of Node.js
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789';

/** Text that is another one for each i: mostly short, sometimes long. */
export function payload(i) {
  const length = i % EVERY === EVERY - 1 ? LONG : 16 + ((i * 37) % 1000);
  const line = `${i}:${ALPHABET.slice(i % 36)}${ALPHABET.slice(0, i % 36)},`;
  return line.repeat(Math.ceil(length / line.length)).slice(0, length);
}

/** What servers answer: as long as the request, and of each of its bytes. */
export function answerTo(text) {
  return `${createHash('sha1').update(text).digest('hex')} ${text}`;
}
