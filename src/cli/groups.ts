/** `isthmus linkgroup` and `isthmus device`: what the connections of running programs use, in the manner of `smcd`. */
import { parseArgs } from 'node:util';
import type { ConnectionInfo } from '../net/info.ts';
import { type Command, EXIT_FAILED, EXIT_OK, fail, formatTable, UsageError } from './command.ts';
import { whyNoProgram } from './processes.ts';
import { checkPid, readTables } from './rows.ts';
import { printable, printableJson } from './text.ts';

const LINKGROUP_HELP = `Usage: isthmus linkgroup [show] [all | LG-ID] [options]

Lists the link groups of running programs: what the connections between two devices have in common. One line an end;
yours, or everybody's if you are root. A link group is shown while it has a connection.

      --json     an array of { linkGroup, pid, program, connections, device, access, gid, peerGid, peerPid, dmbBytes }
  -d, --details  more columns: GIDs and the program
  -p, --pid PID  only those of one process
  -h, --help     this text

  LG-ID     the number that the program has given it; the peer has one of its own. 100 is short for 00000100
  #Conns    open connections
  PID       the process, and the one at the other end where that can be seen
  Buffers   bytes of the buffers for what its connections receive

Of what smcd shows VLAN and PNET-ID are left out: there are none.
`;

const DEVICE_HELP = `Usage: isthmus device [show] [all] [options]

Lists the ISM devices through which connections of running programs go: yours, or everybody's if you are root. A device
is shown while it has a connection.

      --json     an array of { pid, program, type, chid, gid, access, linkGroups, connections }
  -p, --pid PID  only those of one process
  -h, --help     this text

  FID     function id: 0000, as for every device that is no PCI function
  Type    host: between processes; loopback: inside one
  PCHID   of the fabric that it is attached to; ffff inside one event loop
  InUse   whether a connection goes through it
  Access  how peers write into the memory of this one: mapped or store

Of what smcd shows PCI-ID and PNET-ID are left out: there are none.
`;

const LINKGROUP_OPTIONS = {
  json: { type: 'boolean' },
  details: { type: 'boolean', short: 'd' },
  pid: { type: 'string', short: 'p' },
} as const;
const DEVICE_OPTIONS = { json: { type: 'boolean' }, pid: { type: 'string', short: 'p' } } as const;

export const linkgroup: Command = {
  summary: 'list what connections between two partitions have in common',
  help: LINKGROUP_HELP,
  options: LINKGROUP_OPTIONS,
  takes: ['show', 'all'],
  async main(args) {
    const { values, positionals } = parseArgs({ args: [...args], allowPositionals: true, options: LINKGROUP_OPTIONS });
    const [first = 'all', ...rest] = withoutShow(positionals);
    if (rest.length > 0) throw new UsageError('one link group, or all');
    if (first !== 'all' && !/^(0x)?[0-9a-f]{1,8}$/i.test(first))
      throw new UsageError(`'${first}' is no link group: its number in hex, as isthmus linkgroup shows it`);
    const groups = linkGroups(rowsOf(values.pid)).filter(
      ({ linkGroup }) => first === 'all' || Number(linkGroup) === Number.parseInt(first, 16),
    );
    if (groups.length === 0 && first !== 'all') return fail(`there is no link group ${first}`, EXIT_FAILED);
    process.stdout.write(
      values.json ? `${printableJson(groups)}\n` : formatLinkGroups(groups, values.details ?? false),
    );
    return EXIT_OK;
  },
};

export const device: Command = {
  summary: 'list the devices that connections go through',
  help: DEVICE_HELP,
  options: DEVICE_OPTIONS,
  takes: ['show', 'all'],
  async main(args) {
    const { values, positionals } = parseArgs({ args: [...args], allowPositionals: true, options: DEVICE_OPTIONS });
    const rest = withoutShow(positionals);
    if (rest.length > 1 || (rest[0] ?? 'all') !== 'all') throw new UsageError('show all is all there is');
    const devices = devicesOf(rowsOf(values.pid));
    process.stdout.write(values.json ? `${printableJson(devices)}\n` : formatDevices(devices));
    return EXIT_OK;
  },
};

/** `show` may be left out, and be abbreviated as in smcd. */
function withoutShow(words: readonly string[]): readonly string[] {
  return words[0] !== undefined && words[0] !== '' && 'show'.startsWith(words[0]) ? words.slice(1) : words;
}

/** Of connections with a device. All programs are read: the other end may be one of them. */
function rowsOf(pid: string | undefined) {
  checkPid(pid);
  const { rows, complete } = readTables();
  if (!complete) process.stderr.write('isthmus: there are too many connections, not all were looked at\n');
  const all = rows.filter((row): row is Used => row.device !== null && row.gid !== null && row.linkGroup !== null);
  const shown = all.filter((row) => pid === undefined || row.pid === Number(pid));
  if (shown.length === 0)
    process.stderr.write(
      `isthmus: ${rows.length === 0 ? whyNoProgram(pid) : 'no connection has moved; isthmus ss says why'}\n`,
    );
  return { all, shown };
}

type Used = ConnectionInfo & { readonly id: string; readonly gid: string; readonly linkGroup: string };
type Rows = ReturnType<typeof rowsOf>;

/** Rows of one partition are told from those of others by the beginning of their id. */
function groupsOf(rows: readonly Used[], keyOf: (row: Used) => string): [Used, ...Used[]][] {
  const partition = ({ id }: Used) => id.slice(0, id.lastIndexOf('.'));
  const groups = new Map<string, [Used, ...Used[]]>();
  for (const row of rows) {
    const key = `${partition(row)} ${keyOf(row)}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [row]);
    else group.push(row);
  }
  return [...groups.values()];
}

export function linkGroups({ all, shown }: Rows) {
  const pidOf = new Map(all.map(({ gid, pid }) => [gid, pid]));
  return groupsOf(shown, ({ linkGroup, device, peerGid }) => `${linkGroup} ${device} ${peerGid}`).map((rows) => {
    const { linkGroup, pid, program, device, access, gid, peerGid } = rows[0];
    const dmbBytes = rows.reduce((sum, row) => sum + (row.dmbBytes ?? 0), 0);
    const peerPid = peerGid === null ? null : (pidOf.get(peerGid) ?? null);
    return { linkGroup, pid, program, connections: rows.length, device, access, gid, peerGid, peerPid, dmbBytes };
  });
}

export function formatLinkGroups(groups: ReturnType<typeof linkGroups>, details: boolean): string {
  const head = ['LG-ID', 'Type', '#Conns', 'PID', 'Peer PID', 'Buffers'];
  const more = details ? ['GID', 'Peer-GID', 'Program'] : [];
  const lines = groups.map(({ linkGroup, device, connections, pid, peerPid, dmbBytes, gid, peerGid, program }) => {
    const line = [linkGroup.slice(2), device ?? '-', connections, pid, peerPid ?? '-', dmbBytes].map(String);
    return details ? [...line, gid, peerGid ?? '-', printable(program)] : line;
  });
  return formatTable([[...head, ...more], ...lines]);
}

export function devicesOf({ shown }: Pick<Rows, 'shown'>) {
  return groupsOf(shown, ({ device, gid }) => `${device} ${gid}`).map((rows) => {
    const { pid, program, device: type, chid, gid, access } = rows[0];
    const linkGroups = new Set(rows.map(({ linkGroup, peerGid }) => `${linkGroup} ${peerGid}`)).size;
    return { pid, program, type, chid, gid, access, linkGroups, connections: rows.length };
  });
}

export function formatDevices(devices: ReturnType<typeof devicesOf>): string {
  const head = ['FID', 'Type', 'PCHID', 'InUse', '#LGs', '#Conns', 'Access', 'PID', 'GID'];
  const lines = devices.map(({ type, chid, linkGroups, connections, access, pid, gid }) =>
    ['0000', type ?? '-', chid?.slice(2) ?? '-', 'Yes', linkGroups, connections, access ?? '-', pid, gid].map(String),
  );
  return formatTable([head, ...lines]);
}
