/**
 * Wireshark's dissector as a witness: every field that it shows of a message is what our codec means by it.
 *
 * What it cannot see: the second half of GIDs in Accept and Confirm, feature mask, vendor options and trailers ("Reserved"). It takes
 * the extension of a first contact to be that of v2.1, so one of release 0 looks malformed to it; and it does not put a message
 * together whose first segment has less than five bytes.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { gidToBytes, isEmulated } from '../../src/ism/index.ts';
import { type ClcMessage, encodeClc } from '../../src/smc/clc/index.ts';

/** For `skip`. */
export function noDissector(): string | false {
  const { status, error } = spawnSync('tshark', ['--version'], { stdio: 'ignore' });
  return error !== undefined || status !== 0 ? 'tshark is not installed (apt install tshark)' : false;
}

/** One TCP connection. */
export interface Exchange {
  readonly name: string;
  readonly clientPort: number;
  readonly serverPort: number;
  /** In the order in which they were sent. */
  readonly messages: readonly ClcMessage[];
}

const hexOf = (bytes: Uint8Array) => BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
const halves = (gid: Parameters<typeof gidToBytes>[0]) => {
  const bytes = gidToBytes(gid);
  return [hexOf(bytes.subarray(0, 8)), hexOf(bytes.subarray(8))];
};

/** By name of the field, without `smc.`: all its values in the message. Names of the dissector's. */
function meant(message: ClcMessage): Record<string, readonly (bigint | number | string)[]> {
  const common = {
    clc_msg: [['proposal', 'accept', 'confirm', 'decline'].indexOf(message.type) + 1],
    length: [encodeClc(message).length],
  };
  if (message.type === 'proposal') {
    const { v2 } = message;
    const devices = v2?.smcd?.devices ?? [];
    const ueids = v2?.userEids ?? [];
    return {
      ...common,
      'proposal.smc.version': [2],
      'proposal.smc.type': [2],
      'proposal.smcv2.type': [1],
      'proposal.smcv2_ext_offset': [28],
      'proposal.smcdv2_ext_offset': [32 + 32 * ueids.length],
      'proposal.eid.count': [ueids.length],
      'proposal.eid': ueids,
      'proposal.smc.version.relnum': [v2?.release ?? -1],
      'proposal.smc.seid': [v2?.smcd?.seid ? 1 : 0],
      'proposal.system.eid': [v2?.smcd?.seid ?? ''],
      'proposal.ismv2_gid_count': [devices.length * 2],
      'proposal.ism.gid': [0n, ...devices.flatMap(({ gid }) => halves(gid))],
      'proposal.smc.chid': [0, ...devices.flatMap(({ chid }) => (isEmulated(chid) ? [chid, chid] : [chid]))],
    };
  }
  if (message.type === 'decline') {
    return {
      ...common,
      'decline.smc.version': [message.version],
      'decline.osync': [message.outOfSync ? 1 : 0],
      ...(message.version === 2 && { 'decline.os.type': [message.os] }),
      'peer.diag.info': [message.diagnosis, ...(message.version === 2 ? [0, 0, 0, 0] : [])],
    };
  }
  assert.ok(message.mode === 'D' && message.version === 2);
  const { type, fce } = message;
  const of = type === 'accept' ? 'server' : 'client';
  return {
    ...common,
    [`${type}.smc.type`]: [1],
    [`${type}.first.contact`]: [message.firstContact ? 1 : 0],
    [`${type}.sender.${of}.ism.gid`]: [halves(message.gid)[0] ?? 0n],
    [`${type}.dmb.token`]: [message.token],
    [`${type}.dmbe.conn.index`]: [message.dmbeIndex],
    [`${type}.dmbe.buffer.size`]: [message.dmbeSize],
    [`${type}.${of}.linkid`]: [message.linkId],
    [`${type}.smc.chid`]: [message.chid],
    [`${type}.eid`]: [message.eid],
    ...(fce && {
      [`${type}.os.type`]: [fce.os],
      [`${type}.smc.version.relnum`]: [fce.release],
      [`${type}.peer.host.name`]: [fce.hostName],
    }),
  };
}

type Shown = Record<string, readonly string[]>;

const connectionOf = (one: number, other: number) => (one < other ? `${one} ${other}` : `${other} ${one}`);

/** What tshark says of these fields where a filter fits, by connection: one record a message. */
function read(capture: string, filter: string, fields: readonly string[]): Map<string, Shown[]> {
  const columns = ['tcp.srcport', 'tcp.dstport', ...fields.map((name) => `smc.${name}`)];
  const text = execFileSync(
    'tshark',
    [
      ...['-r', capture, '-o', 'tcp.try_heuristic_first:TRUE', '-Y', filter],
      ...['-T', 'fields', '-E', 'separator=|', '-E', 'occurrence=a', '-E', 'aggregator=;'],
      ...columns.flatMap((name) => ['-e', name]),
    ],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const shown = new Map<string, Shown[]>();
  for (const line of text.split('\n').filter((line) => line !== '')) {
    const [from, to, ...values] = line.split('|');
    const record = Object.fromEntries(fields.map((name, i) => [name, (values[i] ?? '').split(';')]));
    const connection = connectionOf(Number(from), Number(to));
    shown.set(connection, [...(shown.get(connection) ?? []), record]);
  }
  return shown;
}

/** What tshark shows of these connections is what was meant, and nothing is malformed. A capture may hold others as well. */
export function assertDissected(capture: string, exchanges: readonly Exchange[]): void {
  const expected = exchanges.map((one) => ({ ...one, records: one.messages.map(meant) }));
  const fields = [...new Set(expected.flatMap(({ records }) => records.flatMap((record) => Object.keys(record))))];
  const malformed = read(capture, '_ws.malformed || _ws.expert.severity == error', []);
  const seen = read(capture, 'smc', fields);
  for (const { name, clientPort, serverPort, records } of expected) {
    const connection = connectionOf(clientPort, serverPort);
    assert.ok(!malformed.has(connection), `${name}: malformed`);
    const shown = seen.get(connection) ?? [];
    assert.equal(shown.length, records.length, `${name}: messages seen`);
    for (const [i, record] of records.entries()) {
      for (const [field, values] of Object.entries(record)) {
        const got = (shown[i]?.[field] ?? []).map((text) => text.trim()).filter((text) => text !== '');
        const isText = values.some((value) => typeof value === 'string');
        assert.deepEqual(
          isText ? got : got.map(numberOf),
          isText ? values.filter((text) => text !== '') : values.map((value) => BigInt(value)),
          `${name}, message ${i + 1}: ${field}`,
        );
      }
    }
  }
}

function numberOf(text: string): bigint {
  return BigInt(text === 'True' ? 1 : text === 'False' ? 0 : text);
}
