/** Whether an address can be of this host: only then is a connection any of our business. */
import { BlockList, isIP } from 'node:net';
import { hostname, networkInterfaces } from 'node:os';
import type { Prefix } from '../smc/negotiation.ts';

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
  const bare = plain.split('%')[0] ?? plain;
  return own.has(bare) || (isFabricShared() && isPrivate(bare));
}

/** A fabric that was named may serve other network namespaces of this host, whose addresses nobody can tell from those of other hosts. */
function isFabricShared(): boolean {
  return (process.env.ISTHMUS_FABRIC ?? '') !== '';
}

/** Of RFC 1918, RFC 6598, link-local, or unique local. */
function isPrivate(address: string): boolean {
  privateAddresses ??= makePrivateAddresses();
  return privateAddresses.check(address, address.includes(':') ? 'ipv6' : 'ipv4');
}
let privateAddresses: BlockList | null = null;

function makePrivateAddresses(): BlockList {
  const list = new BlockList();
  list.addSubnet('10.0.0.0', 8);
  list.addSubnet('172.16.0.0', 12);
  list.addSubnet('192.168.0.0', 16);
  list.addSubnet('100.64.0.0', 10);
  list.addSubnet('169.254.0.0', 16);
  list.addSubnet('fc00::', 7, 'ipv6');
  list.addSubnet('fe80::', 10, 'ipv6');
  return list;
}

/**
 * Whether a client will connect to this host, as far as it can be known before names are resolved.
 * @param args of Socket.prototype.connect
 */
export function willBeLocal([first, second]: readonly unknown[]): boolean {
  const given: unknown = Array.isArray(first) ? first[0] : first;
  const { host, path } =
    typeof given === 'object' && given !== null
      ? (given as { host?: unknown; path?: unknown })
      : { host: second, path: undefined };
  if (path !== undefined && path !== null) return false;
  if (typeof host !== 'string') return true; // localhost
  return isIP(host) === 0 ? host === 'localhost' || host === hostname() : canBeLocal(host);
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
