// Man pages from what `isthmus --help` and `isthmus COMMAND --help` say; the build writes them to dist/man.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';

const root = new URL('../', import.meta.url);

/** isthmus.1 and isthmus-COMMAND.1, of the built commands. */
export async function writeManPages(folder) {
  const { COMMANDS, overview } = await import(new URL('dist/src/cli/commands.js', root).href);
  const { version, description } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'));
  const names = Object.keys(COMMANDS);
  const seeAlso = (own) =>
    ['isthmus', ...names.map((name) => `isthmus-${name}`)]
      .filter((name) => name !== own)
      .map((name, i, { length }) => `.BR ${roff(name)} (1)${i < length - 1 ? ' ,' : ''}`);
  mkdirSync(folder, { recursive: true });
  const write = (name, summary, help) => {
    const title = `.TH ${roff(name.toUpperCase())} 1 "" "isthmus ${version}" "User Commands"`;
    const lines = [title, '.SH NAME', `${roff(name)} \\- ${roff(summary)}`, ...body(help), '.SH SEE ALSO'];
    writeFileSync(`${folder}/${name}.1`, `${[...lines, ...seeAlso(name)].join('\n')}\n`);
  };
  write('isthmus', description, await overview());
  for (const name of names) {
    const { summary, help } = await COMMANDS[name]();
    write(`isthmus-${name}`, summary, help);
  }
}

/** Text for roff: no line of it is a request, and a minus is one that can be copied. */
function roff(text) {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('`', '\\(ga')
    .replaceAll('~', '\\(ti')
    .replaceAll('^', '\\(ha')
    .replace(/^\./, '\\&.');
}

/** The first block is the usage; then come paragraphs, and blocks of indented lines. */
function body(help) {
  const [usage, ...blocks] = help.trim().split(/\n{2,}/);
  const synopsis = usage.split('\n').map((line) => roff(line.replace(/^(Usage:|\s+)\s*/, '')));
  const [first, ...rest] = blocks.flatMap(formatted);
  const description = first === '.PP' ? rest : [first, ...rest];
  return ['.SH SYNOPSIS', '.nf', ...synopsis, '.fi', '.SH DESCRIPTION', ...description];
}

function formatted(block) {
  const lines = block.split('\n');
  if (!lines.every((line) => line.startsWith('  '))) return ['.PP', ...lines.map(roff)];
  return isList(lines) ? list(lines) : ['.PP', '.nf', ...lines.map(roff), '.fi'];
}

/** Continuations are indented further than whatever begins an entry. */
const BEGINS = /^ {2,6}(\S.*?)(?: {2,}(\S.*))?$/;

function isList(lines) {
  return lines.some((line) => BEGINS.exec(line)?.[2] !== undefined);
}

function list(lines) {
  return lines.flatMap((line) => {
    const entry = BEGINS.exec(line);
    if (entry === null) return [roff(line.trim())];
    const [, term, text] = entry;
    return ['.TP', `.B ${roff(term)}`, ...(text === undefined ? [] : [roff(text)])];
  });
}
