import { PGlite } from '@electric-sql/pglite';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';
import pg from 'pg';

export async function serve() {
  const db = await PGlite.create();
  await db.exec('CREATE TABLE note (id int PRIMARY KEY, text text NOT NULL)');
  const server = new PGLiteSocketServer({ db, host: '127.0.0.1', port: 0 });
  await server.start();
  return Number(server.getServerConn().split(':').at(-1));
}

export function connect(port) {
  const client = new pg.Pool({ max: 1, host: '127.0.0.1', port, user: 'postgres', database: 'postgres' });
  const insert =
    'INSERT INTO note VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET text = $2 RETURNING id, md5(text), text';
  return {
    request: async (text, i) => JSON.stringify((await client.query(insert, [i, text])).rows),
    close: () => client.end(),
  };
}
