import { readFileSync } from 'node:fs';

/** As parseArgs takes it. */
export interface Option {
  readonly type: 'boolean' | 'string';
  readonly short?: string;
  readonly multiple?: boolean;
  readonly default?: string | boolean;
  /** What completion offers as its value. */
  readonly choices?: readonly string[];
}

export interface Command {
  /** One line for the overview. */
  readonly summary: string;
  readonly help: string;
  /** All of them but --help, by their long names. */
  readonly options: Readonly<Record<string, Option>>;
  /** What completion offers where no option stands: words, names of files, or a command with its own arguments. */
  readonly takes: readonly string[] | 'files' | 'command';
  /** Which arguments are this command's own, where others belong to a command that it runs. */
  own?(args: readonly string[]): readonly string[];
  /** Resolves to the exit code. */
  main(args: readonly string[]): Promise<number>;
}

/** Of this package. */
export function version(): string {
  return packageJson().version;
}

export function packageJson(): { readonly version: string; readonly engines: { readonly node: string } } {
  return JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
}

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** Called wrongly. As parseArgs' own errors it ends the command with EXIT_USAGE and a pointer to its help. */
export class UsageError extends Error {}

export function isUsageError(error: unknown): error is Error {
  return (
    error instanceof UsageError || String((error as NodeJS.ErrnoException | null)?.code).startsWith('ERR_PARSE_ARGS')
  );
}

/** The first of `verbs` when none is given; each may be abbreviated, as in smcd. Throws UsageError. */
export function verbOf<const V extends string>(
  command: string,
  words: readonly string[],
  verbs: readonly [V, ...V[]],
): V {
  const [word = verbs[0], ...more] = words;
  const verb = verbs.find((one) => word !== '' && one.startsWith(word));
  if (verb === undefined || more.length > 0)
    throw new UsageError(`there is no 'isthmus ${command} ${words.join(' ')}'`);
  return verb;
}

export function fail(text: string, code = EXIT_FAILED): number {
  process.stderr.write(`isthmus: ${text}\n`);
  return code;
}

/** Columns as wide as their widest cell, two blanks between. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
