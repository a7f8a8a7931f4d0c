/**
 * `fabric.eids`, beside the socket of a fabric: its enterprise ids, for the next fabric there. JSON:
 * `{ "ueids": ["ISTHMUS"], "seidEnabled": true }`. Written by whoever holds the lock of the directory.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Eid, seidOfCpuinfo } from '../ism/index.ts';
import { defaultEids, type EidTable, parseUeids } from './eids.ts';
import { readTrusted } from './trust.ts';

export function eidPath(socket: string): string {
  return join(dirname(socket), 'fabric.eids');
}

/** What a fabric at this socket begins with. What cannot be used is passed over with a warning. */
export function loadEids(socket: string, warn: (text: string) => void): EidTable {
  const seid = machineSeid();
  const path = eidPath(socket);
  try {
    const text = readTrusted(path, MAX_FILE_BYTES);
    if (text === null) return defaultEids(seid);
    const saved = JSON.parse(text) as { ueids?: unknown; seidEnabled?: unknown } | null;
    const ueids = parseUeids(saved?.ueids);
    return { ueids, seid, seidEnabled: seid !== null && (ueids.length === 0 || saved?.seidEnabled === true) };
  } catch (error) {
    warn(`${path} is passed over: ${(error as Error).message}`);
    return defaultEids(seid);
  }
}

/** Whole or not at all. Throws when it cannot be written. */
export function saveEids(socket: string, { ueids, seidEnabled }: EidTable): void {
  const path = eidPath(socket);
  const unfinished = `${path}.new`;
  rmSync(unfinished, { force: true }); // of a fabric that was killed in between
  writeFileSync(unfinished, `${JSON.stringify({ ueids, seidEnabled })}\n`, { flag: 'wx', mode: 0o644 });
  renameSync(unfinished, path);
}

const MAX_FILE_BYTES = 1024;

function machineSeid(): Eid | null {
  if (process.arch !== 's390x') return null;
  try {
    return seidOfCpuinfo(readFileSync('/proc/cpuinfo', 'utf8'));
  } catch {
    return null; // there is no /proc
  }
}
