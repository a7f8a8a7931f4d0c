/** Shows something again and again: in place on a terminal, else one below the other. */
import { constants } from 'node:os';
import { EXIT_OK } from './command.ts';

const ESC = '\u001b[';
/** Another screen, so that what stood there before comes back; no cursor. */
const ENTER = `${ESC}?1049h${ESC}?25l`;
const LEAVE = `${ESC}?25h${ESC}?1049l`;
const HOME = `${ESC}H`;
const CLEAR_LINE = `${ESC}K`;
const CLEAR_BELOW = `${ESC}J`;

/** Resolves to the exit code once a signal ends it; Ctrl-C is the way to end it, and no failure. */
export async function repeat(intervalMs: number, text: () => string): Promise<number> {
  const { stdout } = process;
  const isTerminal = stdout.isTTY === true;
  let isWaiting = false;
  let isFirst = true;
  const show = () => {
    // Whoever reads is slower than we: what it gets next is new.
    if (isWaiting) return;
    const block = isTerminal ? screenful(text(), stdout) : `${isFirst ? '' : '\n'}${text()}`;
    isFirst = false;
    if (stdout.write(block)) return;
    isWaiting = true;
    stdout.once('drain', () => {
      isWaiting = false;
    });
  };
  const leave = () => {
    if (isTerminal) stdout.write(LEAVE);
  };
  if (isTerminal) stdout.write(ENTER);
  // Also where the process ends by an error.
  process.once('exit', leave);
  const signal = await new Promise<'SIGINT' | 'SIGTERM' | 'SIGHUP'>((resolve) => {
    for (const one of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(one, () => resolve(one));
    stdout.on('resize', show);
    setInterval(show, intervalMs);
    show();
  });
  process.exit(signal === 'SIGINT' ? EXIT_OK : 128 + constants.signals[signal]);
}

/** As much as fits, over what stands there. */
function screenful(text: string, size: { readonly rows: number; readonly columns: number }): string {
  // A terminal that does not know its size says 0.
  const rows = size.rows || Number.POSITIVE_INFINITY;
  const columns = size.columns || Number.POSITIVE_INFINITY;
  const lines = text.trimEnd().split('\n');
  const shown = lines.length > rows ? [...lines.slice(0, rows - 1), `... ${lines.length - rows + 1} more`] : lines;
  const cut = shown.map((line) => `${line.slice(0, columns)}${CLEAR_LINE}`);
  return `${HOME}${cut.join('\n')}${CLEAR_BELOW}`;
}
