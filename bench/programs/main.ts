/** A program of the benchmark: `main.js server`, `main.js client`, or both ends in one event loop: `main.js both`. */
import { serve } from './control.ts';

const [role] = process.argv.slice(2);
serve({
  ...(role === 'client' ? {} : (await import('./server.ts')).serverCommands),
  ...(role === 'server' ? {} : (await import('./client.ts')).clientCommands),
});
