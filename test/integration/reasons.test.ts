/** Every reason is provoked somewhere: those that no other test has, here; at the end stands which test provokes which. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import ts from 'typescript';
import { DEFAULT_UEID, type Gid, parseChid, parseToken, randomGid } from '../../src/ism/index.ts';
import { decodeClc, encodeClc, type Proposal } from '../../src/smc/clc/index.ts';
import { type DeviceName, type Means, makeProposal } from '../../src/smc/negotiation.ts';
import { REASONS, type ReasonName } from '../../src/smc/reasons.ts';
import { cannotMove, ROOT } from './commands.ts';
import { INDEX_URL } from './exchange.ts';
import { listening, othersMove, TALKER } from './talker.ts';
import { PRELUDE, Stage } from './two-programs.ts';

const skip = cannotMove();
let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(async () => {
  for (const one of foreign.splice(0)) 'destroy' in one ? one.destroy() : one.close();
  await stage.close();
});
/** Of the test itself. */
const foreign: (net.Server | net.Socket)[] = [];

/** Says the reason of a socket once it is the one that is expected, or after a while. */
const SAYS = `${PRELUDE}
  import { once } from 'node:events';
  import { setTimeout as pause } from 'node:timers/promises';
  const { accelerate, attach, info, restore } = await import('${INDEX_URL}');
  const become = async (socket, name) => {
    for (let i = 0; i < 500 && info(socket).reason.name !== name; i++) { if (socket.writable) socket.write('x'); await pause(10); }
    tell('reason ' + info(socket).reason.name);
  };
`;
const ECHO = `${SAYS}
  const server = net.createServer((socket) => socket.on('error', () => {}).pipe(socket));
  server.listen(0, '127.0.0.1', () => tell('port ' + server.address().port));
`;

async function provoke(
  name: string,
  code: string,
  args: readonly (string | number)[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<void> {
  const program = stage.run(`${SAYS}\n${code}`, args, env);
  assert.equal(await program.says('reason '), name, program.stderr);
}

test('SELF: a socket is connected to itself; where the server starts before the client it moves', {
  skip,
}, async () => {
  await provoke(
    'SELF',
    `const place = net.createServer().listen(0, '127.0.0.1');
     await once(place, 'listening');
     const { port } = place.address();
     await once(place.close(), 'close');
     const socket = net.connect({ host: '127.0.0.1', port, localPort: port }).resume();
     await once(socket, 'connect');
     await become(socket, 'SELF');`,
  );
  await othersMove(stage);
});

test('LINGER: somebody has set SO_LINGER; without, it moves', { skip }, async () => {
  const port = await stage.run(ECHO).says('port ');
  const program = `const { declare } = await import('${new URL('../../src/os/ffi.js', import.meta.url).href}');
     const socket = net.connect(+args[0], '127.0.0.1').resume();
     await once(socket, 'connect');
     const linger = Buffer.from(Uint32Array.of(+args[1], 5).buffer);
     declare('setsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'u32'])(socket._handle.fd, 1, 13, linger, 8);
     await become(socket, args[2]);`;
  for (const [isSet, name] of [
    [1, 'LINGER'],
    [0, 'MOVED'],
  ] as const)
    await provoke(name, program, [port, isSet, name]);
});

test('RESTORED: the program has moved it back', { skip }, async () => {
  const port = await stage.run(ECHO).says('port ');
  await provoke(
    'RESTORED',
    `const socket = net.connect(+args[0], '127.0.0.1').resume();
     for (let i = 0; i < 500 && info(socket).mode === 'TCP'; i++) { socket.write('x'); await pause(10); }
     await restore(socket);
     await become(socket, 'RESTORED');`,
    [port],
  );
});

test('PASSEDON: another process has read it before', { skip }, async () => {
  const child = stage.file(
    'child.mjs',
    `${SAYS}
     process.once('message', async (_, socket) => {
       socket.on('error', () => {}).resume();
       attach(socket, 'server');
       await become(socket, 'PASSEDON');
     });
     process.send('ready');`,
  );
  const program = stage.run(
    `${PRELUDE}
     import { fork } from 'node:child_process';
     import { once } from 'node:events';
     const { OPTIONS, ...env } = process.env;
     const child = fork(args[0], { env: { ...env, NODE_OPTIONS: OPTIONS } });
     await once(child, 'message');
     const server = net.createServer((socket) => socket.once('data', () => child.send('take it', socket)));
     server.listen(0, '127.0.0.1', () => net.connect(server.address().port, '127.0.0.1').on('error', () => {}).write('read here'));`,
    [child],
    { NODE_OPTIONS: '', OPTIONS: stage.env().NODE_OPTIONS },
  );
  assert.equal(await program.says('reason '), 'PASSEDON', program.stderr);
});

test('NOTTCP: a socket that is not connected, and one of another kind; waiting for it ends', { skip }, async () => {
  const program = stage.run(
    `${SAYS}
     const path = args[0] + '/unix.sock';
     const server = net.createServer().listen(path);
     await once(server, 'listening');
     const socket = net.connect(path);
     await once(socket, 'connect');
     tell('reason ' + info(socket).reason.name);
     socket.destroy();
     await once(server.close(), 'close');
     tell('then ' + [info(new net.Socket()), await accelerate(new net.Socket()), await restore(new net.Socket())].map(({ reason }) => reason.name));
     process.stdin.destroy();`,
    [stage.directory],
  );
  assert.equal(await program.says('reason '), 'NOTTCP');
  assert.equal(await program.says('then '), 'NOTTCP,NOTTCP,NOTTCP');
  assert.deepEqual(await program.exited, { code: 0, signal: null });
});

test('HALFCLOSED: one of its directions has ended', { skip }, async () => {
  const { server, port } = await listening(stage, { ISTHMUS_POLICY: 'off' });
  const client = stage.run(TALKER, [], { ISTHMUS_POLICY: 'off' });
  client.tell(`connect ${port}`);
  await server.says('connection');
  server.tell('end');
  server.tell('accelerate');
  await server.stays('HALFCLOSED');
});

test('ENDED: it was over before it could move', { skip }, async () => {
  const port = await stage.run(ECHO, [], { NODE_OPTIONS: '' }).says('port ');
  await provoke(
    'ENDED',
    `const socket = net.connect(+args[0], '127.0.0.1').resume();
     await once(socket, 'connect');
     socket.destroy();
     await become(socket, 'ENDED');`,
    [port],
    { ISTHMUS_POLICY: 'lazy', ISTHMUS_LAZY_MS: '3600000' },
  );
});

// --- In-band: what foreign peers make of it ---

const IN_BAND = { ISTHMUS_IN_BAND: '127.0.0.1:*' };

/** A server of the test; answers the first message of its nth client. */
async function answering(answer: (n: number, message: Buffer) => Buffer): Promise<string> {
  let connections = 0;
  const server = net.createServer((socket) => {
    const n = connections++;
    socket.on('error', () => {}).once('data', (message) => socket.write(answer(n, message)));
  });
  foreign.push(server);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return String((server.address() as net.AddressInfo).port);
}

test('in-band: whatever code a peer declines with is shown', { skip }, async () => {
  const names = [
    ...['MEM', 'PEERNOSMC', 'NOSMCDEV', 'NOSMCDDEV', 'NOSMCRDEV', 'NOISM2SUPP', 'NOV2DEXT', 'NOSMCD2DEV', 'NOUEID'],
    ...['RELEASEERR', 'MODEUNSUPP', 'OPTUNSUPP', 'DIFFPREFIX', 'MAX_DMB', 'SYNCERR', 'INTERR'],
  ] as ReasonName[];
  const port = await answering((n) => {
    const { code: diagnosis } = REASONS[names[n] as ReasonName];
    return encodeClc({ type: 'decline', version: 2, diagnosis, outOfSync: false, os: 2 });
  });
  const client = stage.run(TALKER, [], IN_BAND);
  for (const name of names) {
    client.tell(`connect ${port}`);
    await client.stays(name);
  }
});

const elsewhere = { offer: 'D', subnet: Buffer.from([10, 0, 0, 0]), prefixLength: 24, ipv6Prefixes: [] } as const;
const here = { ...elsewhere, subnet: Buffer.from([127, 0, 0, 0]), prefixLength: 8 };
const MEANS: Means = {
  devices: [{ gid: randomGid(), chid: parseChid(0xffff) }],
  ueids: [DEFAULT_UEID],
  seid: null,
  prefixes: null,
  layouts: ['kernel'],
};
const proposing = (change: (proposal: Proposal) => Partial<Proposal>, means: Partial<Means> = {}): Proposal => {
  const proposal = makeProposal({ ...MEANS, ...means });
  return { ...proposal, ...change(proposal) };
};

test('in-band: what a peer offers that does not do is declined, and it is shown why', { skip }, async () => {
  const { server, port } = await listening(stage, IN_BAND);
  for (const [name, proposal] of [
    ['PEERNOSMC', proposing(() => ({ v2: null }))],
    ['NOV2DEXT', proposing(({ v2 }) => ({ v2: v2 && { ...v2, smcd: null } }))],
    ['NOUEID', proposing(() => ({}), { ueids: [] })],
    ['NOSMCDDEV', proposing(() => ({ v1: here, v2: null }))],
    ['NOSMCD2DEV', proposing(() => ({}))],
    ['DIFFPREFIX', proposing(() => ({ v1: elsewhere, v2: null }))],
    [
      'NOSMCRDEV',
      proposing(({ v2 }) => ({ v1: { ...here, offer: 'R' }, v2: v2 && { ...v2, offer: 'R', smcd: null } })),
    ],
  ] as const) {
    const socket = net.connect(+port, '127.0.0.1');
    foreign.push(socket);
    socket.write(encodeClc(proposal));
    const [answer] = (await once(socket, 'data')) as [Buffer];
    const decline = decodeClc(answer.subarray(0, answer.readUInt16BE(5)));
    assert.equal(decline.type === 'decline' && decline.diagnosis, REASONS[name].code, name);
    await server.stays(name);
  }
});

test('in-band: what a peer accepts that was not offered is declined, and it is shown why', { skip }, async () => {
  const names = ['MODEUNSUPP', 'SYNCERR'] as const;
  const port = await answering((n, message) => {
    const proposal = decodeClc(message) as Proposal;
    const own = proposal.v2?.smcd?.devices.find(({ chid }) => chid === 0xffff) as DeviceName; // reaches itself
    const accept = { type: 'accept', mode: 'D', firstContact: false, dmbeIndex: 0, dmbeSize: 0, linkId: 1 } as const;
    const token = parseToken(1n);
    if (names[n] === 'SYNCERR')
      return encodeClc({ ...accept, version: 2, token, ...own, eid: DEFAULT_UEID, fce: null });
    return encodeClc({ ...accept, version: 1, token, gid: '00000000-0000-0001-0000-000000000000' as Gid });
  });
  const client = stage.run(TALKER, [], IN_BAND);
  for (const name of names) {
    client.tell(`connect ${port}`);
    await client.stays(name);
  }
});

// --- All of them ---

/** Where programs, unmodified or against a peer of the test, come to this reason: a file, and the title of the test or of its row. */
const PROVOKED: Readonly<Record<ReasonName, readonly [string, string]>> = {
  MOVED: ['refused', 'where nothing is refused the connection moves'],
  MEM: ['cgroups', 'buffers up to the limit, then TCP, and nobody is killed'],
  PEERNOSMC: ['hints', 'PEERNOSMC: chk finds what is missing, and what it says helps'],
  NOSMCDEV: ['reasons', 'in-band: whatever code a peer declines with is shown'],
  NOSMCDDEV: ['reasons', 'in-band: what a peer offers that does not do is declined, and it is shown why'],
  NOSMCRDEV: ['reasons', 'in-band: what a peer offers that does not do is declined, and it is shown why'],
  NOISM2SUPP: ['reasons', 'in-band: whatever code a peer declines with is shown'],
  NOV2DEXT: ['reasons', 'in-band: what a peer offers that does not do is declined, and it is shown why'],
  NOSMCD2DEV: ['hints', 'NOSMCD2DEV: chk names the two fabrics'],
  NOUEID: ['hints', 'NOUEID: the command that brings the built-in one back'],
  OPTUNSUPP: ['hints', 'OPTUNSUPP: chk shows why the other end does not want it'],
  RELEASEERR: ['in-band', 'a Decline after the Confirm leaves both on TCP, with all bytes'],
  MODEUNSUPP: ['reasons', 'in-band: what a peer accepts that was not offered is declined, and it is shown why'],
  DIFFPREFIX: ['reasons', 'in-band: what a peer offers that does not do is declined, and it is shown why'],
  // Our own limit is 16383 buffers for one peer, which no test takes; src/devices has it kept.
  MAX_DMB: ['reasons', 'in-band: whatever code a peer declines with is shown'],
  SYNCERR: ['reasons', 'in-band: what a peer accepts that was not offered is declined, and it is shown why'],
  // Here only a fault of ours would make it.
  INTERR: ['reasons', 'in-band: whatever code a peer declines with is shown'],
  OFF: ['hints', 'OFF and YOUNG: with the policy that is named they move'],
  NOTLOCAL: ['namespaces', 'NOTLOCAL: with one fabric for both, as it says, they move'],
  YOUNG: ['hints', 'OFF and YOUNG: with the policy that is named they move'],
  PLATFORM: ['refused', 'on another system'],
  FFI: ['refused', 'without koffi'],
  SYSTEM: ['refused', 'does not let them be asked for'],
  INTERNALS: ['hints', 'INTERNALS: doctor tests the Node.js that runs it'],
  NOFABRIC: ['hints', 'NOFABRIC: the command that starts one where it was named'],
  UNTRUSTED: ['hints', 'UNTRUSTED: the command that makes the place ours alone'],
  FABRICLOST: ['hints', 'FABRICLOST: another fabric is started when it is needed'],
  FABRICBUSY: [
    'reasons-of-peers',
    'more partitions than a user may have: FABRICBUSY, and it moves once they are fewer',
  ],
  FABRICSILENT: ['hints', 'FABRICSILENT: the commands that continue it, and that end it'],
  KERNEL: ['refused', 'does not know network namespace cookies (before Linux 5.14)'],
  NOBYTE: ['hints', 'NOBYTE: it is looked at with its first byte, and moves'],
  CHECKING: ['reasons-of-peers', 'that says nothing in the handshake: TIMEOUT'],
  AGREED: ['hints', 'AGREED: it moves with the next bytes'],
  NOTTCP: ['reasons', 'NOTTCP: a socket that is not connected, and one of another kind; waiting for it ends'],
  HALFCLOSED: ['reasons', 'HALFCLOSED: one of its directions has ended'],
  TLS: ['hints', 'TLS: without localAddress it moves'],
  HTTP2: ['hints', 'HTTP2: to an address it moves'],
  NATIVE: ['internals', 'a server of http whose parser hides that it reads in C++'],
  PASSEDON: ['reasons', 'PASSEDON: another process has read it before'],
  SHARED: ['reasons-of-peers', 'that holds the same socket: SHARED; once it has let go of it, it moves'],
  GIVENAWAY: ['passing', 'two processes that hold one connection, of which one reads and one writes: *'],
  RESTORED: ['hints', 'RESTORED: accelerate moves it again'],
  MISMATCH: ['reasons-of-peers', 'whose peer is stopped while it is to show its socket, and again: MISMATCH'],
  LINGER: ['reasons', 'LINGER: somebody has set SO_LINGER; without, it moves'],
  SELF: ['reasons', 'SELF: a socket is connected to itself; where the server starts before the client it moves'],
  UNKNOWNUSER: ['anywhere', 'users that the fabric cannot tell apart stay on TCP, but for those of a domain'],
  RUNTIME: ['runtimes', '* with the package'],
  OVERRIDDEN: ['hints', 'OVERRIDDEN: methods on the prototype are called'],
  UNPROVEN: ['namespaces', 'UNPROVEN: a program that has SO_OOBINLINE set gets no byte that its peer has not sent'],
  PAIRLOST: ['reasons-of-peers', 'that goes when it is introduced, and again: PAIRLOST'],
  TIMEOUT: ['reasons-of-peers', 'that says nothing in the handshake: TIMEOUT'],
  PROTOCOL: ['reasons-of-peers', 'that says in the handshake what is no message: PROTOCOL'],
  ENDED: ['reasons', 'ENDED: it was over before it could move'],
  DENIED: ['hints', 'OPTUNSUPP: chk shows why the other end does not want it'],
  BADPOLICY: ['hints', 'BADPOLICY: a program whose rules are corrected moves when it is started anew'],
  HANDSHAKES: ['policy', 'more handshakes than may be under way at once wait for their turn, and move'],
};

/** By the test that provokes it. */
const SAME: unique symbol = Symbol('the same');
const ONE_VERSION = 'there is one version of Isthmus';
const OTHER_SYSTEM = 'the device is one of another system';

/** Where what helps is done as it is shown, and leads out: or why one machine is not enough. Null: nothing helps. */
const FOLLOWED: Readonly<Record<ReasonName, readonly [file: string, title: string] | typeof SAME | string | null>> = {
  MOVED: null,
  MEM: SAME,
  PEERNOSMC: SAME,
  NOSMCDEV: OTHER_SYSTEM,
  NOSMCDDEV: ONE_VERSION,
  NOSMCRDEV: OTHER_SYSTEM,
  NOISM2SUPP: OTHER_SYSTEM,
  NOV2DEXT: OTHER_SYSTEM,
  NOSMCD2DEV: SAME,
  NOUEID: SAME,
  OPTUNSUPP: SAME,
  RELEASEERR: ONE_VERSION,
  MODEUNSUPP: ONE_VERSION,
  DIFFPREFIX: OTHER_SYSTEM,
  MAX_DMB: 'it takes 16384 connections between two programs',
  SYNCERR: 'only a fault of the other end makes it',
  INTERR: 'only a fault of ours makes it',
  OFF: SAME,
  NOTLOCAL: SAME,
  YOUNG: SAME,
  PLATFORM: 'it takes another machine',
  FFI: ['package', 'FFI: npm install koffi, where isthmus is, and its connections move'],
  SYSTEM: ['hints', 'SYSTEM: few descriptors, however few, are no riddle; with the limit that is named it moves'],
  INTERNALS: SAME,
  NOFABRIC: SAME,
  UNTRUSTED: SAME,
  FABRICLOST: SAME,
  FABRICBUSY: SAME,
  FABRICSILENT: SAME,
  KERNEL: ['hints', 'SYSTEM and KERNEL: doctor names the call, uname the kernel; where the call is allowed it moves'],
  NOBYTE: SAME,
  CHECKING: SAME,
  AGREED: SAME,
  NOTTCP: null,
  HALFCLOSED: null,
  TLS: SAME,
  HTTP2: SAME,
  NATIVE: null,
  PASSEDON: ['hints', 'PASSEDON and GIVENAWAY: passed on before its first byte, and attached there, it moves there'],
  SHARED: SAME,
  GIVENAWAY: ['hints', 'PASSEDON and GIVENAWAY: passed on before its first byte, and attached there, it moves there'],
  RESTORED: SAME,
  MISMATCH: SAME,
  LINGER: SAME,
  SELF: SAME,
  UNKNOWNUSER: ['anywhere', 'UNKNOWNUSER: with a fabric in its user namespace, and a user of its own, it moves'],
  RUNTIME: SAME,
  OVERRIDDEN: SAME,
  UNPROVEN: [
    'namespaces',
    'UNPROVEN: a fabric that is killed with an urgent byte under way to who does not read leaves every byte in its place, and so does the next',
  ],
  PAIRLOST: SAME,
  TIMEOUT: SAME,
  PROTOCOL: ['hints', 'PROTOCOL: the command that ends a fabric of another version'],
  ENDED: null,
  DENIED: ['hints', 'DENIED: without the rule in the line that is named it moves'],
  BADPOLICY: SAME,
  HANDSHAKES: ['hints', 'HANDSHAKES: its turn comes, and the variable that is named allows more'],
};

function* nodesOf(root: ts.Node): Iterable<ts.Node> {
  const nodes = [root];
  for (let node = nodes.pop(); node !== undefined; node = nodes.pop()) {
    yield node;
    ts.forEachChild(node, (child) => void nodes.push(child));
  }
}

/** With a star for what a template puts in. */
function literalOf(node: ts.Node): string | null {
  if (ts.isTemplateExpression(node))
    return [node.head.text, ...node.templateSpans.map(({ literal }) => literal.text)].join('*');
  return ts.isStringLiteralLike(node) || ts.isRegularExpressionLiteral(node) ? node.text : null;
}

const sources = new Map<string, ts.SourceFile>();
function sourceOf(file: string): ts.SourceFile {
  const path = join(ROOT, `test/integration/${file}.test.ts`);
  const source =
    sources.get(file) ?? ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true);
  sources.set(file, source);
  return source;
}

test('what helps is done by a test of this title, or a sentence says why not, where there is something', () => {
  for (const [name, how] of Object.entries(FOLLOWED)) {
    assert.equal(how === null, REASONS[name as ReasonName].hint === '', name);
    if (how === null || typeof how === 'string') continue;
    const [file, title] = how === SAME ? PROVOKED[name as ReasonName] : how;
    assert.ok(
      [...nodesOf(sourceOf(file))].some((node) => literalOf(node) === title),
      `${name}: no test ${title}`,
    );
  }
});

test('each reason has a test that provokes it: one of this title, with the reason in another string', () => {
  for (const [name, [file, title]] of Object.entries(PROVOKED)) {
    // The call of the test, or the row of a table of tests.
    const around = [...nodesOf(sourceOf(file))].filter((node) => literalOf(node) === title).map(({ parent }) => parent);
    const isAskedFor = (node: ts.Node) =>
      [...nodesOf(node)].map(literalOf).some((text) => text !== title && new RegExp(`\\b${name}\\b`).test(text ?? ''));
    assert.ok(around.some(isAskedFor), `${name}: ${file}.test.ts has no such test: ${title}`);
  }
});
