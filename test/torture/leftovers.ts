/** What a program or a round left behind. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Node.js leaves modules open that a thread was loading by `import()` when it was terminated. */
const MODULE = /\.[cm]?js$/;

/** What the descriptors of a process lead to, that may be ours. */
export function descriptorsOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).flatMap((fd) => {
    try {
      return [readlinkSync(`${folder}/${fd}`)].filter((path) => !MODULE.test(path));
    } catch {
      return []; // closed meanwhile
    }
  });
}

/** Kinds of descriptors and how many there are, to compare. */
export function countsOf(descriptors: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const one of descriptors) {
    const kind = one.replace(/[:[]?\[?\d+\]?$/, '');
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

/** Processes, by their command lines, that were told of a directory: by argument or by environment. */
export function processesOf(directory: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter(
      (pid) => textOf(`/proc/${pid}/environ`).includes(directory) || textOf(`/proc/${pid}/cmdline`).includes(directory),
    )
    .filter((pid) => !/^State:\s+Z/m.test(textOf(`/proc/${pid}/status`)))
    .map((pid) => `${pid} ${textOf(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').slice(0, 300)}`);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // gone
  }
}
