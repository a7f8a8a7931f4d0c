/** The TCP sockets of this network namespace, as /proc/net/tcp and tcp6 list them. */
import { readFileSync } from 'node:fs';
import { isIP, SocketAddress } from 'node:net';
import type { Endpoint } from '../net/info.ts';

export interface TcpSocket {
  readonly local: Endpoint;
  readonly peer: Endpoint;
  readonly isListening: boolean;
  readonly uid: number;
  /** 0: no program has it yet. */
  readonly inode: number;
}

export function tcpSockets(): TcpSocket[] {
  return ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((path) => parseSockets(textOf(path)));
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // not Linux, or no IPv6
  }
}

const LISTEN = '0A';

/** Columns: sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode. */
export function parseSockets(text: string): TcpSocket[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, local = '', peer = '', state, , , , uid, , inode] = line.trim().split(/\s+/);
      if (inode === undefined) return [];
      const isListening = state === LISTEN;
      return [
        { local: parseEndpoint(local), peer: parseEndpoint(peer), isListening, uid: Number(uid), inode: Number(inode) },
      ];
    });
}

/** Words of 32 bits as a little-endian machine prints them, and the port as it is. */
function parseEndpoint(text: string): Endpoint {
  const [hex = '', port = ''] = text.split(':');
  const bytes = Buffer.from(hex, 'hex').swap32();
  const address = bytes.length === 4 ? bytes.join('.') : ipv6(bytes);
  return { address, port: Number.parseInt(port, 16) };
}

function ipv6(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16));
  return plainAddress(groups.join(':'));
}

/** As it is written everywhere: IPv4 in IPv6 as IPv4, without a zone. */
export function plainAddress(address: string): string {
  const [bare = ''] = address.split('%');
  if (isIP(bare) !== 6) return bare;
  const { address: short } = new SocketAddress({ address: bare, family: 'ipv6' });
  return short.startsWith('::ffff:') && short.includes('.') ? short.slice(7) : short;
}

/** Who listens at an address: those who do at exactly this one, else those who do at any. */
export function listenersAt(sockets: readonly TcpSocket[], { address, port }: Endpoint): TcpSocket[] {
  const atPort = sockets.filter((one) => one.isListening && one.local.port === port);
  const exact = atPort.filter(({ local }) => local.address === plainAddress(address));
  if (exact.length > 0) return exact;
  return atPort.filter(({ local }) => local.address === '::' || (local.address === '0.0.0.0' && isIP(address) === 4));
}

/** The other end of a connection. */
export function otherEnd(sockets: readonly TcpSocket[], local: Endpoint, peer: Endpoint): TcpSocket | null {
  const is = (one: Endpoint, other: Endpoint) => one.port === other.port && one.address === plainAddress(other.address);
  return sockets.find((one) => !one.isListening && is(one.local, peer) && is(one.peer, local)) ?? null;
}
