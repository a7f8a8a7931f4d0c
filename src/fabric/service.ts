/** What systemd gives a service: sockets that it listens at already (sd_listen_fds(3)), and one to tell how it is (sd_notify(3)). */
import { adoptFd, packetListenerPath, sendDatagram } from '../os/index.ts';

const FIRST_FD = 3;

/** By their paths. Empty for what no service manager has started. Throws when one is no listening SOCK_SEQPACKET socket. */
export function givenListeners(env: NodeJS.ProcessEnv): ReadonlyMap<string, number> {
  const given = new Map<string, number>();
  if (Number(env.LISTEN_PID) !== process.pid) return given; // meant for somebody else, and inherited
  for (let fd = FIRST_FD; fd < FIRST_FD + Number(env.LISTEN_FDS ?? 0); fd++) {
    const path = packetListenerPath(fd);
    if (path === null)
      throw new Error(`descriptor ${fd} of the service manager is no socket for packets (ListenSequentialPacket=)`);
    adoptFd(fd);
    given.set(path, fd);
  }
  return given;
}

/** Says that the service is ready, and from then on, if somebody wants to hear it, that it is alive: its event loop, that is. */
export function tellManager(env: NodeJS.ProcessEnv): { stopping(): void } {
  const say = (text: string) => {
    try {
      if (env.NOTIFY_SOCKET) sendDatagram(env.NOTIFY_SOCKET, Buffer.from(text));
    } catch {
      // Nobody hears it: the manager draws its conclusions.
    }
  };
  say('READY=1');
  const watchdogMs = Number(env.WATCHDOG_USEC ?? 0) / 1000;
  const isOurs = env.WATCHDOG_PID === undefined || Number(env.WATCHDOG_PID) === process.pid;
  if (watchdogMs > 0 && isOurs) setInterval(() => say('WATCHDOG=1'), watchdogMs / 2).unref();
  return { stopping: () => say('STOPPING=1') };
}
