/** `isthmus doctor`: can connections of this user's programs move here? */
import { parseArgs } from 'node:util';
import { keepingAlive } from '../os/in-time.ts';
import type { Reason } from '../smc/reasons.ts';
import { type Command, EXIT_FAILED, EXIT_OK, UsageError } from './command.ts';
import { introduce } from './introduction.ts';
import { localSteps } from './local.ts';
import { type Finding, Ladder } from './steps.ts';
import { printableJson } from './text.ts';

const HELP = `Usage: isthmus doctor [--json]

Tells whether connections of your programs can move to shared memory here, with the settings of this shell. Looks at
what they need step by step, and stops at the first that fails, with the reason and what helps. The last step starts
two programs and has a connection between them move. Starts the fabric if none runs, as a program would.

      --json  { ok, steps: [{ step, result, text, reason }] }; result is ok, note or failed; reason, of what failed, as
              info() has it: { code, name, text, hint }
  -h, --help  this text

  system        Linux, 64 bit, little-endian; version of Node.js
  FFI           the system can be called: koffi can be loaded
  kernel        sockets can be told apart, a pipe wakes a program
  Node.js       the inside of node:net is as expected
  settings      all ISTHMUS_ variables make sense
  policy        it lets connections move
  memory        memory for a buffer can be had and shared
  descriptors   enough are left
  fabric        one runs or can be started, and answers
  trust         it belongs to root, to you, or ISTHMUS_FABRIC names it
  introduction  a connection between two programs moves

Exit code 0 when all is well, 1 when a step fails. isthmus chk looks at the connection to one server.
`;

const OPTIONS = { json: { type: 'boolean' } } as const;

export const doctor: Command = {
  summary: 'tell whether connections can move here, and if not, why and what helps',
  help: HELP,
  options: OPTIONS,
  takes: [],
  async main(args) {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: OPTIONS,
    });
    if (positionals.length > 0)
      throw new UsageError('it takes no arguments; isthmus chk HOST:PORT looks at one server');
    const { json = false } = values;
    const ladder = new Ladder(!json);
    const isWell = await keepingAlive(
      ladder.climb([
        ...localSteps(process.env, () => {}),
        { name: 'introduction', look: () => introduction(process.env) },
      ]),
    );
    if (json) process.stdout.write(`${printableJson({ ok: isWell, steps: ladder.lines })}\n`);
    else if (isWell) ladder.say('Connections of your programs can move: isthmus run COMMAND starts one with Isthmus');
    return isWell ? EXIT_OK : EXIT_FAILED;
  },
};

async function introduction(env: NodeJS.ProcessEnv): Promise<Finding> {
  const outcome = await introduce(env);
  if (!('rows' in outcome)) return { failed: outcome };
  const reason: Reason | undefined = outcome.rows.find(({ mode }) => mode === 'TCP')?.reason;
  return reason === undefined ? 'a connection between two programs moved' : { failed: reason };
}
