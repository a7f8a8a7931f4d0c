/** Steps that are looked at one after the other, up to the first that fails: a line each, in the manner of smc_chk, but in words. */
import { reasonOfSystem } from '../net/causes.ts';
import type { Reason } from '../smc/reasons.ts';
import { printable } from './text.ts';

/** What a step has found. A text: all is well. A note: nothing that speaks against it, but worth to be known. */
export type Finding = string | { readonly note: string } | { readonly failed: Reason };

export interface Step {
  readonly name: string;
  look(): Finding | Promise<Finding>;
}

/** A line, as JSON has it. */
export interface Line {
  readonly step: string;
  readonly result: 'ok' | 'note' | 'failed';
  readonly text: string;
  /** Of one that failed. */
  readonly reason?: Reason;
}

const MARKS = { ok: 'ok  ', note: '--  ', failed: 'FAIL' } as const;
const NAME_WIDTH = 13;

export class Ladder {
  readonly lines: Line[] = [];
  readonly #isShown: boolean;

  /** @param isShown on stdout, as it goes */
  constructor(isShown: boolean) {
    this.#isShown = isShown;
  }

  /** False when a step failed: those after it were not looked at. */
  async climb(steps: readonly Step[]): Promise<boolean> {
    for (const { name, look } of steps) {
      const finding = await this.#look(look);
      this.#add(lineOf(name, finding));
      if (this.failure !== null) return false;
    }
    return true;
  }

  /** What the system refuses meanwhile is a finding, too. */
  async #look(look: Step['look']): Promise<Finding> {
    try {
      return await look();
    } catch (error) {
      return { failed: reasonOfSystem(error) };
    }
  }

  /** The step that failed, if one has. */
  get failure(): Line | null {
    const last = this.lines.at(-1);
    return last?.result === 'failed' ? last : null;
  }

  #add(line: Line): void {
    this.lines.push(line);
    if (!this.#isShown) return;
    this.say(`${MARKS[line.result]}  ${line.step.padEnd(NAME_WIDTH)} ${line.text}`);
    if (line.reason !== undefined && line.reason.hint !== '')
      this.say(`${' '.repeat(7 + NAME_WIDTH)}${line.reason.hint}`);
  }

  say(text: string): void {
    if (this.#isShown) process.stdout.write(`${printable(text, 2000)}\n`);
  }
}

function lineOf(step: string, finding: Finding): Line {
  if (typeof finding === 'string') return { step, result: 'ok', text: finding };
  if ('note' in finding) return { step, result: 'note', text: finding.note };
  const { failed } = finding;
  return { step, result: 'failed', text: `${reasonText(failed)}`, reason: failed };
}

/** `0x49530008 NOFABRIC: there is no fabric ...` */
export function reasonText({ code, name, text }: Reason): string {
  return `0x${code.toString(16).padStart(8, '0')} ${name}: ${text}`;
}
