/** What the control groups of this process grant, of cgroup v2 and of v1. A limit that cannot be read is none. */
import { existsSync, readFileSync } from 'node:fs';

const MOUNT = '/sys/fs/cgroup';
/** Part of a limit that is left to others, and the most of it: what is read here is old at once. */
const MARGIN = 1 / 8;
const MOST_MARGIN_BYTES = 32 << 20;

/** What v1 has for none is larger. */
const NO_LIMIT = 2 ** 60;

/** How many CPUs' worth of time there are; Infinity without a quota. */
export function cgroupCpus(): number {
  return Math.min(
    ...groups('').map((group) => share(...(read(group, 'cpu.max').split(' ') as [string, string?]))),
    ...groups('cpu').map((group) => share(read(group, 'cpu.cfs_quota_us'), read(group, 'cpu.cfs_period_us'))),
  );
}

/** -1 is no quota in v1, 'max' in v2. */
function share(quota: string, period = ''): number {
  return Number(quota) > 0 && Number(period) > 0 ? Number(quota) / Number(period) : Number.POSITIVE_INFINITY;
}

/** How many bytes can be taken before the kernel looks for a process to kill; Infinity without a limit. */
export function cgroupMemoryBytes(): number {
  return Math.min(
    ...groups('').map((group) => room(group, ['memory.max', 'memory.high'], 'memory.current', 'inactive_file')),
    ...groups('memory').map((group) =>
      room(group, ['memory.limit_in_bytes'], 'memory.usage_in_bytes', 'total_inactive_file'),
    ),
  );
}

/** @param reclaimable the line of memory.stat with what the kernel gives up without harm */
function room(group: string, limits: readonly string[], usage: string, reclaimable: string): number {
  const limit = Math.min(...limits.map((file) => Number(read(group, file) || 'max')).filter((one) => one < NO_LIMIT));
  if (limit === Number.POSITIVE_INFINITY) return limit;
  const free = new RegExp(`^${reclaimable} (\\d+)$`, 'm').exec(read(group, 'memory.stat'))?.[1];
  return limit - Math.min(limit * MARGIN, MOST_MARGIN_BYTES) - Number(read(group, usage)) + Number(free ?? 0);
}

/**
 * Folders of the groups that count: limits of ancestors do, too. In a container the path often leads nowhere, and the root of the
 * mount is the container's own group.
 * @param controller of v1; '' for v2, which stands aside where both are in use
 */
function groups(controller: string): string[] {
  const line = new RegExp(`^\\d+:${controller === '' ? '' : `(?:.*,)?${controller}(?:,.*)?`}:(.*)$`, 'm');
  const path = line.exec(read('/proc/self', 'cgroup'))?.[1] ?? '';
  const parts = path.split('/').filter(Boolean);
  const paths = [...parts.keys(), parts.length].map((length) =>
    parts
      .slice(0, length)
      .map((part) => `/${part}`)
      .join(''),
  );
  const roots = controller === '' ? [MOUNT, `${MOUNT}/unified`] : [`${MOUNT}/${controller}`];
  return roots.flatMap((root) => paths.map((one) => root + one));
}

function read(folder: string, file: string): string {
  const path = `${folder}/${file}`;
  try {
    return existsSync(path) ? readFileSync(path, 'utf8').trim() : ''; // most are not there, and an error takes time
  } catch {
    return '';
  }
}
