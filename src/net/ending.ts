/** When a socket ends that nothing of ours is on any more. */
import type { Socket } from 'node:net';
import { queueMicrotask } from '../os/event-loop.ts';
import { internalsOf, type SocketInternals } from './internals.ts';
import { watchers } from './refusals.ts';

/** Calls back when a socket is destroyed, also after its carrier was taken off. */
export function watchEnd(socket: Socket, ended: () => void): void {
  const internal = internalsOf(socket);
  const before = internal._destroy;
  const own = Object.hasOwn(internal, '_destroy');
  let told = false;
  const watching: SocketInternals['_destroy'] = (error, callback) => {
    if (!told) {
      told = true;
      queueMicrotask(ended);
    }
    const destroy = own ? before : (Object.getPrototypeOf(internal) as SocketInternals)._destroy;
    destroy.call(internal, error, callback);
    if (internal._destroy !== watching) return;
    if (own) internal._destroy = before;
    else Reflect.deleteProperty(internal, '_destroy');
  };
  watchers.add(watching);
  internal._destroy = watching;
}
