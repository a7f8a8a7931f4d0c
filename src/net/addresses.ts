/** Whether an address can be of this host: only then is a connection any of our business. */
import { type BlockList, isIP } from 'node:net';
import { hostname, networkInterfaces } from 'node:os';
import type { Prefix } from '../smc/negotiation.ts';
import { isAmong, parseAddressList } from './endpoints.ts';

const REFRESH_MS = 5000;

let own: ReadonlySet<string> = new Set();
let refreshedAt = Number.NEGATIVE_INFINITY;

/**
 * @param address as `socket.remoteAddress` gives it
 * @param others that may be of this host; null: private ones where a fabric was named, else none
 */
export function canBeLocal(address: string | undefined, others: BlockList | null): boolean {
  if (address === undefined) return false;
  const plain = address.startsWith('::ffff:') ? address.slice(7) : address;
  if (plain.startsWith('127.') || plain === '::1') return true;
  const bare = plain.split('%')[0] ?? plain;
  return ownAddresses().has(bare) || isAmongOthers(bare, others);
}

function ownAddresses(): ReadonlySet<string> {
  const now = performance.now();
  if (now - refreshedAt > REFRESH_MS) {
    refreshedAt = now;
    own = new Set(Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((one) => one.address)));
  }
  return own;
}

function isAmongOthers(address: string, others: BlockList | null): boolean {
  if (others !== null) return isAmong(others, address);
  // A fabric that was named may serve other network namespaces of this host, whose addresses nobody can tell from those of other hosts.
  if ((process.env.ISTHMUS_FABRIC ?? '') === '') return false;
  privateAddresses ??= parseAddressList(PRIVATE);
  return isAmong(privateAddresses, address);
}
let privateAddresses: BlockList | null = null;

/** Of RFC 1918, RFC 6598, link-local, unique local. */
const PRIVATE = '10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,169.254.0.0/16,fc00::/7,fe80::/10';

/**
 * Where on this host a client will connect to, as far as it can be known before names are resolved: one of these. Null: elsewhere.
 * @param args of Socket.prototype.connect
 */
export function destinations(
  [first, second]: readonly unknown[],
  others: BlockList | null,
): { readonly addresses: readonly string[]; readonly port: number } | null {
  const given: unknown = Array.isArray(first) ? first[0] : first;
  const { host, port, path } =
    typeof given === 'object' && given !== null
      ? (given as { host?: unknown; port?: unknown; path?: unknown })
      : { host: second, port: given, path: undefined };
  if (path !== undefined && path !== null) return null;
  const name = typeof host === 'string' ? host : 'localhost';
  const isLocal = isIP(name) === 0 ? name === 'localhost' || name === hostname() : canBeLocal(name, others);
  if (!isLocal) return null;
  const addresses = isIP(name) !== 0 ? [name] : name === 'localhost' ? ['127.0.0.1', '::1'] : [...ownAddresses()];
  return { addresses, port: Number(port) };
}

/** Addresses of the interface that has this one, but for link-local ones. */
export function prefixesOf(localAddress: string | undefined): Prefix[] {
  const plain = localAddress?.replace(/^::ffff:/, '');
  const interfaces = Object.values(networkInterfaces()).map((list) => list ?? []);
  const own = interfaces.find((list) => list.some(({ address }) => address === plain)) ?? [];
  return own
    .filter(({ address }) => !/^fe[89ab]/i.test(address))
    .map(({ address, cidr }) => ({ address: addressBytes(address), length: Number(cidr?.split('/')[1]) }));
}

function addressBytes(address: string): Buffer {
  if (!address.includes(':')) return Buffer.from(address.split('.').map(Number));
  const [head = [], tail = []] = address.split('::').map((part) => (part === '' ? [] : part.split(':')));
  const middle = Array.from({ length: 8 - head.length - tail.length }, () => '0');
  return Buffer.from([...head, ...middle, ...tail].map((group) => group.padStart(4, '0')).join(''), 'hex');
}
