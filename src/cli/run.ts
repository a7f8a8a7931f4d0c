/**
 * `isthmus run COMMAND`: like `smc_run`. Replaces itself by the command, so that process id, signals, exit code, terminal and IPC
 * channel are the command's own and nothing is left in between. Where a process cannot be replaced (no FFI) it stays and forwards.
 */
import { spawn } from 'node:child_process';
import { existsSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { CurrentPolicy } from '../net/current-policy.ts';
import { parseEndpoints } from '../net/endpoints.ts';
import { ACCESS_MODES, DEFAULT_POLICY, POLICY_MODES } from '../net/policy.ts';
import { DEFAULT_FILE } from '../net/policy-file.ts';
import { preloadOption } from '../net/preload.ts';
import { type Command, fail, UsageError } from './command.ts';

/** The preload. An absolute URL, since the program may know no package of this name. */
export const REGISTER = new URL('../../lib/register.cjs', import.meta.url).href;
export const REGISTER_OPTION = preloadOption(REGISTER);

const HELP = `Usage: isthmus run [options] COMMAND [ARGUMENT ...]

Runs a command with Isthmus loaded into it and into every Node.js program it starts: their TCP connections inside
this host move to shared memory when both ends run like this. Everything else about them stays as it is.

  -v, --verbose       say on stderr what is run, and the policy
      --policy MODE   eager: move after the first byte; lazy (default): after some bytes or time; off: never
      --access MODE   mapped (default) or store: how a peer writes into the program's memory
      --in-band LIST  connections that agree in-band, as RFC 7609 and Linux do: ADDRESS:PORT, several with commas
                      between; both ends have to be told
  -h, --help          this text

Variables, for the command and what it starts; docs/settings.md has all of them:

  ISTHMUS_POLICY, ISTHMUS_ACCESS, ISTHMUS_IN_BAND
                                       what the options set
  ISTHMUS_LAZY_BYTES, ISTHMUS_LAZY_MS  lazy: how many bytes, or how old (default: ${DEFAULT_POLICY.lazyBytes}, ${DEFAULT_POLICY.lazyMs})
  ISTHMUS_DMB_BYTES                    buffer of a connection, each direction (default: ${DEFAULT_POLICY.dmbBytes})
  ISTHMUS_MAX_DMB_BYTES                how long it may become while the other end waits (default: ${DEFAULT_POLICY.maxDmbBytes})
  ISTHMUS_LAYOUT=kernel                in-band: buffers are laid out as in Linux
  ISTHMUS_BUSY_POLL_US                 how long to look before sleeping; 0: not at all (default: ${DEFAULT_POLICY.busyPollUs})
  ISTHMUS_RULES                        which connections may move: 'deny *:5432; allow'
  ISTHMUS_CONFIG                       file with settings and rules, or none (default: ${DEFAULT_FILE})
  ISTHMUS_FABRIC                       socket of the fabric to use, instead of the system's or your own
  NODE_DEBUG=isthmus                   say on stderr why connections do not move

Signals, terminal, IPC channel and process id are the command's own. isthmus ss shows which connections have moved.
Exit code: that of the command; 128 + n when signal n ended it; 126 or 127 when it could not be run; 2 when called
wrongly.
`;

const OPTIONS = {
  verbose: { type: 'boolean', short: 'v' },
  policy: { type: 'string', choices: POLICY_MODES },
  access: { type: 'string', choices: ACCESS_MODES },
  'in-band': { type: 'string' },
} as const;

export const run: Command = {
  summary: 'run a program with its connections inside this host in shared memory',
  help: HELP,
  options: OPTIONS,
  takes: 'command',
  own: (args) => args.slice(0, startOfCommand(args)),
  async main(args) {
    const first = startOfCommand(args);
    const command = args.slice(first);
    const { values } = parseArgs({
      args: args.slice(0, first),
      options: OPTIONS,
    });
    for (const [name, value, choices] of [
      ['policy', values.policy, POLICY_MODES],
      ['access', values.access, ACCESS_MODES],
    ] as const) {
      if (value !== undefined && !(choices as readonly string[]).includes(value))
        throw new UsageError(`--${name} takes one of ${choices.join(', ')}`);
    }
    const fault = faultOf(values['in-band']);
    if (fault !== null) throw new UsageError(`--in-band: ${fault}`);
    const [file] = command;
    if (file === undefined) throw new UsageError('the command is missing');
    const env = environment(values);
    if (values.verbose) {
      const inBand = env.ISTHMUS_IN_BAND ? `, in-band with ${env.ISTHMUS_IN_BAND}` : '';
      // Not process.stderr: it may make the descriptor non-blocking, also for the command.
      writeSync(2, `isthmus: running ${command.join(' ')} (policy ${new CurrentPolicy(env).now.mode}${inBand})\n`);
    }
    const runtime = basename(file);
    if (OTHER_RUNTIMES.includes(runtime))
      writeSync(
        2,
        `isthmus: ${runtime} is not Node.js, its own connections stay TCP; Node.js programs that it starts have Isthmus\n`,
      );
    const why = await whyNothingMoves(env);
    if (why !== null) writeSync(2, `isthmus: connections will stay TCP: ${why}\n`);
    return (await replace(file, command, env)) ?? forward(file, command.slice(1), env);
  },
};

/** What can be known before the command runs; null where nobody wants to have any moved. */
async function whyNothingMoves(env: NodeJS.ProcessEnv): Promise<string | null> {
  const isSaid = (process.env.NODE_OPTIONS ?? '').includes(REGISTER_OPTION); // by the one that runs this one
  if (isSaid || env.ISTHMUS_POLICY === 'off') return null;
  const { ffi } = await import('../os/index.ts');
  try {
    ffi();
    return null;
  } catch (error) {
    return `${(error as Error).message} (isthmus doctor tells more)`;
  }
}

/** They take no notice of NODE_OPTIONS, and have a node:net of their own. */
const OTHER_RUNTIMES = ['bun', 'bunx', 'deno'];

function startOfCommand(args: readonly string[]): number {
  const first = args.findIndex((arg, i) => (arg === '--' || !arg.startsWith('-')) && !takesValue(args[i - 1]));
  if (first === -1) return args.length;
  return args[first] === '--' ? first + 1 : first;
}

/** Options with a value, and the variables they set. */
const SETTINGS = { policy: 'ISTHMUS_POLICY', access: 'ISTHMUS_ACCESS', 'in-band': 'ISTHMUS_IN_BAND' } as const;
type Settings = { [Option in keyof typeof SETTINGS]?: string };

function takesValue(option: string | undefined): boolean {
  return Object.keys(SETTINGS).some((name) => option === `--${name}`);
}

function faultOf(endpoints: string | undefined): string | null {
  try {
    parseEndpoints(endpoints ?? '');
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** NODE_OPTIONS is appended to; twice does no harm. */
function environment(values: Settings): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: before = '' } = process.env;
  return {
    ...process.env,
    NODE_OPTIONS: before.includes(REGISTER_OPTION) ? before : `${before} ${REGISTER_OPTION}`.trim(),
    ...Object.fromEntries(
      (Object.keys(SETTINGS) as (keyof Settings)[])
        .filter((option) => values[option] !== undefined)
        .map((option) => [SETTINGS[option], values[option]]),
    ),
  };
}

/** Does not return when it works; the exit code when the command cannot be run; null when a process cannot be replaced here. */
async function replace(file: string, command: readonly string[], env: NodeJS.ProcessEnv): Promise<number | null> {
  const { replaceProcess } = await import('../os/exec.ts');
  const { errorCode, keepAcrossExec } = await import('../os/index.ts');
  try {
    replaceProcess(file, command, channelKept(env, keepAcrossExec));
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' || code === 'EACCES' || code === 'ENOEXEC' || code === 'E2BIG')
      return cannotRun(file, code, command);
  }
  return null;
}

/** As a shell ends. */
function cannotRun(file: string, code: string, command: readonly string[]): number {
  const what = code === 'ENOENT' ? 'no such command' : code;
  const hint = /\.[cm]?[jt]s$/.test(file) && existsSync(file) ? `; isthmus run node ${command.join(' ')} runs it` : '';
  return fail(`${file}: ${what}${hint}`, code === 'ENOENT' ? 127 : 126);
}

/** Node.js takes the variables of an IPC channel out of the environment; the command needs them, and the descriptor. */
function channelKept(env: NodeJS.ProcessEnv, keep: (fd: number) => void): NodeJS.ProcessEnv {
  const handle = channelHandle();
  if (handle === null || handle.fd < 0) return env;
  keep(handle.fd);
  return { ...env, NODE_CHANNEL_FD: String(handle.fd), NODE_CHANNEL_SERIALIZATION_MODE: serializationOf(handle) };
}

function serializationOf(handle: ChannelHandle): 'json' | 'advanced' {
  const isJson = Object.getOwnPropertySymbols(handle).some(({ description }) => description === 'kJSONBuffer');
  return isJson ? 'json' : 'advanced';
}

interface ChannelHandle {
  readonly fd: number;
  readStart(): void;
}

/** Node.js' own handle of the IPC channel; isthmus.cts has stopped it, so that no message is taken off that the command should get. */
function channelHandle(): ChannelHandle | null {
  const symbol = Object.getOwnPropertySymbols(process).find(({ description }) => description === 'kChannelHandle');
  return symbol === undefined ? null : ((Reflect.get(process, symbol) as ChannelHandle | null | undefined) ?? null);
}

/** Stays and forwards: signals to the command, its end to our caller, messages both ways. */
async function forward(file: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const channel = process.send === undefined ? null : channelHandle();
  channel?.readStart();
  const child = spawn(file, args, {
    env,
    ...(channel === null
      ? { stdio: 'inherit' }
      : { stdio: ['inherit', 'inherit', 'inherit', 'ipc'], serialization: serializationOf(channel) }),
  });
  if (channel !== null) {
    process.on('message', (message) => child.send(message as object));
    child.on('message', (message) => process.send?.(message));
    process.on('disconnect', () => child.connected && child.disconnect());
    child.on('disconnect', () => process.connected && process.disconnect());
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGCONT', 'SIGWINCH'] as const) {
    process.on(signal, () => child.kill(signal));
  }
  process.on('exit', () => child.kill('SIGKILL'));
  return await new Promise((resolve) => {
    child.on('error', (error: NodeJS.ErrnoException) =>
      resolve(cannotRun(file, error.code ?? error.message, [file, ...args])),
    );
    child.on('exit', (code, signal) => resolve(signal === null ? (code ?? 1) : 128 + constants.signals[signal]));
  });
}
