/** The fabric that the programs of the benchmark use. */
import { runtimeDirectory } from './transports.ts';

export interface FabricProcess {
  readonly pid: number;
  /** Started by the programs of this benchmark; else it is the system's, and used by others too. */
  readonly isOwn: boolean;
}

/** Null when none is running. */
export async function fabricProcess(folder: string): Promise<FabricProcess | null> {
  const { findFabric } = await import('../src/fabric/client.ts');
  const { askStatus } = await import('../src/fabric/status.ts');
  const found = findFabric({ ...process.env, ISTHMUS_RUNTIME_DIR: runtimeDirectory(folder) });
  if (found === null) return null;
  const { pid } = JSON.parse(await askStatus(found.fd)) as { pid: number };
  return { pid, isOwn: found.place.kind === 'own' };
}

/** The benchmark leaves nothing behind. */
export async function endOwnFabric(folder: string): Promise<void> {
  try {
    const fabric = await fabricProcess(folder);
    if (fabric?.isOwn) process.kill(fabric.pid);
  } catch {
    // It ends by itself when it is idle.
  }
}
