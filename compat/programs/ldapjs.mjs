import ldap from 'ldapjs';
import { answerTo } from '../payload.mjs';

export async function serve() {
  const server = ldap.createServer();
  server.server.on('connection', (socket) => socket.setNoDelay(true));
  const notes = new Map();
  server.add('o=notes', (request, response, next) => {
    notes.set(request.dn.toString(), request.attributes.find(({ type }) => type === 'description').values[0]);
    response.end();
    return next();
  });
  server.search('o=notes', (request, response, next) => {
    const dn = request.dn.toString();
    response.send({ dn, attributes: { objectclass: ['note'], description: [answerTo(notes.get(dn))] } });
    response.end();
    return next();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server.port ?? server.address().port;
}

export function connect(port) {
  const client = ldap.createClient({ url: `ldap://127.0.0.1:${port}` });
  const add = (dn, entry) =>
    new Promise((resolve, reject) => client.add(dn, entry, (error) => (error ? reject(error) : resolve())));
  const read = (dn) =>
    new Promise((resolve, reject) => {
      client.search(dn, { scope: 'base' }, (error, search) => {
        if (error) return reject(error);
        let found = '';
        search.on('searchEntry', ({ pojo }) => {
          found = JSON.stringify(pojo.attributes);
        });
        search.on('error', reject);
        search.on('end', () => resolve(found));
      });
    });
  return {
    async request(text, i) {
      await add(`cn=${i},o=notes`, { objectclass: 'note', description: text });
      return await read(`cn=${i},o=notes`);
    },
    close: () => new Promise((resolve) => client.unbind(resolve)),
  };
}
