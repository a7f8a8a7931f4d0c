/** `isthmus chk HOST:PORT`: would a connection to this server move, and if not, why? In the manner of smc_chk. */
import { parseArgs } from 'node:util';
import type { ConnectionInfo } from '../net/info.ts';
import { keepingAlive } from '../os/in-time.ts';
import { REASONS } from '../smc/reasons.ts';
import { Check, EXAMPLE } from './check.ts';
import { type Command, EXIT_FAILED, EXIT_OK, UsageError } from './command.ts';
import { localSteps } from './local.ts';
import { Ladder, reasonText } from './steps.ts';
import { printable, printableJson } from './text.ts';

const DEFAULT_TIMEOUT_S = 5;

const HELP = `Usage: isthmus chk [options] HOST:PORT

Tells whether a connection of yours to this server moves to shared memory, and if not, why. Looks step by step and
stops at the first that fails, with the reason and what helps: first what isthmus doctor looks at, then the server,
as far as you may look into its process. Then it makes a connection and says what became of it at both ends.

      --send TEXT        bytes for the server: a connection moves only once a byte has passed, and chk sends none that
                         it was not told. \\r \\n \\t \\0 \\xHH \\\\ are understood; for an HTTP server:
                         ${EXAMPLE}
      --timeout SECONDS  how long to wait for the connection, and for its move (default: ${DEFAULT_TIMEOUT_S})
      --json             { moved, steps: [{ step, result, text, reason }], client, server }; client and server as
                         isthmus ss --json has them, or null
  -h, --help             this text

  system ... trust  see isthmus doctor --help
  address           the server's name has an address, and it is of this host
  connection        the server accepts one
  server            which process has its other end
  isthmus           it is loaded there
  its policy        it lets connections move
  its fabric        the same as ours
  a byte            has passed
  announcement      both ends have told the fabric
  match             the fabric has proven that they are two ends of one connection
  handshake         both ends have agreed
  move              bytes go through shared memory

HOST may be left out (localhost); an IPv6 address stands in brackets. The server sees a connection that says what
--send says, in two parts, or nothing, and ends. Exit code 0: it moved. 1: it stayed TCP, or a step failed. 2: called wrongly.
`;

const OPTIONS = { send: { type: 'string' }, timeout: { type: 'string' }, json: { type: 'boolean' } } as const;

export const chk: Command = {
  summary: 'tell whether a connection to a server moves, and if not, why and what helps',
  help: HELP,
  options: OPTIONS,
  takes: [],
  async main(args) {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: OPTIONS,
    });
    const [target] = positionals;
    if (target === undefined || positionals.length > 1) throw new UsageError('it takes one HOST:PORT');
    const timeoutMs = Number(values.timeout ?? DEFAULT_TIMEOUT_S) * 1000;
    if (!(timeoutMs > 0 && timeoutMs <= 3_600_000))
      throw new UsageError('--timeout takes seconds, above 0, up to 3600');
    const { host, port } = parseTarget(target);
    const bytes = values.send === undefined ? null : unescaped(values.send);
    const { json = false } = values;
    const ladder = new Ladder(!json);
    const check = new Check(host, port, bytes, timeoutMs);
    const moved = await keepingAlive(ladder.climb([...localSteps(process.env, check.meets), ...check.steps()]));
    const { client, server } = check.end();
    if (json) process.stdout.write(`${printableJson({ moved, steps: ladder.lines, client, server })}\n`);
    else for (const line of summary(ladder, client, server)) ladder.say(line);
    return moved ? EXIT_OK : EXIT_FAILED;
  },
};

/** Steps whose failure is the server's. */
const OF_SERVER = ['server', 'isthmus', 'its policy', 'its fabric'];

function summary(ladder: Ladder, client: ConnectionInfo | null, server: ConnectionInfo | null): string[] {
  const { failure } = ladder;
  if (failure === null) return ['Success, using SMC-D'];
  const isOfServer = OF_SERVER.includes(failure.step);
  const ends = {
    Client: client?.reason ?? (isOfServer ? REASONS.PEERNOSMC : failure.reason),
    Server: server?.reason ?? (isOfServer ? failure.reason : undefined),
  };
  return [
    'Failed (TCP fallback), reasons:',
    ...Object.entries(ends).map(([end, why]) => `  ${end}: ${why === undefined ? 'not known' : reasonText(why)}`),
  ];
}

function parseTarget(text: string): { host: string; port: number } {
  const [, bracketed, plain, digits] =
    /^(?:\[([^\]]+)\]|([^[\]:]*)):(\d{1,5})$/.exec(/^\d+$/.test(text) ? `:${text}` : text) ?? [];
  const port = Number(digits);
  if (digits === undefined || port < 1 || port > 65535)
    throw new UsageError(`${printable(text)} is not HOST:PORT (an IPv6 address stands in brackets: [::1]:80)`);
  return { host: (bracketed ?? plain) || 'localhost', port };
}

const ESCAPES: Readonly<Record<string, string>> = { r: '\r', n: '\n', t: '\t', '0': '\0', '\\': '\\' };

/** Throws UsageError. */
function unescaped(text: string): Buffer {
  const plain = text.replace(/\\(?:x([0-9a-f]{2})|(.?))/gi, (whole, hex?: string, one?: string) => {
    const found = hex !== undefined ? String.fromCharCode(Number.parseInt(hex, 16)) : ESCAPES[one ?? ''];
    if (found === undefined) throw new UsageError(`--send: ${printable(whole)} is none of \\r \\n \\t \\0 \\xHH \\\\`);
    return found;
  });
  if (plain.length < 2)
    throw new UsageError('--send takes at least two bytes: the first shows the connection, the next moves');
  return Buffer.from(plain, /[^\0-\xff]/.test(plain) ? 'utf8' : 'latin1');
}
