import { foreignServer } from '../foreign.mjs';

export const serve = () =>
  foreignServer((port, folder) => [
    'redis-server',
    '--port',
    `${port}`,
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--dir',
    folder,
  ]);

export { connect } from './ioredis.mjs';
