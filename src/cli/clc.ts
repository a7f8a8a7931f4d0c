/** `isthmus clc`: the CLC messages of a capture or of hex, field by field, with what is wrong with them. */
import { createReadStream, existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { hex } from '../smc/clc/bytes.ts';
import { EYECATCHER_BYTES, eyecatcherName, HEADER_BYTES, LENGTH } from '../smc/clc/header.ts';
import {
  type ClcCheck,
  type ClcField,
  declineReason,
  describeClc,
  type LinuxConsequence,
  listClc,
} from '../smc/clc/index.ts';
import type { Listener, Outcome, Said } from './capture/connection.ts';
import { Connections } from './capture/connections.ts';
import { Conversation, type Judged, nameOf } from './capture/conversation.ts';
import { CaptureError } from './capture/format.ts';
import { endpointText, isKnownLinkType, type NoSegment, segmentOf } from './capture/packet.ts';
import { CaptureReader } from './capture/reader.ts';
import { type Command, EXIT_FAILED, EXIT_OK, EXIT_USAGE, fail, formatTable, UsageError } from './command.ts';
import { bytesOfHex, HexError, isHex } from './hex.ts';
import { printable, printableJson } from './text.ts';

const HELP = `Usage: isthmus clc [options] [FILE | -]
       isthmus clc --hex [options] [DIGITS ... | FILE | -]

Shows the CLC messages in a capture, or in hex: the handshake of SMC-D and SMC-R inside TCP. Field by field, and what
is wrong with them: which of the checks that Linux makes fail, what it does then, and what only careful readers see.
For captures also what came of each connection, and whether SYN and SYN-ACK had the SMC option. Tokens are shown.

  tcpdump -i any -w - tcp | isthmus clc -
  isthmus clc --brief capture.pcapng
  isthmus clc --hex e2d4c3d9 04 001c 10 ...

      --hex      hex instead of a capture: digits in any grouping, or a dump of xxd, hexdump -C, od or tcpdump -x
  -b, --brief    no fields
  -c, --checks   all checks, not only those that fail
      --json     an array of messages: { type, length, hex, from, to, fields, problems }, in order. type is Proposal,
                 Accept, Confirm, Decline or null; from and to are ADDRESS:PORT, null for hex; fields are
                 { offset, length, field, hex, meaning }; problems are { field, offset, text, linux }, where linux is
                 null (it does not look) or { does: 'closes' | 'waits' | 'declines' | 'goes on' }, with { code, name }
                 of a Decline, or { without } what it leaves out
  -h, --help     this text

FILE is pcap or pcapng: Ethernet with or without VLAN tags, Linux cooked, raw IP, loopback. Without FILE or with -
it comes from stdin, and messages are shown as they come. Of a capture that is damaged or cut off, what could be read
is shown; exit code 1.

  closes       Linux ends the TCP connection: there is no way back to TCP from a message that cannot be trusted
  waits        for what is missing, 6 seconds at most, then it closes
  declines     with the code that is shown, and goes on as plain TCP
  goes on      without SMC-D v2, with what else was offered
`;

interface TextOptions {
  readonly brief: boolean;
  readonly checks: boolean;
}

const OPTIONS = {
  json: { type: 'boolean' },
  hex: { type: 'boolean' },
  brief: { type: 'boolean', short: 'b' },
  checks: { type: 'boolean', short: 'c' },
} as const;

export const clc: Command = {
  summary: 'show SMC handshakes in a capture, and what is wrong with them',
  help: HELP,
  options: OPTIONS,
  takes: 'files',
  async main(args) {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: OPTIONS,
    });
    const { json = false, brief = false, checks = false } = values;
    const [odd] = values.hex ? positionals.filter((one) => one !== '-' && !isHex(one) && !existsSync(one)) : [];
    if (odd !== undefined) throw new UsageError(`${printable(odd)} is neither hex nor a file`);
    const isDigits = values.hex === true && positionals.length > 0 && positionals.every(isHex);
    if (!isDigits && positionals.length > 1) throw new UsageError('one file at a time');
    const [file = '-'] = positionals;
    if (!isDigits && file === '-' && process.stdin.isTTY) throw new UsageError('no capture on stdin');
    const output = json ? new JsonOutput() : new TextOutput({ brief, checks });
    let code: number;
    if (isDigits) code = showHex(positionals.join(' '), output, EXIT_USAGE);
    else if (values.hex) code = await showHexOf(file, output);
    else code = await showCapture(file, output);
    output.end();
    return code;
  },
};

function open(file: string): AsyncIterable<Buffer> {
  return file === '-' ? process.stdin : createReadStream(file, { highWaterMark: 1024 * 1024 });
}

/** Why a file cannot be read, in the words of the system. */
function unreadable(file: string, error: unknown): number {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === undefined) throw error;
  const hint = code === 'ENOENT' && isHex(file) ? '; hex is shown with --hex' : '';
  return fail(`${message}${hint}`);
}

// --- Captures ---

async function showCapture(file: string, output: Output): Promise<number> {
  const reader = new CaptureReader();
  const connections = new Connections(output);
  const unread: Record<NoSegment, number> = { other: 0, fragment: 0, cut: 0, 'link type': 0 };
  const unknownLinkTypes = new Set<number>();
  let code = EXIT_OK;
  try {
    for await (const chunk of open(file)) {
      for (const { timeNs, linkType, bytes } of reader.push(chunk)) {
        if (timeNs !== null) output.begin(timeNs);
        const segment = segmentOf(linkType, bytes);
        if (typeof segment !== 'string') connections.add(timeNs, segment);
        else unread[segment]++;
        if (!isKnownLinkType(linkType)) unknownLinkTypes.add(linkType);
      }
    }
    reader.end();
  } catch (error) {
    code = error instanceof CaptureError ? fail(`${nameOfInput(file)}: ${error.message}`) : unreadable(file, error);
  }
  connections.end();
  if (code === EXIT_OK || reader.packets > 0) output.summary(summaryText(reader.packets, connections, output.messages));
  for (const [why, text] of Object.entries(UNREAD)) {
    const count = unread[why as keyof typeof UNREAD];
    if (count > 0) process.stderr.write(`isthmus: ${count} ${text}\n`);
  }
  if (unknownLinkTypes.size > 0) {
    const text = `${unread['link type']} packets of link types that are not known: ${[...unknownLinkTypes].join(', ')}`;
    if (unread['link type'] === reader.packets) code = fail(text);
    else process.stderr.write(`isthmus: ${text}\n`);
  }
  return code;
}

const nameOfInput = (file: string) => (file === '-' ? 'stdin' : file);

const UNREAD = {
  fragment: 'IP fragments were left out: messages in them are not shown',
  cut: 'packets were captured with too few bytes to see their TCP header',
};

function summaryText(packets: number, connections: Connections, messages: number): string {
  const { withMessages, agreedOnly, refused, forgotten } = connections;
  const parts = [
    `${plural(messages, 'CLC message')} in ${withMessages} of ${plural(connections.connections, 'TCP connection')}, ${plural(packets, 'packet')}`,
  ];
  if (agreedOnly > 0) parts.push(`${agreedOnly} without messages although SYN and SYN-ACK have the SMC option`);
  if (refused > 0) parts.push(`${refused} plain TCP, for only the SYN has the SMC option`);
  if (forgotten > 0) parts.push(`${forgotten} not followed to their end, for there were too many`);
  return parts.join('; ');
}

const plural = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;

// --- Hex ---

const MAX_HEX_BYTES = 16 * 1024 * 1024;

async function showHexOf(file: string, output: Output): Promise<number> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of open(file)) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > MAX_HEX_BYTES) return fail(`${nameOfInput(file)}: more than ${MAX_HEX_BYTES} bytes of hex`);
    }
  } catch (error) {
    return unreadable(file, error);
  }
  return showHex(Buffer.concat(chunks).toString('latin1'), output, EXIT_FAILED);
}

function showHex(text: string, output: Output, exitWhenWrong: number): number {
  let dumps: Buffer[];
  try {
    dumps = bytesOfHex(text);
  } catch (error) {
    if (error instanceof HexError) return fail(error.message, exitWhenWrong);
    throw error;
  }
  const conversation = new Conversation();
  for (const bytes of dumps.flatMap((dump) => messagesOf(payloadOf(dump)))) {
    output.said({ ...conversation.judge(bytes, null), timeNs: null, from: null, to: null });
  }
  return EXIT_OK;
}

/** Raw IP, Ethernet, Linux cooked: what tcpdump -x and -xx print. */
const DUMPED_LINK_TYPES = [101, 1, 113, 276];

/** Of a dumped packet its TCP payload. */
function payloadOf(bytes: Buffer): Buffer {
  if (beginsMessage(bytes)) return bytes;
  for (const linkType of DUMPED_LINK_TYPES) {
    const segment = segmentOf(linkType, bytes);
    if (typeof segment === 'string') continue;
    if (segment.payloadLength === 0 || beginsMessage(segment.payload)) return segment.payload;
  }
  return bytes;
}

const beginsMessage = (bytes: Buffer) => eyecatcherName(bytes.subarray(0, EYECATCHER_BYTES)) !== undefined;

/** The first is one in any case, for somebody wants to know what is wrong with it. */
function messagesOf(bytes: Buffer): Buffer[] {
  const messages: Buffer[] = [];
  for (let rest = bytes; rest.length > 0; ) {
    const length = rest.length < HEADER_BYTES ? rest.length : Math.max(rest.readUInt16BE(LENGTH), HEADER_BYTES);
    const next = rest.subarray(length);
    const isLast = next.length < HEADER_BYTES || !beginsMessage(next);
    // What stands behind the last is shown with it.
    messages.push(isLast ? rest : rest.subarray(0, length));
    rest = isLast ? Buffer.alloc(0) : next;
  }
  return messages;
}

// --- Output ---

type Shown = Omit<Said, 'from' | 'to'> & { readonly from: string | null; readonly to: string | null };

abstract class Output implements Listener {
  messages = 0;
  /** The time of the first packet. */
  protected start: bigint | null = null;

  begin(timeNs: bigint): void {
    this.start ??= timeNs;
  }

  abstract said(message: Shown): void;
  abstract outcome(outcome: Outcome): void;
  abstract summary(text: string): void;
  abstract end(): void;
}

class JsonOutput extends Output {
  said({ bytes, type, checks, isCutByCapture, from, to }: Shown): void {
    const message = {
      type: type === null ? null : nameOf(type),
      length: bytes.length,
      hex: bytes.toString('hex'),
      from: from && endpointText(from),
      to: to && endpointText(to),
      fields: listClc(bytes),
      problems: isCutByCapture ? [CUT] : checks.filter(({ passed }) => !passed).map(problemOf),
    };
    process.stdout.write(`${this.messages === 0 ? '[' : ','}\n${printableJson(message).replace(/^/gm, '  ')}`);
    this.messages++;
  }

  outcome(): void {}
  summary(): void {}

  end(): void {
    process.stdout.write(this.messages === 0 ? '[]\n' : '\n]\n');
  }
}

const CUT = { field: 'length', offset: LENGTH, text: 'the capture does not have all of it', linux: null };

function problemOf({ field, offset, expected, got, linux }: ClcCheck) {
  const code = linux?.does === 'declines' ? { name: declineReason(linux.code)?.name } : {};
  return { field, offset, text: `expected ${expected}, got ${got}`, linux: linux && { ...linux, ...code } };
}

class TextOutput extends Output {
  readonly #options: TextOptions;

  constructor(options: TextOptions) {
    super();
    this.#options = options;
  }

  said(message: Shown): void {
    const { bytes, checks, isCutByCapture, timeNs, from, to } = message;
    if (this.messages === 0 && this.start !== null) {
      process.stdout.write(`Times are seconds after ${dateText(this.start)}.\n\n`);
    }
    const where =
      from === null || to === null ? '' : `${this.#time(timeNs)}  ${endpointText(from)} > ${endpointText(to)}  `;
    const separator = this.messages > 0 && !this.#options.brief ? '\n' : '';
    process.stdout.write(`${separator}${where}${describe(message)} (${bytes.length} bytes)\n`);
    if (!this.#options.brief) process.stdout.write(formatFields(listClc(bytes)));
    process.stdout.write(isCutByCapture ? `  ${CUT.text}\n` : formatChecks(checks, this.#options));
    this.messages++;
  }

  outcome({ timeNs, client, server, text }: Outcome): void {
    const separator = this.#options.brief ? '' : '\n';
    process.stdout.write(
      `${separator}${this.#time(timeNs)}  ${endpointText(client)} > ${endpointText(server)}  => ${text}\n`,
    );
  }

  summary(text: string): void {
    process.stdout.write(`${this.messages > 0 ? '\n' : ''}${text}\n`);
  }

  end(): void {}

  #time(timeNs: bigint | null): string {
    return timeNs === null ? '-' : secondsText(timeNs - (this.start ?? timeNs));
  }
}

function describe({ message, type }: Judged): string {
  return message === null ? `${nameOf(type)}, which cannot be decoded` : describeClc(message);
}

function secondsText(ns: bigint): string {
  const us = ns / 1000n;
  const [sign, positive] = us < 0n ? ['-', -us] : ['', us];
  return `${sign}${positive / 1_000_000n}.${String(positive % 1_000_000n).padStart(6, '0')}`;
}

/** Of hostile captures, too: not every number is a date. */
function dateText(ns: bigint): string {
  const date = new Date(Number(ns / 1_000_000n));
  return Number.isNaN(date.getTime()) ? secondsText(ns) : date.toISOString().replace('T', ' ').replace('Z', ' UTC');
}

function formatFields(fields: readonly ClcField[]): string {
  const rows = fields.map(({ offset, length, field, hex, meaning }) => [
    String(offset).padStart(4),
    String(length).padStart(3),
    field,
    shortHex(hex),
    meaning,
  ]);
  return indented(formatTable(rows));
}

const MAX_HEX_DIGITS = 32;

function shortHex(digits: string): string {
  if (digits.length <= MAX_HEX_DIGITS) return digits;
  return /^0*$/.test(digits) ? `00 x ${digits.length / 2}` : `${digits.slice(0, MAX_HEX_DIGITS - 4)}...`;
}

function formatChecks(checks: readonly ClcCheck[], { brief, checks: all }: TextOptions): string {
  const ofLinux = checks.filter(({ by }) => by === 'Linux');
  const passed = ofLinux.filter((check) => check.passed).length;
  const lines = checks.filter((check) => all || !check.passed).map(checkText);
  if (ofLinux.length > 0 && !brief) lines.push(`Linux: ${passed} of ${ofLinux.length} checks passed`);
  return lines.map((line) => `  ${line}\n`).join('');
}

/** Failed: `!!` where Linux looks, `!` where only others do. */
function checkText({ by, passed, field, offset, expected, got, linux }: ClcCheck): string {
  const mark = passed ? 'ok' : by === 'Linux' ? '!!' : ' !';
  const what = `${mark} ${field} at ${offset}: expected ${expected}, got ${got}`;
  if (passed) return by === 'Linux' ? `${what} (Linux)` : what;
  return `${what}. ${linux === null ? 'Linux does not look' : `Linux ${consequenceText(linux)}`}`;
}

function consequenceText(linux: LinuxConsequence): string {
  switch (linux.does) {
    case 'closes':
      return 'closes the connection';
    case 'waits':
      return 'waits for the rest, 6 s at most, then closes the connection';
    case 'declines':
      return `declines with 0x${hex(linux.code, 8)} ${declineReason(linux.code)?.name}, and TCP goes on`;
    case 'goes on':
      return `goes on without ${linux.without}`;
    default:
      return linux satisfies never;
  }
}

const indented = (text: string) => text.replace(/^(?=.)/gm, '  ');
