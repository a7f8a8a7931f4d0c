/** `isthmus ueid` and `isthmus seid`: the enterprise ids of the fabric that would be used, in the manner of smcd. */
import { constants } from 'node:os';
import { parseArgs } from 'node:util';
import type { EidTable } from '../fabric/eids.ts';
import { type FabricPlace, fabricPlaces } from '../fabric/locate.ts';
import type { EidChange } from '../fabric/protocol.ts';
import { DEFAULT_UEID, MAX_UEIDS } from '../ism/index.ts';
import { type Command, EXIT_FAILED, EXIT_OK, fail, UsageError } from './command.ts';
import { printable, printableJson } from './text.ts';

const KEPT = `They are kept by the fabric that your programs use (isthmus fabric --help says which), in fabric.eids beside its
socket, and outlive it. Handshakes that begin after a change use the new ones; connections that have moved stay as
they are. Only root and the user of the fabric may change them; a change starts your own fabric if none runs.`;

const UEID_HELP = `Usage: isthmus ueid [show] [--json]
       isthmus ueid add UEID
       isthmus ueid del UEID
       isthmus ueid flush

Shows and changes the user-defined enterprise ids (UEIDs). Two programs can move a connection only if they have one in
common; without any, all connections stay TCP (NOUEID). There are up to ${MAX_UEIDS}; a new fabric has ${DEFAULT_UEID}.

  show        one a line
  add UEID    1 to 32 of A-Z, 0-9, '.' and '-', begins with a letter or digit, no '..'
  del UEID    when it is the last one and the machine has an SEID, that is enabled
  flush       deletes all of them
      --json  show: an array
  -h, --help  this text

${KEPT}
`;

const SEID_HELP = `Usage: isthmus seid [show] [--json]
       isthmus seid enable
       isthmus seid disable

Shows, enables and disables the system enterprise id (SEID). Only an s390 has one, which says of two partitions that
they are on one machine; elsewhere UEIDs are all there is.

  show        the SEID with [enabled] or [disabled]; n/a where there is none
  enable      it is, to begin with
  disable     possible only while there is a UEID; it is enabled again when the last UEID goes
      --json  show: { seid, seidEnabled }
  -h, --help  this text

${KEPT}
`;

interface Verbs {
  readonly help: string;
  /** What changes something, and whether it takes a UEID. */
  readonly changes: Readonly<Record<string, { readonly change: EidChange; readonly takesUeid: boolean }>>;
  show(table: EidTable): string;
  /** What the list does not say by itself, for people. */
  note(table: EidTable): string;
  json(table: EidTable): unknown;
}

const OPTIONS = { json: { type: 'boolean' } } as const;

export const ueid = command('ueid', 'show or change who may use shared memory with whom: user-defined ids', {
  help: UEID_HELP,
  changes: {
    add: { change: 1, takesUeid: true },
    del: { change: 2, takesUeid: true },
    flush: { change: 3, takesUeid: false },
  },
  show: ({ ueids }) => ueids.map((one) => `${one}\n`).join(''),
  note: ({ ueids }) =>
    ueids.length > 0
      ? ''
      : `there is none, so connections stay on TCP; isthmus ueid add ${DEFAULT_UEID} brings the built-in one back`,
  json: ({ ueids }) => ueids,
});

export const seid = command('seid', 'show or change who may use shared memory with whom: the id of the machine', {
  help: SEID_HELP,
  changes: { enable: { change: 4, takesUeid: false }, disable: { change: 5, takesUeid: false } },
  show: (table) => `${seidText(table)}\n`,
  note: () => '',
  json: ({ seid, seidEnabled }) => ({ seid, seidEnabled }),
});

export function seidText({ seid, seidEnabled }: EidTable): string {
  return seid === null ? 'n/a' : `${seid} [${seidEnabled ? 'enabled' : 'disabled'}]`;
}

function command(name: string, summary: string, verbs: Verbs): Command {
  return {
    summary,
    help: verbs.help,
    options: OPTIONS,
    takes: ['show', ...Object.keys(verbs.changes)],
    async main(args) {
      const { values, positionals } = parseArgs({
        args: [...args],
        allowPositionals: true,
        options: OPTIONS,
      });
      const [verb = 'show', ...rest] = positionals;
      const what = Object.hasOwn(verbs.changes, verb) ? verbs.changes[verb] : undefined;
      if (what === undefined && verb !== 'show') throw new UsageError(`there is no 'isthmus ${name} ${verb}'`);
      if (rest.length !== (what?.takesUeid ? 1 : 0))
        throw new UsageError(`isthmus ${name} ${verb} takes ${what?.takesUeid ? 'one UEID' : 'nothing more'}`);
      if (what !== undefined && values.json) throw new UsageError('--json belongs to show');
      try {
        if (what !== undefined) return await change(what.change, rest[0] ?? '');
        const table = await read();
        const note = values.json ? '' : verbs.note(table);
        if (note !== '') process.stderr.write(`isthmus: ${note}\n`);
        process.stdout.write(values.json ? `${printableJson(verbs.json(table))}\n` : verbs.show(table));
        return EXIT_OK;
      } catch (error) {
        return fail(printable((error as Error).message));
      }
    },
  };
}

/** Of the fabric that runs, else what one would begin with. */
async function read(): Promise<EidTable> {
  const { findFabric } = await import('../fabric/client.ts');
  const { askEids } = await import('../fabric/ask.ts');
  const found = findFabric(process.env);
  const table = found === null ? null : await askEids(found.fd);
  if (table !== null) return table;
  const { loadEids } = await import('../fabric/eid-file.ts');
  const { socket } = fabricPlaces(process.env).at(-1) as FabricPlace;
  return loadEids(socket, (text) => process.stderr.write(`isthmus: ${printable(text)}\n`));
}

async function change(what: EidChange, text: string): Promise<number> {
  const { withFabric } = await import('../fabric/client.ts');
  const { askEidChange } = await import('../fabric/ask.ts');
  const alive = setInterval(() => {}, 1000); // looking for a fabric keeps no program running
  try {
    const answer = await withFabric(process.env, (fd) => askEidChange(fd, what, text));
    if (answer.error === 0) return EXIT_OK;
    return fail(printable(answer.text), answer.error === constants.errno.EAGAIN ? EXIT_OK : EXIT_FAILED);
  } finally {
    clearInterval(alive);
  }
}
