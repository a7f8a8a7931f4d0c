/** Who wants to know of each change of a connection: the diagnostics channel, and NODE_DEBUG=isthmus. */
import { channel } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { debuglog } from 'node:util';
import { nextTick } from '../os/event-loop.ts';
import { type ConnectionInfo, formatEndpoint } from './info.ts';

const debug = debuglog('isthmus');
const changes = channel('isthmus:connection');

/** Not before the caller is done, since those who listen may do anything. @param infoOf asked only if somebody wants to know */
export function tellChange(socket: Socket, infoOf: (socket: Socket) => ConnectionInfo): void {
  if (!debug.enabled && !changes.hasSubscribers) return;
  const info = infoOf(socket);
  const { local, peer, mode, reason } = info;
  debug('%s > %s: %s %s (%s)', formatEndpoint(local), formatEndpoint(peer), mode, reason.name, reason.text);
  if (changes.hasSubscribers) nextTick(() => changes.publish({ socket, info }));
}
