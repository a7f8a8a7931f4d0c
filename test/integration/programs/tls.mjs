// What a program sees of TLS and HTTP/2, as scenarios that give logs; prints them all. The same with Isthmus and without.
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { Duplex } from 'node:stream';
import tls from 'node:tls';

const dir = new URL('../../fixtures/tls/', import.meta.url);
const key = fs.readFileSync(new URL('key.pem', dir)),
  ca = fs.readFileSync(new URL('cert.pem', dir)),
  cert = ca;
/** And for what the loop has not come to, where it was stopped. */
const wait = async (ms) => {
  await new Promise((r) => setTimeout(r, ms));
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
};
const logs = (o) => {
  const L = [];
  for (const [n, s] of Object.entries(o))
    for (const e of [
      'connect',
      'ready',
      'lookup',
      'secureConnect',
      'secure',
      'end',
      'finish',
      'close',
      'error',
      'timeout',
      'session',
      'connectionAttempt',
      'connectionAttemptFailed',
    ])
      s.on(e, (v) =>
        L.push(
          `${n}:${e}${v instanceof Error ? ` ${v.code} ${v.syscall ?? ''}` : typeof v === 'boolean' ? ` ${v}` : ''}`,
        ),
      );
  return L;
};
const serve = (opts, h) =>
  new Promise((r) => {
    const s = tls.createServer({ key, cert, ...opts }, h);
    s.listen(0, '127.0.0.1', () => r(s));
  });
const by = (L) =>
  Object.fromEntries(
    ['c', 's', 'srv'].map((p) => [
      p,
      L.filter((x) => x.startsWith(`${p}:`))
        .map((x) => x.slice(p.length + 1))
        .join(', '),
    ]),
  );
const opt = (s, more) => ({ port: s.address().port, host: '127.0.0.1', ca, servername: 'localhost', ...more });
/** Both ends of a connection over which the server's TLS says its end, and TCP does not: [client, below it, server, below it, the server]. */
const meet = async (more) => {
  let x, xBelow;
  const s = net.createServer((k) => {
    xBelow = k.on('error', () => {});
    const around = new Duplex({ read() {}, write: (chunk, _, done) => void k.write(chunk, done) });
    k.on('data', (d) => around.push(d));
    x = new tls.TLSSocket(around, { isServer: true, key, cert }).on('error', () => {}).resume();
  });
  await once(s.listen(0, '127.0.0.1'), 'listening');
  const below = net.connect({ port: s.address().port, host: '127.0.0.1', ...more });
  await once(below, 'connect');
  const c = tls.connect({ socket: below, ca, servername: 'localhost' });
  await once(c, 'secureConnect');
  return [c, below, x, xBelow, s];
};
/** What a write that fails says where the peer has reset, which differs with what TCP has told already. */
const failed = (text) => text.replaceAll(/ECONNRESET|EPIPE/g, 'reset');
/** A client that ends before it has said anything. */
const inHandshake = async (end) => {
  const s = await serve({}, () => {});
  const L = [];
  s.on('tlsClientError', (e) => L.push(`tce ${e.code}`));
  const c = net.connect(s.address().port, '127.0.0.1');
  await once(c, 'connect');
  await wait(30);
  end(c);
  await wait(100);
  s.close();
  return L;
};

const S = {
  async plain() {
    let LL;
    const s = await serve({}, (x) => {
      LL = logs({ s: x });
      x.end('bye');
    });
    const c = tls.connect(opt(s));
    const L = logs({ c });
    c.resume();
    await once(c, 'close');
    await wait(100);
    s.close();
    return [by(L), by(LL)];
  },
  async refused() {
    const c = tls.connect({ port: 1, host: '127.0.0.1' });
    const L = logs({ c });
    await once(c, 'close').catch(() => wait(50));
    await wait(50);
    return L;
  },
  async refusedLocalhost() {
    const c = tls.connect({ port: 1, host: 'localhost' });
    let err;
    c.on('error', (e) => (err = e));
    const L = logs({ c });
    await wait(200);
    return [L.filter((x) => !/lookup|Attempt/.test(x)), err.code, err.errors?.map((e) => e.code)];
  },
  async badCa() {
    const s = await serve({}, () => {});
    const c = tls.connect({ port: s.address().port, host: '127.0.0.1' });
    const L = logs({ c });
    s.on('tlsClientError', (e) => L.push(`srv:${e.code}`));
    await once(c, 'close').catch(() => {});
    await wait(100);
    s.close();
    return by(L);
  },
  async garbage() {
    const s = await serve({}, () => {});
    const L = [];
    s.on('tlsClientError', (e, k) => L.push(`tce ${e.code} ${k.destroyed}`));
    const c = net.connect(s.address().port, '127.0.0.1');
    c.write('GET / HTTP/1.1\r\n\r\n');
    const D = [];
    c.on('data', (d) => D.push(d.length));
    c.on('error', (e) => L.push(`cerr ${e.code}`));
    await once(c, 'close').catch(() => {});
    await wait(50);
    s.close();
    return [L, D];
  },
  silentClose: () => inHandshake((c) => c.destroy()),
  resetInHandshake: () => inHandshake((c) => c.resetAndDestroy()),
  async serverDestroys() {
    let LS;
    const s = await serve({}, (x) => {
      LS = logs({ s: x });
      x.write('hello');
      setTimeout(() => x.destroy(), 50);
    });
    const c = tls.connect(opt(s));
    const L = logs({ c });
    c.resume();
    await once(c, 'close').catch(() => {});
    await wait(100);
    s.close();
    return [by(L), by(LS)];
  },
  async clientDestroysConnecting() {
    const s = await serve({}, () => {});
    const c = tls.connect(opt(s));
    const L = logs({ c });
    c.destroy();
    await wait(100);
    s.close();
    return by(L);
  },
  async clientDestroysTick() {
    const s = await serve({}, () => {});
    s.on('tlsClientError', () => {});
    const c = tls.connect(opt(s));
    const L = logs({ c });
    setImmediate(() => c.destroy(new Error('x')));
    await wait(100);
    s.close();
    return by(L);
  },
  async resume() {
    const s = await serve({}, (x) => {
      x.on('error', () => {});
      x.end('hi');
    });
    let session;
    const c = tls.connect(opt(s));
    c.on('session', (x) => (session = x));
    c.resume();
    await once(c, 'close');
    const d = tls.connect(opt(s, { session }));
    d.resume();
    await once(d, 'secureConnect');
    const r = d.isSessionReused();
    await once(d, 'close');
    s.close();
    return [!!session, r];
  },
  async addresses() {
    let srv;
    const s = await serve({}, (x) => {
      srv = x;
      x.resume();
    });
    const c = tls.connect(opt(s));
    await once(c, 'secureConnect');
    await wait(30);
    const A = (x) => [
      x.remoteAddress,
      x.remoteFamily,
      x.localAddress,
      x.localFamily,
      x.remotePort > 0,
      x.localPort > 0,
      typeof x.address().port,
      x.encrypted,
      x.connecting,
      x.readyState,
      x.bytesRead > 0,
      x.bytesWritten > 0,
    ];
    const r = [
      A(c),
      A(srv),
      c.remotePort === srv.localPort,
      c.getCipher().name,
      c.servername,
      srv.servername,
      c.alpnProtocol,
      c.ssl != null,
    ];
    c.end();
    await once(c, 'close');
    s.close();
    return r;
  },
  async bytes() {
    let srv;
    const s = await serve({}, (x) => {
      srv = x;
      x.pipe(x);
    });
    const c = tls.connect(opt(s));
    await once(c, 'secureConnect');
    c.write(Buffer.alloc(100000));
    let n = 0;
    c.on('data', (d) => (n += d.length));
    while (n < 100000) await wait(10);
    c.end();
    await once(c, 'close');
    s.close();
    return [c.bytesRead, c.bytesWritten, srv.bytesRead, srv.bytesWritten];
  },
  /** Whoever sets the next listener in the continuation of the event before misses nothing that comes in the same chunk. */
  async oneEventAtATime() {
    const s = await serve({}, (t) => t.end(Buffer.alloc(1_000_000, 'a')));
    const c = tls.connect(opt(s));
    const end = once(c, 'end').then(() => null);
    const data = () => Promise.race([once(c, 'data'), end]);
    let got = 0;
    for (let event = await data(); event; event = await data()) got += event[0].length;
    c.destroy();
    s.close();
    return got;
  },
  /** The same of a body whose parts are in one chunk: what is missed, test/integration/tls-same.test.ts tells. */
  async onePartAtATime() {
    const s = http.createServer(async (request, response) => {
      const end = once(request, 'end').then(() => null);
      const data = () => Promise.race([once(request, 'data'), end]);
      let got = 0;
      for (let event = await data(); event; event = await data()) got += event[0].length;
      response.end(`${got}`);
    });
    s.listen(0, '127.0.0.1');
    await once(s, 'listening');
    const c = net.connect(s.address().port, '127.0.0.1');
    const answers = [];
    for (let i = 0; i < 3; i++) {
      c.write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\naa\r\n2\r\nbb\r\n0\r\n\r\n');
      const [answer] = await once(c, 'data');
      answers.push(`${answer}`.split('\r\n').at(-1));
      await wait(100);
    }
    c.destroy();
    s.close();
    return answers;
  },
  async alpn() {
    const s = await serve({ ALPNProtocols: ['a', 'b'] }, (x) => x.end());
    const c = tls.connect(opt(s, { ALPNProtocols: ['b'] }));
    c.resume();
    await once(c, 'secureConnect');
    const r = c.alpnProtocol;
    await once(c, 'close');
    s.close();
    return r;
  },
  async timeout() {
    const s = await serve({}, (x) => {
      x.on('error', () => {});
      x.resume();
    });
    const c = tls.connect(opt(s));
    const L = logs({ c });
    await once(c, 'secureConnect');
    c.setTimeout(100);
    await wait(200);
    c.destroy();
    await wait(50);
    s.close();
    return by(L);
  },
  async halfOpen() {
    const s = await serve({ allowHalfOpen: true }, (x) => {
      x.on('error', () => {});
      x.on('end', () => {
        x.write('late');
        x.end();
      });
      x.resume();
    });
    const c = tls.connect(opt(s, { allowHalfOpen: true }));
    const L = logs({ c });
    await once(c, 'secureConnect');
    let t = '';
    c.on('data', (d) => (t += d));
    c.end('x');
    await once(c, 'close');
    s.close();
    return [t, by(L)];
  },
  async onread() {
    const s = await serve({}, (x) => {
      x.end(Buffer.alloc(5000, 'a'));
    });
    let n = 0;
    const c = tls.connect(
      opt(s, {
        onread: {
          buffer: Buffer.alloc(1000),
          callback: (k) => {
            n += k;
            return true;
          },
        },
      }),
    );
    await once(c, 'close');
    s.close();
    return n;
  },
  async writeBeforeConnect() {
    const s = await serve({}, (x) => x.pipe(x));
    const c = tls.connect(opt(s));
    c.write('early');
    let t = '';
    c.on('data', (d) => {
      t += d;
      c.end();
    });
    await once(c, 'close');
    s.close();
    return t;
  },
  async getServername() {
    const s = await serve(
      {
        SNICallback: (n, cb) => {
          L.push(n);
          cb(null, tls.createSecureContext({ key, cert }));
        },
      },
      (x) => x.end(),
    );
    const L = [];
    const c = tls.connect(opt(s));
    c.resume();
    await once(c, 'close');
    s.close();
    return L;
  },
  async clientCert() {
    const s = await serve({ requestCert: true, rejectUnauthorized: false, ca }, (x) => {
      L.push(x.getPeerCertificate()?.subject?.CN ?? 'none', x.authorized);
      x.end();
    });
    const L = [];
    const c = tls.connect(opt(s, { key, cert }));
    c.resume();
    await once(c, 'close');
    s.close();
    return L;
  },
  async handshakeTimeout() {
    const s = await serve({ handshakeTimeout: 100 }, () => {});
    const L = [];
    s.on('tlsClientError', (e) => L.push(e.code));
    const c = net.connect(s.address().port, '127.0.0.1');
    c.on('close', () => L.push('cclose'));
    c.on('error', (e) => L.push(e.code));
    c.resume();
    await wait(350);
    s.close();
    return L;
  },
  async httpsAgentReuse() {
    const s = https.createServer({ key, cert }, (_q, r) => r.end('x')).listen(0, '127.0.0.1');
    await once(s, 'listening');
    const agent = new https.Agent({ keepAlive: true, ca, maxSockets: 1 });
    const set = new Set();
    for (let i = 0; i < 5; i++)
      await new Promise((r) =>
        https.get({ port: s.address().port, host: 'localhost', agent }, (res) => {
          set.add(res.socket);
          res.resume();
          res.on('end', r);
        }),
      );
    const ports = [...set].length;
    agent.destroy();
    s.close();
    return ports;
  },
  async tlsOverTls() {
    const inner = await serve({}, (x) => x.pipe(x));
    const outer = await serve({}, (x) => {
      const k = net.connect(inner.address().port, '127.0.0.1');
      x.pipe(k).pipe(x);
      x.on('error', () => {});
      k.on('error', () => {});
    });
    const o = tls.connect(opt(outer));
    await once(o, 'secureConnect');
    const i = tls.connect({ socket: o, ca, servername: 'localhost' });
    await once(i, 'secureConnect');
    i.write('deep');
    const [d] = await once(i, 'data');
    i.end();
    await once(i, 'close');
    o.destroy();
    inner.close();
    outer.close();
    return d.toString();
  },
  async socketOption() {
    const s = await serve({}, (x) => x.pipe(x));
    const raw = net.connect(s.address().port, '127.0.0.1');
    const c = tls.connect({ socket: raw, ca, servername: 'localhost' });
    const L = logs({ c, s: raw });
    c.write('now');
    const [d] = await once(c, 'data');
    c.end();
    await once(c, 'close');
    await wait(50);
    s.close();
    return [d.toString(), by(L)];
  },
  async saidBeforeConnect() {
    let name;
    const s = await serve({}, (x) => {
      name = x.servername;
      x.on('error', () => {}).resume();
    });
    const chunks = [];
    const relay = net.createServer((x) => {
      const k = net.connect(s.address().port, '127.0.0.1');
      x.on('data', (d) => chunks.push(d));
      x.pipe(k).pipe(x);
    });
    await once(relay.listen(0, '127.0.0.1'), 'listening');
    const c = tls.connect(opt(relay, { servername: undefined, rejectUnauthorized: false }));
    c.setMaxSendFragment(512);
    c.setServername('a.b');
    await once(c, 'secureConnect');
    c.end(Buffer.alloc(5000));
    c.resume();
    await once(c, 'close');
    relay.close();
    s.close();
    const bytes = Buffer.concat(chunks);
    let records = 0;
    for (let at = 0; at < bytes.length; at += 5 + bytes.readUInt16BE(at + 3)) records++;
    return [records > 10, name];
  },
  async localAddress() {
    const s = await serve({}, (x) => x.end());
    const c = tls.connect(opt(s, { localAddress: '127.0.0.1' }));
    c.resume();
    await once(c, 'close');
    s.close();
    return 'ok';
  },
  async h2push() {
    const s = http2.createServer().listen(0, '127.0.0.1');
    s.on('stream', (st) => {
      st.respond({ ':status': 200 });
      st.end('hi');
    });
    await once(s, 'listening');
    const c = http2.connect(`http://localhost:${s.address().port}`);
    const st = c.request({ ':path': '/' });
    let t = '';
    st.on('data', (d) => (t += d));
    await once(st, 'end');
    const p = await new Promise((r) => c.ping((_e, _d, x) => r(x.length)));
    const L = [];
    c.on('goaway', () => L.push('goaway'));
    c.on('close', () => L.push('close'));
    c.close();
    await wait(100);
    s.close();
    return [t, p, L, c.socket === undefined];
  },
  async h2addr() {
    const s = http2.createServer().listen(0, '127.0.0.1');
    const L = [];
    s.on('stream', (st) => {
      const k = st.session.socket;
      L.push(k.remoteAddress, k.localAddress, k.remotePort > 0, st.session.encrypted);
      st.respond();
      st.end();
    });
    await once(s, 'listening');
    const c = http2.connect(`http://127.0.0.1:${s.address().port}`);
    const st = c.request({});
    st.resume();
    await once(st, 'close');
    L.push(c.socket.remoteAddress, c.socket.remotePort === s.address().port, c.socket.localPort > 0, c.encrypted);
    c.close();
    await wait(50);
    s.close();
    return L;
  },
  async h2serverDies() {
    const s = http2.createServer().listen(0, '127.0.0.1');
    s.on('session', (x) => x.on('error', () => {}));
    s.on('stream', (st) => {
      st.on('error', () => {});
      setTimeout(() => st.session.destroy(), 20);
    });
    await once(s, 'listening');
    const c = http2.connect(`http://127.0.0.1:${s.address().port}`);
    const L = [];
    c.on('error', (e) => L.push(`err ${e.code}`));
    c.on('close', () => L.push('close'));
    c.on('goaway', (x) => L.push(`goaway ${x}`));
    const st = c.request({});
    st.on('error', (e) => L.push(`st ${e.code}`));
    st.on('close', () => L.push('stclose'));
    await wait(200);
    s.close();
    return L;
  },
  async h2rawReset() {
    let raw;
    const s = http2.createServer();
    s.on('session', (x) => x.on('error', () => {}));
    s.on('connection', (k) => (raw = k));
    s.on('stream', (st) => {
      st.on('error', () => {});
      setTimeout(() => raw.resetAndDestroy(), 20);
    });
    s.listen(0, '127.0.0.1');
    await once(s, 'listening');
    const c = http2.connect(`http://127.0.0.1:${s.address().port}`);
    const L = [];
    c.on('error', (e) => L.push(`err ${e.code}`));
    c.on('close', () => L.push('close'));
    const st = c.request({});
    st.on('error', (e) => L.push(`st ${e.code}`));
    await wait(200);
    s.close();
    return L;
  },
  async tlsRawReset() {
    let raw;
    const s = tls.createServer({ key, cert }, (x) => {
      x.on('error', (e) => L.push(`s ${e.code}`));
      setTimeout(() => raw.resetAndDestroy(), 30);
    });
    s.on('connection', (k) => (raw = k));
    s.listen(0, '127.0.0.1');
    await once(s, 'listening');
    const c = tls.connect(opt(s));
    const L = [];
    c.on('error', (e) => L.push(`err ${e.code}${e.syscall}`));
    c.on('close', () => L.push('close'));
    c.resume();
    await wait(250);
    s.close();
    return L;
  },
  async resetWhileOpen() {
    let raw, LS;
    const s = await serve({}, (x) => {
      LS = logs({ s: x });
      setTimeout(() => raw.resetAndDestroy(), 50);
    });
    s.on('connection', (k) => (raw = k));
    const c = tls.connect(opt(s));
    const L = logs({ c });
    c.resume();
    await wait(250);
    s.close();
    return [by(L).c, by(LS).s.includes('close')];
  },
  /** TLS cannot say its end any more, and what came before the reset is read all the same. */
  async endedAfterReset() {
    const all = [];
    for (const readsAfter of [null, 0, 30]) {
      let raw;
      const s = await serve({}, (x) => x.on('error', () => {}).write(Buffer.alloc(100_000)));
      s.on('connection', (k) => (raw = k));
      const c = tls.connect(opt(s));
      const L = logs({ c });
      let got = 0;
      c.on('data', (d) => (got += d.length));
      c.once('data', () => c.pause());
      await once(c, 'data');
      await wait(80);
      raw.resetAndDestroy();
      await wait(80);
      c.end();
      if (readsAfter !== null) await wait(readsAfter);
      c.resume();
      await wait(80);
      s.close();
      // Where the kernel has told of the reset already, when TLS wrote, an end follows.
      all.push([got, by(L).c.replace('error ECONNRESET read, close true', 'end, close false')]);
    }
    return all;
  },
  /** TLS that was told of its end is not told of a reset: what it holds is read, and only a write fails. */
  async resetAfterEnd() {
    const all = [];
    for (const then of ['reads', 'writes', 'ends', 'destroys'])
      for (const allowHalfOpen of [false, true]) {
        const [c, , x, raw, s] = await meet({ allowHalfOpen });
        const L = logs({ c });
        let got = 0;
        const read = () => c.on('data', (d) => (got += d.length));
        x.write('a');
        if (allowHalfOpen) read();
        await wait(80);
        x.end(Buffer.alloc(1000));
        await wait(50);
        raw.resetAndDestroy();
        await wait(50);
        const held = c.readableLength;
        if (then === 'writes') c.write('b', (e) => L.push(`c:wrote ${e?.code}`));
        if (then === 'ends') c.end('b');
        if (then === 'destroys') c.destroy();
        await wait(50);
        read();
        await wait(50);
        c.destroy();
        s.close();
        all.push([then, held, got, by(L).c]);
      }
    return all;
  },
  /** What has come already is read, also where the program destroys the socket below. */
  async destroyedBelow() {
    const all = [];
    for (const error of [undefined, new Error('of the program')]) {
      const [c, below, x, , s] = await meet();
      const L = logs({ c });
      below.on('error', () => {});
      let got = 0;
      c.on('data', (d) => {
        got += d.length;
        if (got > 20_000) below.destroy(error);
      });
      await wait(80);
      x.write(Buffer.alloc(60_000));
      await wait(80);
      s.close();
      all.push([got, by(L).c]);
    }
    return all;
  },
  /** Each write that fails says so: of TLS, and of the program below it. */
  async writtenBelow() {
    const all = [];
    for (const order of ['below', 'tls', 'tls, below']) {
      const [c, below, x, raw, s] = await meet();
      const L = logs({ c });
      below.on('error', () => {});
      await wait(80);
      x.write(Buffer.alloc(300_000)); // more than TLS takes unread: it hears of no reset
      await wait(80);
      raw.resetAndDestroy();
      await wait(50);
      for (const by of order.split(', ')) (by === 'tls' ? c : below).write('b', (e) => L.push(`c:${by} ${e?.code}`));
      await wait(50);
      s.close();
      all.push(failed(by(L).c));
    }
    return all;
  },
  /** What the program has written before TLS was put on ends for the program, in an error. */
  async destroyedWithWritesBefore() {
    if (process.version.startsWith('v20.')) return 'Node.js 20 throws a TypeError by itself';
    const half = Buffer.alloc(8_000_000);
    let got = 0;
    const s = net.createServer((x) =>
      x.on('data', (d) => {
        got += d.length;
        if (got >= half.length) x.pause();
      }),
    );
    await once(s.listen(0, '127.0.0.1'), 'listening');
    const raw = net.connect(s.address().port, '127.0.0.1');
    await once(raw, 'connect');
    const L = [];
    raw.on('error', () => {});
    raw.write(half, (e) => L.push(`first ${e?.code}`));
    raw.write(half, (e) => L.push(`second ${e?.code}`));
    const c = tls.connect({ socket: raw, ca, servername: 'localhost' });
    c.on('error', (e) => L.push(`error ${e.code}`));
    c.on('close', () => L.push('close'));
    while (got < half.length) await wait(20);
    await wait(80);
    c.destroy();
    await wait(80);
    s.close();
    return L;
  },
  async destroyedInHandshake() {
    const s = await serve({}, () => {});
    const L = [];
    s.on('tlsClientError', (e, k) => L.push(`tce ${e.code} ${k.destroyed}`));
    for (const rest of ['', '1603010200']) {
      const c = net.connect(s.address().port, '127.0.0.1');
      await once(c, 'connect');
      c.write(Buffer.from(rest, 'hex'));
      await wait(30);
      c.resetAndDestroy();
      await wait(80);
    }
    s.close();
    return L;
  },
  async clientWritesAndDestroys() {
    const all = [];
    const s = await serve({}, (x) => {
      const L = logs({ s: x });
      x.on('data', (d) => x.write(d));
      x.on('close', () => all.push(by(L).s));
    });
    for (let i = 0; i < 4; i++) {
      const c = tls.connect(opt(s));
      c.on('error', () => {});
      await once(c, 'secureConnect');
      await wait(80);
      c.write('q');
      c.destroy();
      await wait(80);
    }
    s.close();
    return all;
  },
};
const only = process.argv[2];
const out = {};
process.on('uncaughtException', (e) => {
  out.uncaught = `${out.uncaught ?? ''} ${now} ${e.stack}`;
});
let now;
for (const [n, f] of Object.entries(S)) {
  if (only && n !== only) continue;
  now = n;
  try {
    out[n] = await Promise.race([f(), wait(5000).then(() => 'HANG')]);
  } catch (e) {
    out[n] = `threw ${e.code}${e.message}`;
  }
}
console.log(JSON.stringify(out, null, 1));
process.exit();
