/**
 * Whether two sockets are the two ends of one TCP connection.
 *
 * Inside one network namespace names are proof: the kernel allows one established connection with the same names at a time, and
 * both sockets are held while they are looked at. Across namespaces and address translation names are only a hint, and urgent bytes are
 * the proof (challenge.ts). What stays equal then is the client's own address and port.
 */
import type { Decline } from './protocol.ts';
import type { Endpoint } from './wire.ts';

/** What a partition says of its end. */
export interface Announced {
  readonly local: Endpoint;
  readonly peer: Endpoint;
  readonly netnsCookie: bigint;
  readonly socketCookie: bigint;
}

/** What the kernel says of a socket that was shown; null = it is no TCP socket with a peer. */
export type Shown =
  | (Announced & { readonly established: boolean; readonly lingers: boolean; readonly urgentInline: boolean })
  | null;

/** Equal for the two ends of a connection inside one network namespace, and different for any two that are not. */
export function connectionKey(end: Announced): string {
  const names = [nameOf(end.local), nameOf(end.peer)].sort();
  return `${end.netnsCookie} ${names.join(' ')}`;
}

/** Which of the two ends of its key this is. */
export function endOf(end: Announced): 0 | 1 {
  return nameOf(end.local) < nameOf(end.peer) ? 0 : 1;
}

export function isSelfConnected(end: Announced): boolean {
  return nameOf(end.local) === nameOf(end.peer);
}

/** What both ends call the client, unless its address is translated, too. */
export function clientKey({ role, local, peer }: Announced & { readonly role: number }): string {
  return nameOf(role === 0 ? local : peer);
}

/**
 * Whether it makes sense to ask for proof of two ends with one `clientKey` whose names are not each other's: the client's peer may be
 * translated, but a loopback address stays in its namespace. (A client may have one name on connections to several peers; those that
 * are meant are found by the proof.)
 */
export function mayBeTwoEnds(one: Announced, other: Announced): boolean {
  return (
    one.netnsCookie === other.netnsCookie ||
    ![one, other].some(({ local, peer }) => isLoopback(local) || isLoopback(peer))
  );
}

function isLoopback({ address }: Endpoint): boolean {
  return address.startsWith('127.') || address === '0:0:0:0:0:0:0:1';
}

function nameOf({ address, port }: Endpoint): string {
  return `${address}|${port}`;
}

/** Null when the socket is what was announced, fit to be one end. */
export function checkShown(announced: Announced, shown: Shown): Decline | null {
  if (shown === null) return 2;
  if (shown.lingers) return 3;
  const same =
    shown.established &&
    nameOf(shown.local) === nameOf(announced.local) &&
    nameOf(shown.peer) === nameOf(announced.peer) &&
    shown.netnsCookie === announced.netnsCookie &&
    shown.socketCookie === announced.socketCookie;
  return same ? null : 2;
}

/** Both have passed checkShown and are held now. */
export function areTwoEnds(one: Announced, other: Announced): boolean {
  return (
    one.socketCookie !== other.socketCookie &&
    one.netnsCookie === other.netnsCookie &&
    nameOf(one.local) === nameOf(other.peer) &&
    nameOf(one.peer) === nameOf(other.local)
  );
}
