import { Redis } from 'ioredis';
import { respServer } from '../resp.mjs';

export const serve = respServer;

export function connect(port) {
  const redis = new Redis(port, '127.0.0.1', { protocol: 2 });
  return {
    async request(text, i) {
      await redis.set(`key ${i}`, text);
      return await redis.get(`key ${i}`);
    },
    close: () => redis.quit().catch(() => redis.disconnect()),
  };
}
