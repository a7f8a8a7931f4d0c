/** Where the two programs run: pinned by taskset, since Node.js cannot pin itself. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export type PlacementName = 'two' | 'one' | 'any' | 'inside';

export interface Placement {
  readonly name: PlacementName;
  readonly title: string;
  /** Null = wherever the kernel likes. */
  readonly cpus: { readonly server: number; readonly client: number } | null;
  /** Both ends in one process, in one event loop. */
  readonly isInside: boolean;
}

export interface Placements {
  readonly possible: readonly Placement[];
  /** In words. */
  readonly impossible: readonly string[];
}

export const PLACEMENT_NAMES: readonly PlacementName[] = ['two', 'one', 'any', 'inside'];

export function findPlacements(): Placements {
  const possible: Placement[] = [];
  const impossible: string[] = [];
  const cpus = allowedCpus();
  const [first] = cpus;
  const why = first === undefined ? 'the CPUs of this machine are not known' : whyNoTaskset(first);
  if (first === undefined || why !== null) {
    impossible.push(`pinned to two CPUs, pinned to one: ${why}`);
  } else {
    const siblings = siblingsOf(first);
    const second = cpus.slice(1).find((cpu) => !siblings.includes(cpu)) ?? cpus[1];
    if (second === undefined) {
      impossible.push('pinned to two CPUs: there is one CPU');
    } else {
      const shared = siblings.includes(second) ? ', which share a core' : '';
      const title = `two processes, pinned to two CPUs${shared}`;
      possible.push({ name: 'two', title, cpus: { server: first, client: second }, isInside: false });
    }
    const title = 'two processes, pinned to one CPU';
    possible.push({ name: 'one', title, cpus: { server: first, client: first }, isInside: false });
  }
  possible.push({ name: 'any', title: 'two processes, not pinned', cpus: null, isInside: false });
  possible.push({ name: 'inside', title: 'both ends in one process, one event loop', cpus: null, isInside: true });
  return { possible, impossible };
}

/** Where figures are steadiest, for questions that are asked in one place. */
export function steadiest({ possible }: Placements): Placement {
  return possible.find(({ name }) => name === 'two') ?? (possible.find(({ name }) => name === 'any') as Placement);
}

function allowedCpus(): number[] {
  try {
    const list = /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '';
    return parseList(list);
  } catch {
    return [];
  }
}

function siblingsOf(cpu: number): number[] {
  try {
    return parseList(readFileSync(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`, 'utf8'));
  } catch {
    return [];
  }
}

/** As the kernel writes them: 0-3,8. */
function parseList(list: string): number[] {
  return list
    .trim()
    .split(',')
    .filter((part) => part !== '')
    .flatMap((part) => {
      const [low = 0, high = low] = part.split('-').map(Number);
      return Array.from({ length: high - low + 1 }, (_, i) => low + i);
    });
}

function whyNoTaskset(cpu: number): string | null {
  const { error, status } = spawnSync('taskset', ['-c', String(cpu), 'true']);
  if (error !== undefined) return 'there is no taskset (package util-linux)';
  return status === 0 ? null : 'taskset cannot pin a program';
}
