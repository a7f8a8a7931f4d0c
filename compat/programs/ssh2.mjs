import { once } from 'node:events';
import ssh2 from 'ssh2';
import { answerTo } from '../payload.mjs';

/** An iterator would destroy the channel at the end of what it reads. */
function collect(channel, done) {
  const chunks = [];
  channel.on('data', (chunk) => chunks.push(chunk));
  channel.on('end', () => done(Buffer.concat(chunks)));
}

/** A command is answered on its output, after its input has ended. */
export function serve() {
  const hostKeys = [ssh2.utils.generateKeyPairSync('ed25519').private];
  const server = new ssh2.Server({ hostKeys }, (client) => {
    client.setNoDelay();
    client.on('authentication', (context) => context.accept());
    client.on('session', (accept) => {
      accept().on('exec', (acceptExec) => {
        const channel = acceptExec();
        collect(channel, (input) => {
          channel.write(answerTo(input));
          channel.exit(0);
          channel.end();
        });
      });
    });
    client.on('error', () => {});
  });
  return once(server.listen(0, '127.0.0.1'), 'listening').then(() => server);
}

export async function connect(port) {
  const client = new ssh2.Client();
  client.connect({ host: '127.0.0.1', port, username: 'user' });
  await once(client, 'ready');
  client.setNoDelay();
  return {
    request: (body) =>
      new Promise((resolve, reject) => {
        client.exec('echo', (error, channel) => {
          if (error !== undefined) return reject(error);
          collect(channel, resolve);
          channel.end(body);
        });
      }),
    close: () => client.end(),
  };
}
