import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { vector } from '../../smc/clc/clc.test.helper.ts';
import { captures, find, ipv4, ipv6, packetsOf, raw, tcp } from './capture.test.helper.ts';
import type { Packet } from './format.ts';
import { endpointText } from './packet.ts';

const NAME = '40-v21-loopback-first-contact message';
const PROPOSAL = vector(`${NAME} 1`);
const ACCEPT = vector(`${NAME} 2`);
const CONFIRM = vector(`${NAME} 3`);
const DECLINE = vector('43-v21-loopback-decline-no-ueid message 2');
const SMC_OPTION = Buffer.from('0101fe06e2d4c3d9', 'hex');

interface VectorFile {
  readonly messages: readonly { readonly type: string; readonly direction: string; readonly hex: string }[];
}

/** What came of it, by the reports beside the captures. */
const OUTCOMES: Readonly<Record<string, readonly RegExp[]>> = {
  '01': [
    /^SMC-D v2\.1, first contact, CHID 0000, EID IBM-SYSZ-ISMSEID0000000000008561; SMC option in SYN and SYN-ACK$/,
  ],
  '02': [/^SMC-D v2, in a link group that was there,/],
  '03': [/^SMC-D v2\.1, first contact/],
  '04': [/^SMC-D v2\.1, first contact/],
  '05': [/^SMC-D v2\.1, first contact/],
  '06': [/^SMC-D v2\.1, first contact/],
  '07': [/^SMC-D v1, first contact; SMC option in SYN and SYN-ACK$/],
  '08': [/^SMC-D v1, in a link group that was there;/],
  '09': [/^SMC-D v1, first contact;/],
  '10': [/^SMC-D v1, first contact;/],
  '11': [/^SMC-D v1, first contact;/],
  '12': [/^SMC-D v1, first contact;/],
  '20': [
    /^declined by the client: 0x03030000 NOSMCDEV: No device at all; SMC option/,
    /^plain TCP goes on, first from the client$/,
  ],
  '21': [/^declined by the server: 0x03030003 NOISM2SUPP/, /^plain TCP goes on/],
  '22': [/^declined by the server: 0x03030001 NOSMCDDEV/, /^plain TCP goes on/],
  '23': [/^declined by the server: 0x01010000 MEM/, /^plain TCP goes on/],
  '24': [/^declined by the client: 0x01010000 MEM/, /^reset by the server$/],
  '25': [/^declined by the server: 0x03070000 DIFFPREFIX/, /^plain TCP goes on/],
  '26': [/^declined by the server: 0x03030003 NOISM2SUPP/, /^plain TCP goes on/],
  '27': [/^declined by the server: 0x03030001 NOSMCDDEV/, /^plain TCP goes on/],
  '28': [],
  '29': [],
  '40': [/^SMC-D v2\.1, first contact, CHID ffff, EID ISTHMUS\.TEST\.A;/],
  '41': [/^SMC-D v2\.1, first contact/],
  '42': [/^SMC-D v2\.1, first contact/],
  '43': [/^declined by the server: 0x03030008 NOUEID/, /^plain TCP goes on/],
  '44': [/^declined by the server: 0x03030007 NOSMCD2DEV/, /^plain TCP goes on/],
  '45': [/^declined by the server: 0x030d0000 MAX_DMB/, /^plain TCP goes on/],
};

describe('captures of Linux: the messages, in order and direction, without a problem, and what came of it', () => {
  for (const [name, bytes] of captures) {
    test(name, () => {
      const number = name.slice(0, 2);
      const { said, outcomes, connections } = find(packetsOf(bytes));
      const isPlain = number === '28' || number === '29';
      const { messages }: VectorFile = isPlain
        ? { messages: [] }
        : JSON.parse(readFileSync(`test/vectors/clc/${name}.json`, 'utf8'));
      const server = (endpoint: string) => /:500\d$/.test(endpointText(endpoint));
      assert.deepEqual(
        said.map(({ type, bytes, from, to }) => [
          type,
          `${server(from) ? 'server' : 'client'} -> ${server(to) ? 'server' : 'client'}`,
          bytes.toString('hex'),
        ]),
        messages.map(({ type, direction, hex }) => [type, direction, hex]),
      );
      const failed = said.flatMap(({ checks }) => checks.filter(({ passed }) => !passed));
      // The one proposal that Linux has to decline for what it says.
      assert.deepEqual(
        failed.map(({ field }) => field),
        number === '43' ? ['eid_cnt'] : [],
      );
      const patterns = OUTCOMES[number] ?? [];
      assert.equal(outcomes.length, patterns.length, JSON.stringify(outcomes.map(({ text }) => text)));
      for (const [i, pattern] of patterns.entries()) assert.match(outcomes[i]?.text ?? '', pattern);
      assert.equal(connections.connections, 1);
      assert.equal(connections.withMessages, isPlain ? 0 : 1);
      assert.equal(connections.refused, number === '28' ? 1 : 0);
    });
  }
});

const client = (options: Parameters<typeof tcp>[0]): Packet => raw(ipv4(tcp(options)));
const server = (options: Parameters<typeof tcp>[0]): Packet =>
  raw(ipv4(tcp({ from: 7777, to: 40000, ...options }), ['0a000001', '0a000002']));
const syns = (seq: number, serverSeq: number): Packet[] => [
  client({ flags: 'S', seq: seq - 1, options: SMC_OPTION }),
  server({ flags: 'SA', seq: serverSeq - 1, options: SMC_OPTION }),
];
const types = (packets: readonly Packet[]) => find(packets).said.map(({ type }) => type);
const texts = (packets: readonly Packet[]) => find(packets).outcomes.map(({ text }) => text);

test('the first packets may be missing', () => {
  const proposal = client({ seq: 100, payload: PROPOSAL });
  const accept = server({ seq: 900, payload: ACCEPT });
  const confirm = client({ seq: 100 + PROPOSAL.length, payload: CONFIRM });
  const whole = find([proposal, accept, confirm]);
  assert.deepEqual(
    whole.said.map(({ type }) => type),
    ['proposal', 'accept', 'confirm'],
  );
  assert.match(whole.outcomes[0]?.text ?? '', /^SMC-D v2\.1.*; SYN not in the capture$/);
  assert.deepEqual(types([accept, confirm]), ['accept', 'confirm']);
  const [last] = find([confirm]).outcomes;
  assert.equal(last && endpointText(last.client), '10.0.0.2:40000');
});

test('what ends a handshake is told', () => {
  const start = [...syns(100, 900), client({ seq: 100, payload: PROPOSAL })];
  const bad = Buffer.from(PROPOSAL);
  bad[220] = 0;
  const option = 'SMC option in SYN and SYN-ACK';
  assert.deepEqual(texts(start), [`no answer to the Proposal; the capture ends; ${option}`]);
  assert.deepEqual(texts([...start, server({ flags: 'R', seq: 900 })]), [
    `no answer to the Proposal; reset by the server; ${option}`,
  ]);
  assert.deepEqual(texts([...start, server({ flags: 'FA', seq: 900 }), client({ flags: 'FA', seq: 324 })]), [
    `no answer to the Proposal; closed, first by the server; ${option}`,
  ]);
  assert.deepEqual(texts([...syns(100, 900), client({ seq: 100, payload: bad }), server({ flags: 'R', seq: 900 })]), [
    `Linux closes at this Proposal (trailer); reset by the server; ${option}`,
  ]);
  assert.deepEqual(texts([...start, server({ seq: 900, payload: ACCEPT })]), [
    `no answer to the Accept; the capture ends; ${option}`,
  ]);
});

test('bytes behind a handshake', () => {
  const data = Buffer.from('data');
  const start = [...syns(100, 900), client({ seq: 100, payload: PROPOSAL })];
  const declined = [...start, server({ seq: 900, payload: Buffer.concat([DECLINE, data]) })];
  assert.deepEqual(texts(declined).slice(1), ['plain TCP goes on, first from the server']);
  const agreed = [
    ...start,
    server({ seq: 900, payload: ACCEPT }),
    client({ seq: 100 + PROPOSAL.length, payload: Buffer.concat([CONFIRM, data]) }),
  ];
  assert.deepEqual(texts(agreed).slice(1), [
    'other bytes follow on TCP, which Linux does not deliver, first from the client',
  ]);
});

test('a message out of turn is one that Linux closes on', () => {
  const { said, outcomes } = find([
    ...syns(100, 900),
    client({ seq: 100, payload: PROPOSAL }),
    server({ seq: 900, payload: ACCEPT }),
    client({ seq: 100 + PROPOSAL.length, payload: PROPOSAL }),
  ]);
  const failed = said.map(({ checks }) => checks.find(({ passed }) => !passed)?.field);
  assert.deepEqual(failed, [undefined, undefined, 'type']);
  assert.match(outcomes[0]?.text ?? '', /^Linux closes at this Proposal \(type\)/);
});

test('an answer is held against what was offered', () => {
  const other = Buffer.from(ACCEPT);
  other.set(Buffer.from('07c1', 'hex'), 32);
  const { said } = find([...syns(1, 1), client({ seq: 1, payload: PROPOSAL }), server({ seq: 1, payload: other })]);
  assert.deepEqual(
    said[1]?.checks
      .filter(({ passed, by }) => !passed && by === 'Linux')
      .map(({ field, linux }) => [field, linux?.does]),
    [['chid', 'closes']],
  );
});

test('the same ports again are another connection; the same SYN again is not', () => {
  const one = [...syns(100, 900), client({ seq: 100, payload: PROPOSAL })];
  assert.equal(find([...one, ...syns(100, 900), client({ seq: 100, payload: PROPOSAL })]).connections.connections, 1);
  const two = find([...one, ...syns(5000, 7000), client({ seq: 5000, payload: PROPOSAL })]);
  assert.equal(two.connections.connections, 2);
  assert.deepEqual(
    two.said.map(({ type }) => type),
    ['proposal', 'proposal'],
  );
  assert.match(two.outcomes[0]?.text ?? '', /its ports are used again/);
});

test('connections without messages are counted only', () => {
  const plain = (port: number, smc: boolean) => [
    client({ from: port, flags: 'S', seq: 0, options: SMC_OPTION }),
    server({ to: port, flags: 'SA', seq: 0, ...(smc && { options: SMC_OPTION }) }),
    client({ from: port, seq: 1, payload: Buffer.from('GET / HTTP/1.1') }),
    server({ to: port, seq: 1, payload: Buffer.from('HTTP/1.1 200 OK') }),
  ];
  const { said, outcomes, connections } = find([...plain(1, true), ...plain(2, false), ...plain(3, false)]);
  assert.deepEqual([said, outcomes], [[], []]);
  assert.deepEqual([connections.connections, connections.agreedOnly, connections.refused], [3, 1, 2]);
});

test('packets of the options, in words', () => {
  const last = (...packets: Packet[]) =>
    texts([...packets, client({ seq: 100, payload: DECLINE })])[0]?.replace(/.*; /, '');
  const syn = (options?: Buffer) => client({ flags: 'S', seq: 99, ...(options && { options }) });
  const synAck = (options?: Buffer) => server({ flags: 'SA', seq: 99, ...(options && { options }) });
  assert.equal(last(syn(), synAck()), 'SMC option in neither SYN nor SYN-ACK');
  assert.equal(last(syn(SMC_OPTION), synAck()), 'the SYN has the SMC option, the SYN-ACK has no SMC option');
  assert.equal(last(syn(SMC_OPTION)), 'the SYN has the SMC option, the SYN-ACK is not in the capture');
});

test('segments of a connection in any order give the same messages', () => {
  const streams: readonly (readonly [typeof client, Buffer])[] = [
    [client, Buffer.concat([PROPOSAL, CONFIRM])],
    [server, ACCEPT],
  ];
  const cuts = fc.array(fc.nat(350), { maxLength: 6 });
  fc.assert(
    fc.property(fc.tuple(cuts, cuts), fc.nat(0xffffffff), fc.infiniteStream(fc.nat()), (cutsOf, seq, numbers) => {
      const data = streams.flatMap(([side, bytes], i) => {
        const at = [...new Set([0, ...(cutsOf[i] ?? []).filter((cut) => cut < bytes.length), bytes.length])].sort(
          (a, b) => a - b,
        );
        return at.slice(1).map((end, j) => side({ seq: seq + (at[j] ?? 0), payload: bytes.subarray(at[j], end) }));
      });
      const shuffled = [...data, ...data]
        .map((packet) => [numbers.next().value ?? 0, packet] as const)
        .sort(([a], [b]) => a - b)
        .map(([, packet]) => packet);
      const { said } = find([...syns(seq, seq), ...shuffled]);
      const of = (port: number) =>
        said.filter(({ from }) => endpointText(from).endsWith(`:${port}`)).map(({ bytes }) => bytes.toString('hex'));
      assert.deepEqual(of(40000), [PROPOSAL.toString('hex'), CONFIRM.toString('hex')]);
      assert.deepEqual(of(7777), [ACCEPT.toString('hex')]);
    }),
    { numRuns: 300 },
  );
});

test('any packets are taken', () => {
  const flags = fc.constantFrom('S', 'SA', 'A', 'F', 'R', 'FA');
  const segment = fc.record({
    from: fc.constantFrom(1, 2, 3),
    to: fc.constantFrom(1, 2, 3),
    seq: fc.nat(600),
    flags,
    payload: fc.constantFrom(
      PROPOSAL,
      ACCEPT,
      CONFIRM,
      DECLINE,
      Buffer.from('data'),
      Buffer.alloc(0),
      PROPOSAL.subarray(0, 50),
    ),
  });
  fc.assert(
    fc.property(fc.array(fc.tuple(segment, fc.boolean()), { maxLength: 40 }), (segments) => {
      const packets = segments.map(([options, six]) => raw(six ? ipv6(tcp(options)) : ipv4(tcp(options))));
      const { outcomes, connections } = find(packets);
      assert.ok(outcomes.every(({ text }) => /^[ -~]+$/.test(text)));
      assert.ok(connections.withMessages <= connections.connections);
    }),
  );
});

test('when there are too many connections, or they hold too much, the oldest are left', () => {
  const part = PROPOSAL.subarray(0, 200);
  const many = Array.from({ length: 1000 }, (_, i) => client({ from: i, seq: 0, payload: part }));
  const few = find(many, { connections: 100, heldBytes: 1e9 });
  assert.equal(few.connections.forgotten, 900);
  assert.equal(few.said.length, 1000, 'what there is of them is shown');
  assert.match(few.outcomes[0]?.text ?? '', /not followed any further/);
  const { connections } = find(many, { connections: 1e9, heldBytes: 50 * part.length });
  assert.equal(connections.forgotten, 950);
});
