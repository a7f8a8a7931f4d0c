/**
 * The policy file: `NAME=value` lines with the names of the environment, and rules. `#` begins a comment, at the beginning of a line or
 * after a space. A file with a mistake is not used at all: half of a policy may allow what the other half denies.
 */
import { statSync } from 'node:fs';
import { readTrusted } from '../fabric/trust.ts';
import { DEFAULT_POLICY, ENVIRONMENT_SETTINGS, FILE_SETTINGS, type Policy, readPolicy, suggest } from './policy.ts';
import { PolicyError, parseRule, type Rule } from './rules.ts';

export const DEFAULT_FILE = '/etc/isthmus.conf';
/** `ISTHMUS_CONFIG`: no file at all. */
export const NO_FILE = 'none';
const MAX_BYTES = 64 * 1024;

export interface PolicyFile {
  /** What holds where the environment says nothing. */
  readonly base: Policy;
  readonly rules: readonly Rule[];
  /** By the name of a setting: where it stands, `/etc/isthmus.conf:3`. */
  readonly places: ReadonlyMap<string, string>;
}

export const EMPTY_FILE: PolicyFile = { base: DEFAULT_POLICY, rules: [], places: new Map() };

const RULE = /^(allow|deny)(\s|$)/;
const SETTING = /^(\w+)\s*=\s*(.*)$/;

/** Throws PolicyError. @param path for what is said of it */
export function parsePolicyFile(text: string, path: string): PolicyFile {
  const mistakes: (readonly [where: string, text: string])[] = [];
  const values: Record<string, string> = {};
  const places = new Map<string, string>();
  const rules: Rule[] = [];
  for (const [index, whole] of text.split(/\r?\n/).entries()) {
    const line = whole.replace(/(^|\s)#.*$/, '').trim();
    const place = `${path}:${index + 1}`;
    const [, name, value = ''] = SETTING.exec(line) ?? [];
    try {
      if (line === '') continue;
      if (RULE.test(line)) rules.push(parseRule(line, place));
      else if (name !== undefined) {
        checkName(name, places.get(name));
        places.set(name, place);
        values[name] = value;
      } else throw new TypeError(`neither NAME=value nor a rule, which begins with allow or deny: ${line}`);
    } catch (error) {
      mistakes.push([place, (error as Error).message]);
    }
  }
  const base = readPolicy(values, (fault, name) =>
    mistakes.push([places.get(name) ?? path, fault.slice(0, fault.lastIndexOf(';'))]),
  );
  const [first, ...others] = mistakes;
  if (first !== undefined)
    throw new PolicyError(first[0], `${first[1]}${others.length > 0 ? ` (${others.length} more)` : ''}`);
  return { base, rules, places };
}

function checkName(name: string, before: string | undefined): void {
  if (before !== undefined) throw new TypeError(`${name} is set in ${before} already`);
  if ((FILE_SETTINGS as readonly string[]).includes(name)) return;
  if ((ENVIRONMENT_SETTINGS as readonly string[]).includes(name))
    throw new TypeError(`${name} can be set in the environment only`);
  throw new TypeError(`there is no setting ${name}${suggest(name, FILE_SETTINGS)}`);
}

/** Null: none is to be read. Throws PolicyError. */
export function pathOfFile(env: NodeJS.ProcessEnv): string | null {
  const path = env.ISTHMUS_CONFIG || DEFAULT_FILE;
  if (path === NO_FILE) return null;
  if (!path.startsWith('/')) throw new PolicyError('ISTHMUS_CONFIG', `${path} is neither a whole path nor ${NO_FILE}`);
  return path;
}

/** One that is not there is empty, unless it was named. Throws PolicyError. */
export function readPolicyFile(path: string): PolicyFile {
  let text: string | null;
  try {
    text = readTrusted(path, MAX_BYTES, true);
  } catch (error) {
    throw new PolicyError(path, (error as Error).message);
  }
  if (text !== null) return parsePolicyFile(text, path);
  if (path !== DEFAULT_FILE) throw new PolicyError(path, 'there is no such file, and ISTHMUS_CONFIG names it');
  return EMPTY_FILE;
}

/** Changes when the file does. @param settleMs one that was written less long ago may not have been written to its end: null */
export function versionOf(path: string, settleMs = 0): string | null {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return 'none';
    const { ino, size, mtimeMs, ctimeMs, mode, uid } = stat;
    return Math.abs(Date.now() - ctimeMs) < settleMs ? null : [ino, size, mtimeMs, ctimeMs, mode, uid].join();
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}
