/** Addresses and ports by pattern: `127.0.0.1:7000`, `[::1]:7000-7010`, `10.0.0.0/8:*`, `*:7000`, several with commas between. */
import { BlockList, isIP } from 'node:net';

export interface Endpoints {
  has(address: string | undefined, port: number | undefined): boolean;
}

interface Pattern {
  readonly addresses: BlockList | null;
  readonly firstPort: number;
  readonly lastPort: number;
}

const PATTERN = /^(?:\[([^\]]+)\]|([^[\]:]*)):(\*|\d+(?:-\d+)?)$/;
const LAST_PORT = 65535;

/** Throws TypeError. */
export function parseEndpoints(text: string): Endpoints {
  const patterns = text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(parsePattern);
  return {
    has(address, port) {
      if (address === undefined || port === undefined) return false;
      const isOf = ({ addresses, firstPort, lastPort }: Pattern) =>
        port >= firstPort && port <= lastPort && (addresses === null || isAmong(addresses, address));
      return patterns.some(isOf);
    },
  };
}

/** @param address as `socket.remoteAddress` gives it */
export function isAmong(addresses: BlockList, address: string): boolean {
  return addresses.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

/** `10.0.0.0/8,fd00::/8`: addresses and subnets, several with commas between. Throws TypeError. */
export function parseAddressList(text: string): BlockList {
  const list = new BlockList();
  for (const part of text.split(','))
    if (part.trim() !== '') addAddresses(list, part.trim().replace(/^\[(.*)\]$/, '$1'));
  return list;
}

function parsePattern(text: string): Pattern {
  const [, bracketed, plain, ports] = PATTERN.exec(text) ?? [];
  const address = bracketed ?? plain;
  if (address === undefined || ports === undefined) throw new TypeError(`not ADDRESS:PORT (IPv6 in brackets): ${text}`);
  const [firstPort, lastPort = firstPort] = ports === '*' ? [0, LAST_PORT] : ports.split('-').map(Number);
  if (firstPort === undefined || lastPort === undefined || firstPort > lastPort || lastPort > LAST_PORT)
    throw new TypeError(`not a port or range of ports up to ${LAST_PORT}: ${ports}`);
  if (address === '*') return { addresses: null, firstPort, lastPort };
  const addresses = new BlockList();
  addAddresses(addresses, address);
  return { addresses, firstPort, lastPort };
}

function addAddresses(list: BlockList, text: string): void {
  const [address = '', bits] = text.split('/');
  const family = isIP(address);
  if (family === 0) throw new TypeError(`not an IP address, and names are not looked up: ${address}`);
  const type = family === 6 ? 'ipv6' : 'ipv4';
  if (bits === undefined) list.addAddress(address, type);
  else if (/^\d+$/.test(bits) && Number(bits) <= (family === 6 ? 128 : 32)) list.addSubnet(address, Number(bits), type);
  else throw new TypeError(`not a prefix length: ${bits}`);
}
