/** Whether an address can be of this host: only then is a connection any of our business. */
import { networkInterfaces } from 'node:os';

const REFRESH_MS = 5000;

let own: ReadonlySet<string> = new Set();
let refreshedAt = Number.NEGATIVE_INFINITY;

/** @param address as `socket.remoteAddress` gives it */
export function canBeLocal(address: string | undefined): boolean {
  if (address === undefined) return false;
  const plain = address.startsWith('::ffff:') ? address.slice(7) : address;
  if (plain.startsWith('127.') || plain === '::1') return true;
  const now = performance.now();
  if (now - refreshedAt > REFRESH_MS) {
    refreshedAt = now;
    own = new Set(Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((one) => one.address)));
  }
  return own.has(plain.split('%')[0] ?? plain);
}
