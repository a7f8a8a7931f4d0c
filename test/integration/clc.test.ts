/** `isthmus clc` as people call it. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CLI, type Finished, ROOT, Workplace } from './commands.ts';

const capture = (name: string) => join(ROOT, 'test/vectors/pcap', `${name}.pcap`);
const LOOPBACK = capture('40-v21-loopback-first-contact');
const DECLINE = 'e2d4c3d904001c1000000000000000000303000000000000e2d4c3d9';

let work: Workplace;
before(() => {
  work = new Workplace();
});
after(() => work.close());

function clc(args: readonly string[], input: string | Buffer = ''): Promise<Finished> {
  const started = work.start(process.execPath, [CLI, 'clc', ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  started.child.stdin?.on('error', () => {}).end(input); // it need not read to the end
  return started.finished;
}

async function output(args: readonly string[], input: string | Buffer = ''): Promise<string> {
  const { code, stdout, stderr } = await clc(args, input);
  assert.equal(code, 0, stderr);
  assert.equal(stderr, '');
  return stdout;
}

describe('a capture', () => {
  test('field by field, with what came of it', async () => {
    const text = await output([LOOPBACK]);
    assert.match(
      text,
      /^Times are seconds after \d{4}-\d\d-\d\d [\d:.]+ UTC\.\n\n0\.023987 {2}127\.0\.0\.1:44362 > 127\.0\.0\.1:5000 {2}Proposal, v2 SMC-D/,
    );
    assert.match(text, /\n {5}5 {4}2 {2}length +00e0 +224\n/);
    assert.match(text, /\n {4}16 {4}8 {2}dmb token +29d8fe411e8ea3dd\n/);
    assert.equal(text.match(/\n {2}Linux: (\d+) of \1 checks passed\n/g)?.length, 3);
    assert.match(
      text,
      /\n0\.029819 .* => SMC-D v2\.1, first contact, CHID ffff, EID ISTHMUS\.TEST\.A; SMC option in SYN and SYN-ACK\n/,
    );
    assert.match(text, /\n3 CLC messages in 1 of 1 TCP connection, 9 packets\n$/);
  });

  test('in brief, as the README shows it', async () => {
    const text = await output(['--brief', capture('43-v21-loopback-decline-no-ueid')]);
    assert.ok(readFileSync(join(ROOT, 'README.md'), 'utf8').includes(`\`\`\`\n${text}\`\`\``), text);
  });

  test('with all checks', async () => {
    const text = await output(['-bc', LOOPBACK]);
    assert.match(
      text,
      /\n {2}ok ipv6_prefixes_cnt at 47: expected at most 8, although v1 is not offered, got 0 \(Linux\)\n/,
    );
    assert.match(text, /\n {2}ok negotiated eid at 34: expected one that was offered, got "ISTHMUS\.TEST\.A"\n/);
  });

  test('as JSON: an array of messages, and nothing else', async () => {
    const messages = JSON.parse(await output(['--json', capture('43-v21-loopback-decline-no-ueid')]));
    const file = JSON.parse(readFileSync(join(ROOT, 'test/vectors/clc/43-v21-loopback-decline-no-ueid.json'), 'utf8'));
    assert.equal(messages.length, 2);
    for (const message of messages) {
      assert.deepEqual(Object.keys(message), ['type', 'length', 'hex', 'from', 'to', 'fields', 'problems']);
    }
    const [{ type, length, hex, from, to, fields, problems }] = messages;
    assert.deepEqual([type, length, from, to], ['Proposal', 192, '127.0.0.1:45048', '127.0.0.1:5000']);
    assert.equal(hex, file.messages[0].hex);
    assert.deepEqual(fields[0], {
      offset: 0,
      length: 4,
      field: 'eyecatcher',
      hex: 'e2d4c3d9',
      meaning: 'SMCR (EBCDIC)',
    });
    assert.deepEqual(problems, [
      {
        field: 'eid_cnt',
        offset: 80,
        text: 'expected a UEID or the SEID, got neither',
        linux: { does: 'declines', code: 0x03030008, name: 'NOUEID' },
      },
    ]);
    assert.deepEqual([messages[1].type, messages[1].problems], ['Decline', []]);
  });

  test('IPv6 addresses are in brackets', async () => {
    const [{ from }] = JSON.parse(await output(['--json', capture('41-v21-loopback-ipv6')]));
    assert.match(from, /^\[::1\]:\d+$/);
  });

  test('without messages', async () => {
    assert.equal(
      await output([capture('28-no-option-from-server')]),
      '0 CLC messages in 0 of 1 TCP connection, 7 packets; 1 plain TCP, for only the SYN has the SMC option\n',
    );
    assert.equal(await output(['--json', capture('28-no-option-from-server')]), '[]\n');
  });

  test('from stdin, with or without a name for it', async () => {
    const bytes = readFileSync(LOOPBACK);
    const expected = await output([LOOPBACK]);
    assert.equal(await output(['-'], bytes), expected);
    assert.equal(await output([], bytes), expected);
  });

  test('messages are shown as they come', async () => {
    const { child, says, finished } = work.start(process.execPath, [CLI, 'clc', '-b', '-'], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const bytes = readFileSync(LOOPBACK);
    const behindProposal = bytes.indexOf('e2d4c3d901', 'hex') + 224;
    child.stdin?.write(bytes.subarray(0, behindProposal));
    await says(/Proposal/);
    child.stdin?.end(bytes.subarray(behindProposal));
    assert.match((await finished).stdout, /3 CLC messages/);
  });
});

describe('hex', () => {
  for (const [name, args, input] of [
    ['in one argument', [DECLINE], ''],
    ['in several', ['e2d4c3d9', '04', '001c10', DECLINE.slice(16)], ''],
    ['from stdin', [], `${DECLINE}\n`],
    ['from a dump on stdin', ['-'], `00000000: ${DECLINE.slice(0, 32)}\n00000010: ${DECLINE.slice(32)}\n`],
  ] as const) {
    test(name, async () => {
      const text = await output(['--hex', ...args], input);
      assert.match(text, /^Decline v1: 0x03030000 NOSMCDEV \(28 bytes\)\n {5}0 {4}4 {2}eyecatcher/);
    });
  }

  test('from a file', async () => {
    const file = join(work.directory, 'decline.hex');
    writeFileSync(file, DECLINE);
    assert.match(await output(['--hex', '-b', file]), /^Decline v1/);
  });

  test('several messages in a row, and whole packets as tcpdump -x prints them', async () => {
    const { messages } = JSON.parse(
      readFileSync(join(ROOT, 'test/vectors/clc/40-v21-loopback-first-contact.json'), 'utf8'),
    );
    const all = messages.map(({ hex }: { hex: string }) => hex).join('');
    const found = JSON.parse(await output(['--hex', '--json', all]));
    assert.deepEqual(
      found.map(({ type, from, to, problems }: Record<string, unknown>) => [type, from, to, problems]),
      ['Proposal', 'Accept', 'Confirm'].map((type) => [type, null, null, []]),
    );
    const bytes = readFileSync(LOOPBACK);
    const at = bytes.indexOf('e2d4c3d901', 'hex');
    const packet = bytes.subarray(at - 52, at + 224);
    const lines = Array.from({ length: Math.ceil(packet.length / 16) }, (_, i) => {
      return `\t0x${(i * 16).toString(16).padStart(4, '0')}:  ${packet.subarray(i * 16, i * 16 + 16).toString('hex')}\n`;
    });
    assert.match(
      await output(['--hex', '-b'], `12:00 IP a > b: length 224\n${lines.join('')}`),
      /^Proposal, v2 SMC-D.*\(224 bytes\)\n$/,
    );
  });

  test('what is wrong with a message', async () => {
    const wrong = DECLINE.replace('001c', '001d');
    assert.equal(
      await output(['--hex', '-b', `${wrong}00`]),
      [
        'Decline, which cannot be decoded (29 bytes)',
        '  !! length at 5: expected 28, got 29. Linux closes the connection',
        '',
      ].join('\n'),
    );
    const [{ type, problems }] = JSON.parse(await output(['--hex', '--json', 'e2d4c3d909001c10']));
    assert.equal(type, null);
    assert.deepEqual(problems, [
      { field: 'type', offset: 4, text: 'expected 1 to 4, got 9', linux: { does: 'closes' } },
    ]);
  });
});

test('text of a peer moves no cursor', async () => {
  const { messages } = JSON.parse(
    readFileSync(join(ROOT, 'test/vectors/clc/40-v21-loopback-first-contact.json'), 'utf8'),
  );
  const bytes = Buffer.from(messages[1].hex, 'hex');
  for (const offset of [34, 78]) bytes.write('\x1b[2J\x07\x9b', offset, 'latin1');
  for (const more of [[], ['-c'], ['--json']]) {
    assert.match(await output(['--hex', ...more, bytes.toString('hex')]), /^[ -~\n]+$/);
  }
});

describe('what cannot be read', () => {
  const failures: readonly (readonly [string, readonly string[], string | Buffer, number, RegExp])[] = [
    ['an option that is none', ['--nothing'], '', 2, /Unknown option/],
    ['two files', ['a', 'b'], '', 2, /one file at a time/],
    ['half a byte', ['--hex', 'e2d'], '', 2, /half a byte is missing/],
    ['no such file', ['nothing.pcap'], '', 1, /ENOENT/],
    ['hex without --hex', [DECLINE], '', 1, /hex is shown with --hex/],
    ['a folder', ['/'], '', 1, /EISDIR/],
    ['text', ['-'], 'something else', 1, /^isthmus: stdin: neither pcap nor pcapng\n$/],
    ['text for hex', ['--hex'], 'something else', 1, /not hex/],
    ['nothing', [], '', 1, /it is empty/],
  ];
  for (const [name, args, input, expected, pattern] of failures) {
    test(name, async () => {
      const { code, stdout, stderr } = await clc(args, input);
      assert.equal(code, expected, stderr);
      assert.match(stderr, pattern);
      assert.equal(stdout, '');
    });
  }

  test('of a capture that is cut off, what was there is shown', async () => {
    const bytes = readFileSync(LOOPBACK).subarray(0, -100);
    const { code, stdout, stderr } = await clc(['-b', '-'], bytes);
    assert.equal(code, 1);
    assert.match(stdout, /Proposal[\s\S]*Accept[\s\S]*=> no answer to the Accept; the capture ends/);
    assert.match(stderr, /^isthmus: stdin: it is cut off, at byte \d+, behind \d packets\n$/);
    const json = await clc(['--json', '-'], bytes);
    assert.equal(JSON.parse(json.stdout).length, 2);
  });

  test('a link type that is not known', async () => {
    const bytes = Buffer.from(readFileSync(LOOPBACK));
    bytes[20] = 105;
    const { code, stderr } = await clc(['-b', '-'], bytes);
    assert.equal(code, 1);
    assert.match(stderr, /9 packets of link types that are not known: 105/);
  });
});
