/**
 * Keeps a connected socket from its program until it has been somewhere else first: 'connect' of a client and 'connection' of a server
 * come later. For the program the connection takes longer to be made, and nothing else.
 */
import { AsyncResource } from 'node:async_hooks';
import { Server, Socket } from 'node:net';
import { internalsOf } from './internals.ts';
import { heldSockets } from './refusals.ts';

type Emit = (event: string | symbol, ...args: unknown[]) => boolean;

/** Settled with null when the program can have the socket, else with why it cannot. */
export type Detour = (socket: Socket) => Promise<Error | null>;

/** How often it is looked whether the program wants to be kept running by a socket that is held. */
const REF_CHECK_MS = 100;

/**
 * To be called before the socket is connected.
 * @param isWanted asked when it is
 * @returns what gives it up, when the socket has ended and is being connected anew
 */
export function holdClient(socket: Socket, isWanted: () => boolean, detour: Detour): () => void {
  const emitter = socket as unknown as { emit: Emit; connecting: boolean };
  const before = Object.hasOwn(socket, 'emit') ? emitter.emit : null;
  const emit = emitter.emit;
  let isOver = false;
  const restore = () => {
    isOver = true;
    if (emitter.emit !== held) return;
    if (before === null) Reflect.deleteProperty(emitter, 'emit');
    else emitter.emit = before;
  };
  let isHeld = false;
  const held: Emit = function (this: Socket, event, ...args) {
    if (event === 'ready' && isHeld && !isOver) return false;
    if (event !== 'connect' || isHeld || isOver) return Reflect.apply(emit, this, [event, ...args]);
    if (!isWanted()) {
      restore();
      return Reflect.apply(emit, this, [event, ...args]);
    }
    isHeld = true;
    const context = new AsyncResource('ISTHMUS'); // that of connect
    heldSockets.add(socket);
    void socket.remoteAddress; // kept, and not to be asked for while it is connecting
    emitter.connecting = true; // writes wait, as they did
    hold(socket, detour, (error) => {
      if (isOver) return;
      heldSockets.delete(socket);
      isHeld = false;
      restore();
      if (socket.destroyed) return;
      context.runInAsyncScope(() => {
        if (error !== null) {
          socket.destroy(error);
          return;
        }
        emitter.connecting = false;
        socket.emit('connect');
        socket.emit('ready');
        if (!socket.destroyed && !socket.isPaused()) socket.read(0);
      });
    });
    return false;
  };
  emitter.emit = held;
  return restore;
}

/** From now on, for all servers. @param isWanted asked at each connection */
export function holdServers(isWanted: (server: Server, socket: Socket) => boolean, detour: Detour): void {
  const emit = Server.prototype.emit as Emit;
  const seen = new WeakSet<Socket>();
  (Server.prototype as unknown as { emit: Emit }).emit = function (this: Server, event, ...args) {
    const [socket] = args;
    const isBorn = event === 'connection' && socket instanceof Socket && internalsOf(socket).server === this;
    if (!isBorn || seen.has(socket) || !isWanted(this, socket)) return Reflect.apply(emit, this, [event, ...args]);
    seen.add(socket);
    const handle = internalsOf(socket)._handle;
    if (handle?.reading) handle.readStop();
    // Nobody listens yet: an error would end the program.
    const ignore = () => {};
    socket.on('error', ignore);
    hold(socket, detour, (error) => {
      socket.off('error', ignore);
      if (socket.destroyed) return;
      if (error !== null) {
        socket.destroy();
        return;
      }
      // Not if it was given as much as it wants, meanwhile: it asks for more itself then, and reading twice is an error.
      if (handle?.reading) handle.readStart();
      Reflect.apply(emit, this, [event, ...args]);
    });
    return true;
  };
}

/** A socket that nobody reads keeps no program running, as one that is being connected does. */
function hold(socket: Socket, detour: Detour, release: (error: Error | null) => void): void {
  const alive = setInterval(() => follow(), REF_CHECK_MS);
  const follow = () => void (internalsOf(socket)._handle?.hasRef?.() === false ? alive.unref() : alive.ref());
  follow();
  void detour(socket).then((error) => {
    clearInterval(alive);
    // What a listener throws is the program's uncaught exception, and no rejection.
    process.nextTick(release, error);
  });
}
