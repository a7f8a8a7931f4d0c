/**
 * The policy as it is now: the environment, which wins, over the file. The file is read when the first connection is made, so that the
 * start of a program does not pay for it, and looked at again when others are decided about; nothing watches it.
 */
import { now } from '../os/event-loop.ts';
import { REASONS, type Reason, withCause } from '../smc/reasons.ts';
import { ENVIRONMENT_SETTINGS, FILE_SETTINGS, type Policy, readPolicy, suggest } from './policy.ts';
import { EMPTY_FILE, type PolicyFile, pathOfFile, readPolicyFile, versionOf } from './policy-file.ts';
import { type PolicyError, parseRules, type Rule, type Subject } from './rules.ts';

const LOOK_EVERY_MS = 1000;
/** A file that is changed in place is given the time to be written to its end. */
const SETTLE_MS = 100;

export interface Verdict {
  /** Why the connection stays on TCP; null: it may move. */
  readonly reason: Reason | null;
  /** What says so: `/etc/isthmus.conf:3`, a variable, or `default`. */
  readonly where: string;
}

export class CurrentPolicy {
  readonly #everything: NodeJS.ProcessEnv;
  /** Our part of it, as it was at the beginning. */
  readonly #env: NodeJS.ProcessEnv;
  readonly #warn: (text: string) => void;
  #now: Policy | null = null;
  #ownRules: readonly Rule[] = [];
  /** The last one without a mistake. */
  #file: PolicyFile | null = null;
  /** Null: none is read. */
  #path: string | null = null;
  /** Of the file when it was read. */
  #version: string | null = null;
  #lookedAt = 0;
  /** Nothing moves as long as it is not known what may not. */
  #fault: Verdict | null = null;

  constructor(env: NodeJS.ProcessEnv, warn: (text: string) => void = () => {}) {
    this.#everything = env;
    this.#env = Object.fromEntries([...FILE_SETTINGS, ...ENVIRONMENT_SETTINGS].map((name) => [name, env[name]]));
    this.#warn = warn;
  }

  /** The environment alone says that nothing is to move by itself: then there is no need to read the file. */
  get isOffForGood(): boolean {
    return this.#env.ISTHMUS_POLICY === 'off';
  }
  get isInBandByEnvironment(): boolean {
    return (this.#env.ISTHMUS_IN_BAND ?? '') !== '';
  }

  /** As it was read last. */
  get now(): Policy {
    return this.#now ?? this.#readFirst();
  }

  /** Reads the file again if it has changed; looks once a second at most. */
  look(): Policy {
    const policy = this.now;
    if (this.#path === null || now() - this.#lookedAt < LOOK_EVERY_MS) return policy;
    this.#lookedAt = now();
    const version = versionOf(this.#path, SETTLE_MS);
    if (version === null || version === this.#version) return policy;
    this.#version = version;
    this.#readFile(this.#path);
    // A server that waits for a first message, and a client that sends none, would wait for ever: both ends know from their beginning.
    this.#now = { ...this.#merge(), inBand: policy.inBand };
    return this.#now;
  }

  /** By what was read last. */
  decide(subject: Subject): Verdict {
    const { mode } = this.now;
    const fits = (one: Rule) => one.fits(subject);
    const verdict = this.#fault ?? this.#ownRules.find(fits) ?? this.#file?.rules.find(fits);
    if (verdict?.reason) return verdict;
    const where = this.whereIs('ISTHMUS_POLICY');
    if (mode === 'off') return { reason: this.off, where };
    return verdict ?? { reason: null, where };
  }

  /** Why the connection stays on TCP even if its program asks for it, which off does not keep it from. */
  forbids(subject: Subject): Reason | null {
    const { reason } = this.decide(subject);
    return reason?.code === REASONS.OFF.code ? null : reason;
  }

  /** What is said of connections under the policy off. */
  get off(): Reason {
    return { ...REASONS.OFF, text: `${REASONS.OFF.text}: ${this.whereIs('ISTHMUS_POLICY')}` };
  }

  /** Where a setting has its value from. */
  whereIs(name: (typeof FILE_SETTINGS)[number]): string {
    return this.#env[name] ? name : (this.#file?.places.get(name) ?? 'default');
  }

  #readFirst(): Policy {
    const names = Object.keys(this.#env);
    for (const name of Object.keys(this.#everything)) {
      if (name.startsWith('ISTHMUS_') && !names.includes(name))
        this.#warn(`there is no setting ${name}${suggest(name, names)}`);
    }
    try {
      this.#ownRules = parseRules(this.#env.ISTHMUS_RULES ?? '');
      this.#path = pathOfFile(this.#env);
    } catch (error) {
      this.#fail(error as PolicyError);
    }
    if (this.#path !== null) {
      this.#lookedAt = now();
      this.#version = versionOf(this.#path);
      this.#readFile(this.#path);
    }
    this.#now = this.#merge(this.#warn);
    return this.#now;
  }

  #readFile(path: string): void {
    try {
      this.#file = readPolicyFile(path);
      this.#fault = null;
    } catch (error) {
      this.#fail(error as PolicyError);
    }
  }

  #merge(warn?: (text: string) => void): Policy {
    return readPolicy(this.#env, warn, (this.#file ?? EMPTY_FILE).base);
  }

  #fail({ message, where }: PolicyError): void {
    if (this.#file !== null) {
      this.#warn(`${message}. The policy stays as it was before the file was changed`);
      return;
    }
    // What stands in the environment is read once.
    const hint = where.startsWith('ISTHMUS_') ? `correct ${where} and start the program anew` : undefined;
    this.#fault = { reason: withCause(REASONS.BADPOLICY, message, hint), where };
    this.#warn(`${message}. All connections stay on TCP until this is right`);
  }
}
