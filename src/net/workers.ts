/** Worker threads may be terminated at any time; what they held is then given back by the thread that made them. */
import { subscribe } from 'node:diagnostics_channel';
import type { Worker } from 'node:worker_threads';

/** From now on every worker of this thread is watched. Costs nothing as long as there is none. */
export function watchWorkers(): void {
  subscribe('worker_threads', (message) => {
    const { worker } = message as { worker: Worker };
    void import('../os/index.ts').then(({ watchWorker, closeFd, unmapRemains }) => {
      watchWorker(worker, ({ fds, mappings }) => {
        for (const fd of fds) closeFd(fd);
        for (const { address, lengthBytes } of mappings) unmapRemains(address, lengthBytes);
      });
    });
  });
}
