/** Worker threads may be terminated at any time; what they held is then given back by the thread that made them. */
import { subscribe } from 'node:diagnostics_channel';
import type { Worker } from 'node:worker_threads';

let isWatching = false;

/** From now on every worker of this thread is watched. Costs nothing as long as there is none. */
export function watchWorkers(): void {
  if (isWatching) return;
  isWatching = true;
  subscribe('worker_threads', (message) => {
    void watch((message as { worker: Worker }).worker);
  });
}

async function watch(worker: Worker): Promise<void> {
  try {
    const { watchWorker, closeFd, unmapRemains } = await import('./index.ts');
    watchWorker(worker, ({ fds, mappings }) => {
      for (const fd of fds) closeFd(fd);
      for (const { address, lengthBytes } of mappings) unmapRemains(address, lengthBytes);
    });
  } catch {
    // The package cannot be read any more. What the thread leaves stays until the process ends.
  }
}
