/**
 * `isthmus`: one command with subcommands. Exit codes: 0 done; 1 failed, the reason stands on stderr; 2 called wrongly.
 * `run` ends as its command does.
 */
import { EXIT_USAGE, fail, isUsageError, version } from './command.ts';
import { COMMANDS, overview } from './commands.ts';

// Whoever reads has seen enough (`isthmus ss | head -1`).
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? undefined : fail(error.message));
});

const words = process.argv.slice(2);
// `isthmus help run` asks what `isthmus run --help` asks.
const [name, ...args] = words[0] === 'help' && words[1] !== undefined ? [words[1], '--help'] : words;
if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
  process.stdout.write(await overview());
} else if (name === '--version' || name === '-V') {
  process.stdout.write(`${version()}\n`);
} else {
  const load = COMMANDS[name];
  if (load === undefined) {
    process.stderr.write(`isthmus: there is no command '${name}'; isthmus --help lists them\n`);
    process.exitCode = EXIT_USAGE;
  } else {
    const command = await load();
    const own = command.own?.(args) ?? args;
    if (own.includes('--help') || own.includes('-h')) process.stdout.write(command.help);
    else process.exitCode = await command.main(args).catch((error) => usage(name, error));
  }
}

function usage(command: string, error: unknown): number {
  if (!isUsageError(error)) throw error;
  const [text] = error.message.split(/\n|\. To specify/); // parseArgs goes on with advice that fits few commands
  return fail(`${text}; isthmus ${command} --help tells what it takes`, EXIT_USAGE);
}
