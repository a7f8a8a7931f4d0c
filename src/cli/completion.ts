/** `isthmus completion`: a script for a shell, made from the options that the commands themselves parse. */
import { parseArgs } from 'node:util';
import { type Command, EXIT_OK, type Option, UsageError } from './command.ts';
import { COMMANDS } from './commands.ts';

const HELP = `Usage: isthmus completion bash | zsh | fish

Prints a script that makes the shell complete commands of isthmus, their options and the values of these.

  bash    in ~/.bashrc:                   source <(isthmus completion bash)
  zsh     in ~/.zshrc, after compinit:    source <(isthmus completion zsh)
  fish    once:    isthmus completion fish > ~/.config/fish/completions/isthmus.fish

  -h, --help  this text
`;

const OPTIONS = {} as const;
type Commands = readonly (readonly [name: string, command: Command])[];

const SHELLS: Readonly<Record<string, (commands: Commands) => string>> = { bash, zsh, fish };

export const completion: Command = {
  summary: 'print what makes bash, zsh or fish complete commands and options',
  help: HELP,
  options: OPTIONS,
  takes: Object.keys(SHELLS),
  async main(args) {
    const { positionals } = parseArgs({ args: [...args], allowPositionals: true, options: OPTIONS });
    const [shell = '', ...more] = positionals;
    const make = Object.hasOwn(SHELLS, shell) ? SHELLS[shell] : undefined;
    if (make === undefined || more.length > 0) throw new UsageError('one of bash, zsh, fish');
    const names = Object.entries(COMMANDS);
    process.stdout.write(make(await Promise.all(names.map(async ([name, load]) => [name, await load()] as const))));
    return EXIT_OK;
  },
};

const HELP_OPTION: Option = { type: 'boolean', short: 'h' };

function optionsOf({ options }: Command): readonly (readonly [name: string, option: Option])[] {
  return [...Object.entries(options), ['help', HELP_OPTION]];
}

/** As they are typed: `--pid`, `-p`. */
function spellings([name, { short }]: readonly [string, Option]): string[] {
  return short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`];
}

/** Those that are followed by a value. */
const valued = (command: Command) => optionsOf(command).filter(([, { type }]) => type === 'string');

// Names, words and choices are ours, of letters, digits and '-'; summaries may have an apostrophe.
const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

function bash(commands: Commands): string {
  const values = commands.flatMap(([name, command]) =>
    valued(command).map((option) => {
      const patterns = spellings(option).map((one) => `'${name} ${one}'`);
      return `    ${patterns.join(' | ')}) words='${option[1].choices?.join(' ') ?? ''}' ;;`;
    }),
  );
  const words = commands.map(([name, command]) => {
    const options = optionsOf(command).flatMap(spellings).join(' ');
    const taken = Array.isArray(command.takes) ? command.takes.join(' ') : '';
    return `        ${name}) options='${options}' words='${taken}' ;;`;
  });
  const takeFiles = commands.filter(([, { takes }]) => takes === 'files').map(([name]) => name);
  const takeCommand = commands.filter(([, { takes }]) => takes === 'command');
  return `# bash completion for isthmus; made by: isthmus completion bash
_isthmus_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$1")
}
_isthmus() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} command=\${COMP_WORDS[1]} options= words= i
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${commands.map(([name]) => name).join(' ')} --help --version' -- "$word"))
    return
  fi
${takeCommand.map(([name, command]) => bashCommand(name, command)).join('')}  case "$command $before" in
${values.join('\n')}
    *)
      case $command in
${words.join('\n')}
      esac
      case $word in
        -*) words=$options ;;
        *) case $command in ${takeFiles.join(' | ')}) _isthmus_files "$word" ;; esac ;;
      esac ;;
  esac
  COMPREPLY+=($(compgen -W "$words" -- "$word"))
}
complete -F _isthmus isthmus
`;
}

/** What stands behind the options is a command line of its own. */
function bashCommand(name: string, command: Command): string {
  return `  if [ "$command" = ${name} ]; then
    for ((i = 2; i < COMP_CWORD; i++)); do
      case \${COMP_WORDS[i]} in
        ${valued(command).flatMap(spellings).join(' | ')}) ((i++)) ;;
        --) ((i++)); break ;;
        -*) ;;
        *) break ;;
      esac
    done
    # An option, or its value, is completed below.
    if [ "$i" -lt "$COMP_CWORD" ] || { [ "$i" -eq "$COMP_CWORD" ] && [ "\${word#-}" = "$word" ]; }; then
      if declare -F _comp_command_offset >/dev/null; then _comp_command_offset "$i"
      elif declare -F _command_offset >/dev/null; then _command_offset "$i"
      elif [ "$i" -eq "$COMP_CWORD" ]; then COMPREPLY=($(compgen -c -- "$word"))
      else _isthmus_files "$word"
      fi
      return
    fi
  fi
`;
}

function zsh(commands: Commands): string {
  const cases = commands.map(([name, command]) => {
    const options = optionsOf(command).flatMap((option) => {
      const { type, choices } = option[1];
      const value = type === 'boolean' ? '' : choices === undefined ? ': :' : `: :(${choices.join(' ')})`;
      return spellings(option).map((one) => quoted(`${one}${value}`));
    });
    const { takes } = command;
    const rest = takes === 'command' ? '*::command:_normal' : takes === 'files' ? '*:file:_files' : wordsOf(takes);
    return `    ${name}) _arguments -s ${[...options, ...(rest === '' ? [] : [quoted(rest)])].join(' ')} ;;`;
  });
  const described = commands.map(([name, { summary }]) => quoted(`${name}:${summary.replaceAll(':', '\\:')}`));
  return `#compdef isthmus
# zsh completion for isthmus; made by: isthmus completion zsh
_isthmus() {
  if (( CURRENT == 2 )); then
    local -a commands
    commands=(${described.join(' ')})
    _describe command commands
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
${cases.join('\n')}
  esac
}
if [ "$funcstack[1]" = _isthmus ]; then _isthmus "$@"; else compdef _isthmus isthmus; fi
`;
}

const wordsOf = (words: readonly string[]) => (words.length === 0 ? '' : `*: :(${words.join(' ')})`);

function fish(commands: Commands): string {
  const lines = commands.flatMap(([name, command]) => {
    const when = `-n '__fish_seen_subcommand_from ${name}'`;
    const { takes } = command;
    const options = optionsOf(command).map(([long, { short, type, choices }]) => {
      const value = type === 'boolean' ? '' : ' -x';
      const offered = choices === undefined ? '' : ` -a '${choices.join(' ')}'`;
      return `complete -c isthmus ${when} -l ${long}${short === undefined ? '' : ` -s ${short}`}${value}${offered}`;
    });
    const words =
      takes === 'command'
        ? ` -a '(__fish_complete_subcommand --fcs-skip=2)'`
        : takes === 'files'
          ? ' -F'
          : ` -a '${takes.join(' ')}'`;
    return [
      `complete -c isthmus -n __fish_use_subcommand -a ${name} -d ${quoted(command.summary)}`,
      ...options,
      ...(takes.length === 0 ? [] : [`complete -c isthmus ${when}${words}`]),
    ];
  });
  return `# fish completion for isthmus; made by: isthmus completion fish
complete -c isthmus -f
${lines.join('\n')}
`;
}
