/** `isthmus fabric`: runs one in the foreground; `isthmus fabric status` shows the one that would be used. */
import { existsSync, lstatSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { type FabricPlace, fabricPlaces, makeDirectory, SYSTEM_FABRIC } from '../fabric/locate.ts';
import type { FabricRunOptions } from '../fabric/run.ts';
import { TIMER_LIMIT_MS } from '../fabric/settings.ts';
import { type Command, EXIT_FAILED, EXIT_OK, fail, formatTable, UsageError } from './command.ts';
import { seidText } from './eids.ts';
import { printable, printableJson } from './text.ts';

const HELP = `Usage: isthmus fabric [--socket PATH] [--mode MODE] [--domain PATH ...] [--idle SECONDS]
       isthmus fabric status [--json]

Runs a fabric in the foreground: the small daemon that proves connections and introduces the programs to each other.
Programs start one by themselves; this is for those who want to see it, or to have one that stays.

Programs use the fabric at $ISTHMUS_FABRIC if that is set; else the system's at ${SYSTEM_FABRIC} if one answers
there; else their user's own. One at the system's place is run by root, with --socket, in a directory that root has
made (install -d -m 755 ${dirname(SYSTEM_FABRIC)}), and serves all users. There is one fabric in a directory.

      --socket PATH   where to listen; default: your own place, or $ISTHMUS_FABRIC
      --mode MODE     who may connect there, in octal; default: 600, you and root; at the system's place 666, everybody
      --domain PATH   a further socket, in a directory of its own, for a container for example: whoever connects there
                      counts as one user, with the limits of one, and cannot ask for status or change enterprise ids.
                      May be given several times
      --idle SECONDS  end when nobody has used it for so long; default: never. A service manager that keeps the sockets
                      (systemd) starts it again
      --json          status as JSON
  -h, --help          this text

status shows the fabric that programs of yours would use: its process, age and memory, its enterprise ids (isthmus ueid,
isthmus seid), the partitions that are joined, and what it has done so far. Exit code 1 when none is running.
`;

const OPTIONS = {
  socket: { type: 'string' },
  mode: { type: 'string' },
  domain: { type: 'string', multiple: true },
  idle: { type: 'string' },
  json: { type: 'boolean' },
} as const;

export const fabric: Command = {
  summary: 'run or show the daemon that introduces programs to each other',
  help: HELP,
  options: OPTIONS,
  takes: ['status'],
  async main(args) {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: OPTIONS,
    });
    const [verb] = positionals;
    if (positionals.length > 1 || (verb !== undefined && verb !== 'status'))
      throw new UsageError(`there is no 'isthmus fabric ${positionals.join(' ')}'`);
    if (verb === 'status') {
      if ([values.socket, values.mode, values.domain, values.idle].some((value) => value !== undefined))
        throw new UsageError('status takes --json only, ISTHMUS_FABRIC=PATH names another fabric');
      return status(values.json ?? false);
    }
    if (values.json) throw new UsageError('--json belongs to isthmus fabric status');
    const idleMs = values.idle === undefined ? null : Number(values.idle) * 1000;
    if (idleMs !== null && !(idleMs > 0 && idleMs < TIMER_LIMIT_MS))
      throw new UsageError('--idle takes a number of seconds, above 0, up to 2147483');
    const { mode, domain: domains = [] } = values;
    if (mode !== undefined && !/^0?[0-6]{3}$/.test(mode)) throw new UsageError('--mode takes permissions such as 666');
    return foreground(values.socket, {
      idleMs,
      domains,
      ...(mode === undefined ? {} : { mode: Number.parseInt(mode, 8) }),
    });
  },
};

async function foreground(socket: string | undefined, options: Omit<FabricRunOptions, 'socket'>): Promise<number> {
  const { domains = [] } = options;
  const places = fabricPlaces(process.env);
  const place: FabricPlace = socket === undefined ? (places.at(-1) as FabricPlace) : { socket, kind: 'named' };
  try {
    if (place.kind === 'own') makeDirectory(place);
    else examine(place.socket);
    for (const path of domains) examine(path);
    const directories = [place.socket, ...domains].map(dirname);
    // Each is what a container gets to see.
    if (new Set(directories.map((one) => realpathSync(one))).size < directories.length)
      throw new Error('each socket needs a directory of its own');
    const { runFabric } = await import('../fabric/run.ts');
    const { givenListeners, tellManager } = await import('../fabric/service.ts');
    const given = givenListeners(process.env);
    for (const path of given.keys())
      if (path !== place.socket && !domains.includes(path))
        throw new Error(`the service manager listens at ${path}, which is named neither by --socket nor by --domain`);
    const running = runFabric({ socket: place.socket, given, ...options }, () => process.exit(EXIT_OK));
    if (running === null)
      return fail(
        `another fabric runs in ${directories.join(' or ')}; ISTHMUS_FABRIC=PATH isthmus fabric status shows the one at PATH`,
      );
    process.stdout.write(`fabric at ${place.socket}, process ${process.pid}; Ctrl-C ends it\n`);
    const manager = tellManager(process.env);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
      process.on(signal, () => {
        manager.stopping();
        running.stop();
      });
    return await new Promise<number>(() => {});
  } catch (error) {
    process.stderr.write(`isthmus: the fabric cannot run here: ${(error as Error).message}\n`);
    process.exit(EXIT_FAILED);
  }
}

/** What the user has named must not be lost by a slip of the pen. */
function examine(socket: string): void {
  if (!existsSync(dirname(socket))) throw new Error(`there is no directory ${dirname(socket)}`);
  if (lstatSync(socket, { throwIfNoEntry: false })?.isSocket() === false)
    throw new Error(`${socket} exists and is not a socket`);
}

async function status(json: boolean): Promise<number> {
  const { findFabric } = await import('../fabric/client.ts');
  const { askStatus, readStatus } = await import('../fabric/status.ts');
  let text: string;
  try {
    const found = findFabric(process.env);
    if (found === null) {
      const { kind, socket } = fabricPlaces(process.env).at(-1) as FabricPlace;
      return fail(
        kind === 'named'
          ? `no fabric is running at ${printable(socket)} (ISTHMUS_FABRIC), and no program starts one there: isthmus fabric does`
          : 'no fabric is running; programs start one when they need it',
      );
    }
    text = await askStatus(found.fd);
  } catch (error) {
    return fail(printable((error as Error).message));
  }
  const state = readStatus(text);
  if (state === null) return fail('the fabric sent a status that this version does not understand');
  if (json) {
    process.stdout.write(`${printableJson(state)}\n`);
    return EXIT_OK;
  }
  const { counters, eids } = state;
  process.stdout.write(
    `fabric at ${printable(state.socket)}, process ${state.pid}, up ${duration(state.uptimeMs)}, ${mebibytes(state.memoryBytes)}\n` +
      `announced ${counters.announced}, matched ${counters.matched}, declined ${counters.declined}, pairs ${counters.pairs}, waiting ${state.claims}\n`,
  );
  if (eids !== undefined) {
    const ueids = eids.ueids.length === 0 ? 'none, so connections stay on TCP' : eids.ueids.join(' ');
    process.stdout.write(`UEIDs: ${printable(ueids)}; SEID: ${printable(seidText(eids))}\n`);
  }
  const rows = state.partitions.map(({ gid, pid, uid, claims, pairs, program }) =>
    [gid, pid, uid, claims, pairs, program].map((cell) => printable(String(cell))),
  );
  process.stdout.write(formatTable([['GID', 'PID', 'UID', 'Claims', 'Pairs', 'Program'], ...rows]));
  return EXIT_OK;
}

function mebibytes(bytes: number | null): string {
  return bytes === null ? 'memory not known' : `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}

function duration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}
