/** What /proc tells of other processes, as far as this user may look: who has a socket, and whether Isthmus is loaded there. */
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, resolve } from 'node:path';
import { CurrentPolicy } from '../net/current-policy.ts';
import { hasTable } from './rows.ts';
import { printable } from './text.ts';

export interface Process {
  readonly pid: number;
  readonly uid: number;
  /** As it was typed, or begins, for people. */
  readonly command: string;
  /** The path of what Node.js runs, if that is what it is. */
  readonly script: string | null;
  /** The file that runs: node, nginx. Null where that cannot be seen. */
  readonly program: string | null;
  /** As it was at its start. Null where that cannot be seen. */
  readonly env: NodeJS.ProcessEnv | null;
  /** The preload in its environment or command line; null: it has none. */
  readonly preload: string | null;
}

const MAX_COMMAND_LENGTH = 100;

/** Null when it has gone. */
export function readProcess(pid: number): Process | null {
  const folder = `/proc/${pid}`;
  try {
    const { uid } = statSync(folder);
    const words = readFileSync(`${folder}/cmdline`, 'utf8').split('\0').slice(0, -1);
    const env = environmentOf(folder);
    const program = linkOf(`${folder}/exe`);
    const script = words.slice(1).find((word) => !word.startsWith('-'));
    return {
      pid,
      uid,
      command: printable(words.join(' '), MAX_COMMAND_LENGTH),
      program: program === null ? null : basename(program.replace(/ \(deleted\)$/, '')),
      script: script === undefined ? null : resolve(linkOf(`${folder}/cwd`) ?? '/', script),
      env,
      preload: preloadIn([env?.NODE_OPTIONS ?? '', ...words]),
    };
  } catch {
    return null;
  }
}

function environmentOf(folder: string): NodeJS.ProcessEnv | null {
  try {
    const pairs = readFileSync(`${folder}/environ`, 'utf8').split('\0');
    return Object.fromEntries(
      pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
    );
  } catch {
    return null;
  }
}

function linkOf(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}

const PRELOAD = /(?:^|[\s="'])([^\s="']*(?:isthmus\/register|dist\/lib\/register\.c?js))(?=$|[\s"'])/;

function preloadIn(texts: readonly string[]): string | null {
  for (const text of texts) {
    // A path with blanks is quoted, as in JSON.
    const found = /"([^"]*dist\/lib\/register\.cjs)"/.exec(text)?.[1] ?? PRELOAD.exec(text)?.[1];
    if (found !== undefined) return found;
  }
  return null;
}

export function allProcesses(): number[] {
  return process.platform === 'linux' ? readdirSync('/proc').filter(isNumber).map(Number) : [];
}

const isNumber = (name: string) => /^\d+$/.test(name);

/** Processes with Isthmus loaded that show no connection, and why, as far as it can be seen from outside. */
export function silentPrograms(pids: readonly number[]): { readonly process: Process; readonly why: string }[] {
  return pids.flatMap((pid) => {
    if (pid === process.pid) return [];
    const one = readProcess(pid);
    if (one === null || one.preload === null || one.program !== 'node' || hasTable(pid)) return [];
    return [{ process: one, why: whyNoTable(one) }];
  });
}

/** Why there is no table to show. */
export function whyNoProgram(pid: string | undefined): string {
  if (pid !== undefined && !existsSync(`/proc/${pid}`)) return `there is no process ${pid}`;
  const silent = silentPrograms(pid === undefined ? allProcesses() : [Number(pid)]);
  if (silent.length > 0) {
    const [first, ...more] = silent.map(({ process, why }) => `process ${process.pid} (${process.command}): ${why}`);
    return [`no connection to show of programs with Isthmus: ${first}`, ...more].join('\n         ');
  }
  const ways = 'isthmus run COMMAND starts a program with Isthmus, NODE_DEBUG=isthmus has one say why nothing moves';
  const whose = pid === undefined ? 'no program of yours has a connection' : `process ${pid} has no connection`;
  return `${whose} that Isthmus has looked at (without it, with the policy off, or where it cannot work none is): ${ways}`;
}

/** Of a process that has loaded Isthmus. */
export function whyNoTable({ env, preload }: Process): string {
  if (env !== null && new CurrentPolicy(env).now.mode === 'off') return 'its policy is off';
  if (preload?.startsWith('/') && !canLoadKoffi(preload)) return 'koffi is missing: npm install koffi';
  return 'none of its connections has been looked at yet, or could move';
}

function canLoadKoffi(preload: string): boolean {
  try {
    return existsSync(createRequire(preload).resolve('koffi'));
  } catch {
    return false;
  }
}

/** Null where the system has no name for it. */
export function userName(uid: number): string | null {
  try {
    const line = readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .find((one) => one.split(':')[2] === String(uid));
    return line?.split(':')[0] ?? null;
  } catch {
    return null; // there is no such file
  }
}

/** For people. */
export function userText(uid: number): string {
  return `user ${printable(userName(uid) ?? String(uid))}`;
}

/** Of a link in /proc/PID/ns; null where that cannot be seen. */
export function namespaceOf(pid: number | 'self', kind: 'net' | 'mnt' | 'pid' | 'user'): string | null {
  return linkOf(`/proc/${pid}/ns/${kind}`);
}

/** Processes that have a socket with this inode. */
export function holdersOf(inode: number): number[] {
  const name = `socket:[${inode}]`;
  return allProcesses().filter((pid) => {
    try {
      const folder = `/proc/${pid}/fd`;
      return readdirSync(folder).some((fd) => linkOf(`${folder}/${fd}`) === name);
    } catch {
      return false; // somebody else's, or gone
    }
  });
}
