/**
 * A program of the benchmark: `main.js server`, `main.js client`, both ends in one event loop: `main.js both`, or one that starts its
 * other end by itself: `main.js peer`.
 */
import { serve } from './control.ts';

const [role = ''] = process.argv.slice(2);
serve({
  ...(['server', 'both'].includes(role) ? (await import('./server.ts')).serverCommands : {}),
  ...(['client', 'both'].includes(role) ? (await import('./client.ts')).clientCommands : {}),
  ...(role === 'peer' ? (await import('./peer.ts')).peerCommands : {}),
});
