import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttp2Server, connect as http2Connect } from 'node:http2';
import { connect, createServer, type ListenOptions, type Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createServer as createTlsServer, connect as tlsConnect } from 'node:tls';
import { givenAway, whyNot } from './refusals.ts';

async function ends(t: TestContext, server: Server, options: ListenOptions = { port: 0, host: '127.0.0.1' }) {
  await new Promise<void>((resolve) => server.listen(options, resolve));
  const address = server.address();
  const accepted = once(server, 'connection');
  const client = connect(
    typeof address === 'string' ? { path: address } : { port: address?.port ?? 0, host: '127.0.0.1' },
  );
  client.on('error', () => {});
  t.after(() => {
    client.destroy();
    served?.destroy();
    server.close();
  });
  const [served] = (await accepted) as [Socket];
  if (client.connecting) await once(client, 'connect');
  return { client, served };
}

const plain = () => createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => {}));

test('nothing speaks against a connected TCP socket', async (t) => {
  const { client, served } = await ends(t, plain());
  assert.equal(whyNot(client), null);
  assert.equal(whyNot(served), null);
});

test('what has no connection has ended', async (t) => {
  assert.equal(whyNot(new Socket())?.name, 'ENDED');
  const { client } = await ends(t, plain());
  client.destroy();
  assert.equal(whyNot(client)?.name, 'ENDED');
});

test('a socket that is still connecting, and a Unix socket, are not connected TCP sockets', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'isthmus-refusals-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const { client, served } = await ends(t, plain(), { path: join(directory, 'socket') });
  assert.equal(whyNot(client)?.name, 'NOTTCP');
  assert.equal(whyNot(served)?.name, 'NOTTCP');
  const tcp = await ends(t, plain());
  const connecting = connect(tcp.client.remotePort ?? 0, '127.0.0.1');
  assert.equal(whyNot(connecting)?.name, 'NOTTCP');
  connecting.destroy();
});

test('one direction has ended', async (t) => {
  const { client, served } = await ends(t, plain());
  client.end();
  assert.equal(whyNot(client)?.name, 'HALFCLOSED');
  served.resume();
  await once(served, 'end');
  assert.equal(whyNot(served)?.name, 'HALFCLOSED');
});

test('a socket that another process was given', async (t) => {
  const { client } = await ends(t, plain());
  givenAway.add(client);
  assert.equal(whyNot(client)?.name, 'GIVENAWAY');
});

test('TLS, and what lies below it at the server', async (t) => {
  const { client, served } = await ends(t, createTlsServer());
  assert.equal(whyNot(served)?.name, 'TLS');
  const encrypted = tlsConnect({ socket: client });
  encrypted.on('error', () => {});
  assert.equal(whyNot(encrypted)?.name, 'TLS');
  encrypted.destroy();
});

test('methods of the program, on the socket or of its class; not those of all sockets', async (t) => {
  const { client, served } = await ends(t, plain());
  for (const name of ['push', 'write', 'destroy', '_destroy', '_final', '_write', '_writev'] as const) {
    const own = Reflect.get(client, name) as (...args: unknown[]) => unknown;
    Reflect.set(client, name, (...args: unknown[]) => Reflect.apply(own, client, args));
    assert.equal(whyNot(client)?.name, 'OVERRIDDEN', name);
    Reflect.set(client, name, own);
    assert.equal(whyNot(client), null, name);
  }
  const before = Socket.prototype.write;
  Socket.prototype.write = function (this: Socket, ...args: unknown[]) {
    return Reflect.apply(before, this, args) as boolean;
  };
  t.after(() => Reflect.deleteProperty(Socket.prototype, 'write'));
  assert.equal(whyNot(served), null);
  class Own extends Socket {
    override destroy(error?: Error): this {
      return super.destroy(error);
    }
  }
  Object.setPrototypeOf(served, Own.prototype);
  assert.equal(whyNot(served)?.name, 'OVERRIDDEN');
});

test('HTTP/2 has it', async (t) => {
  const server = createHttp2Server();
  const sessions = once(server, 'session');
  const { client, served } = await ends(t, server as unknown as Server);
  const session = http2Connect('http://localhost', { createConnection: () => client });
  t.after(() => session.destroy());
  await sessions;
  assert.equal(whyNot(client)?.name, 'HTTP2');
  assert.equal(whyNot(served)?.name, 'HTTP2');
});
