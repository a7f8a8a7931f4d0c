/**
 * Rules that keep connections on TCP, or allow them to move. One is a line of words:
 *
 *     allow|deny [connect|accept] [ADDRESS:PORT[,ADDRESS:PORT]] [user NAME|UID] [program NAME|PATH]
 *
 * ADDRESS:PORT is the server's end of a connection, at whichever end this is: where a client connects to, where a server accepts.
 */
import type { Socket } from 'node:net';
import { userInfo } from 'node:os';
import { REASONS, type Reason } from '../smc/reasons.ts';
import { type Endpoints, parseEndpoints } from './endpoints.ts';
import { PROGRAM } from './info.ts';
import type { Role } from './mover.ts';

/** A connection, and whose end of it is asked about. */
export interface Subject {
  readonly direction: 'connect' | 'accept';
  /** The server's end. */
  readonly address: string | undefined;
  readonly port: number | undefined;
  readonly who: Who;
}

/** A program and its user. */
export interface Who {
  readonly uid: number;
  /** Null: it has none. */
  readonly user: string | null;
  /** The path of its script, or of Node.js. */
  readonly program: string;
}

export interface Rule {
  readonly allows: boolean;
  /** In words: the file and its line, or the variable. */
  readonly where: string;
  /** Null where it allows. */
  readonly reason: Reason | null;
  fits(subject: Subject): boolean;
}

/** What is wrong with a policy, and where: a file and its line, or a variable. */
export class PolicyError extends Error {
  readonly where: string;

  constructor(where: string, text: string) {
    super(`${where}: ${text}`);
    this.where = where;
  }
}

/** Longest text of a rule that a reason repeats. */
const SHOWN_LENGTH = 80;

type Condition = (subject: Subject) => boolean;

/** Throws TypeError. */
export function parseRule(text: string, where: string): Rule {
  const words = text.split(/\s+/).filter((word) => word !== '');
  const verdict = words.shift();
  if (verdict !== 'allow' && verdict !== 'deny')
    throw new TypeError(`a rule begins with allow or deny, not ${verdict}`);
  const conditions = new Map<string, Condition>();
  while (words.length > 0) {
    const [kind, condition] = takeCondition(words);
    if (conditions.has(kind)) throw new TypeError(`${kind} stands there twice; several rules can say more`);
    conditions.set(kind, condition);
  }
  const allows = verdict === 'allow';
  const all = [...conditions.values()];
  return { allows, where, reason: allows ? null : denied(text, where), fits: (one) => all.every((fits) => fits(one)) };
}

/** Those of the environment: several with semicolons between. Throws PolicyError. */
export function parseRules(text: string): Rule[] {
  const parts = text.split(';').map((part) => part.trim());
  try {
    return parts.filter((part) => part !== '').map((part) => parseRule(part, 'ISTHMUS_RULES'));
  } catch (error) {
    throw new PolicyError('ISTHMUS_RULES', (error as Error).message);
  }
}

function denied(text: string, where: string): Reason {
  const shown = text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)} ...` : text;
  return Object.freeze({
    ...REASONS.DENIED,
    text: `${REASONS.DENIED.text}: ${shown}`,
    hint: `the rule stands in ${where}`,
  });
}

/** Takes the next one off the words. */
function takeCondition(words: string[]): [string, Condition] {
  const word = words.shift() as string;
  const value = () => words.shift() ?? fail(`${word} stands at the end, without a value`);
  switch (word) {
    case 'connect':
    case 'accept':
      return ['a direction', ({ direction }) => direction === word];
    case 'user':
      return ['user', userCondition(value())];
    case 'program':
      return ['program', programCondition(value())];
    default:
      return ['ADDRESS:PORT', endpointCondition(word)];
  }
}

function fail(text: string): never {
  throw new TypeError(text);
}

function endpointCondition(word: string): Condition {
  // What people write of a port.
  if (/^:?\d+(-\d+)?$/.test(word)) fail(`a port is written with an address before it: *:${word.replace(':', '')}`);
  if (!word.includes(':'))
    fail(`${word} is none of connect, accept, user, program, and no ADDRESS:PORT such as *:5432`);
  const endpoints: Endpoints = parseEndpoints(word);
  return ({ address, port }) => endpoints.has(address, port);
}

function userCondition(name: string): Condition {
  if (/^\d+$/.test(name)) return ({ who }) => who.uid === Number(name);
  return ({ who }) => who.user === name;
}

/**
 * With * and ? in it. Without a slash it is the name of the file; with one, * and ? also stand for slashes, and what does not begin with a
 * slash is the end of the path.
 */
function programCondition(pattern: string): Condition {
  const any = pattern.includes('/') ? '.' : '[^/]';
  const expression = [...pattern]
    .map((one) => (one === '*' ? `${any}*` : one === '?' ? any : one.replace(/[\\^$.|+()[\]{}/-]/g, '\\$&')))
    .join('');
  const path = new RegExp(`${pattern.startsWith('/') ? '^' : '^(?:.*\\/)?'}${expression}$`, 's');
  return ({ who }) => path.test(who.program);
}

/** @param role of our end */
export function subjectOf(socket: Socket, role: Role): Subject {
  const { localAddress, localPort, remoteAddress, remotePort } = socket;
  return role === 'client'
    ? { direction: 'connect', address: remoteAddress, port: remotePort, who: SELF }
    : { direction: 'accept', address: localAddress, port: localPort, who: SELF };
}

/** This program and its user, who may change. */
export const SELF: Who = {
  program: PROGRAM,
  get uid() {
    return process.geteuid?.() ?? -1;
  },
  get user() {
    const { uid } = this;
    if (named?.uid !== uid) named = { uid, name: ownName() };
    return named.name;
  },
};
let named: { readonly uid: number; readonly name: string | null } | null = null;

function ownName(): string | null {
  try {
    return userInfo().username;
  } catch {
    return null; // of a uid that no account has
  }
}
