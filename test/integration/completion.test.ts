/** What `isthmus completion` prints, in the shells themselves. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { COMMANDS } from '../../src/cli/commands.ts';
import { CLI, Workplace } from './commands.ts';

let work: Workplace;
before(() => {
  work = new Workplace();
  writeFileSync(join(work.directory, 'a capture.pcap'), '');
});
after(() => work.close());

async function scriptFor(shell: string): Promise<string> {
  const { code, stdout, stderr } = await work.finish(process.execPath, [CLI, 'completion', shell]);
  assert.deepEqual([code, stderr], [0, '']);
  const path = join(work.directory, `isthmus.${shell}`);
  writeFileSync(path, stdout);
  return path;
}

/** Prints a line for each offer. */
const BASH = `
source "$1"
shift
complete -p isthmus >/dev/null || exit
COMP_WORDS=(isthmus "$@") COMP_CWORD=$#
_isthmus
printf '%s\\n' "\${COMPREPLY[@]}"
`;
const FISH = 'source $argv[1]; complete -C $argv[2] | string replace -r "\\t.*" ""';
/** On a terminal, until an offer is seen. */
const ZSH = `
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1= COLUMNS=200; autoload -U compinit; compinit -u -D; source $1; print REA''DY"
zpty -r -m z seen '*READY*'
zpty -w -n z "$2"$'\\t\\t'
until [[ $all == *"$3"* ]]; do if zpty -rt z chunk; then all+=$chunk; else sleep 0.05; fi; done
print -r -- $all
`;

const names = Object.keys(COMMANDS);
const CASES: readonly (readonly [words: readonly string[], offers: readonly string[]])[] = [
  [[''], names],
  [['link'], ['linkgroup']],
  [
    ['run', '--policy', ''],
    ['eager', 'lazy', 'off'],
  ],
  [['run', '--access', 'm'], ['mapped']],
  [
    ['stats', '--p'],
    ['--pid', '--prometheus'],
  ],
  [
    ['stats', ''],
    ['json', 'show'],
  ],
  [
    ['ueid', ''],
    ['add', 'del', 'flush', 'show'],
  ],
  [['completion', 'z'], ['zsh']],
];

const missing = (shell: string) => spawnSync(shell, ['--version']).error !== undefined && `${shell} is missing`;

test('bash completes commands, options, values, words, files, and the command of run', {
  skip: missing('bash'),
}, async () => {
  const script = await scriptFor('bash');
  const offers = async (...words: string[]) => {
    const options = { cwd: work.directory };
    const { stdout, stderr } = await work.finish('bash', ['--norc', '-c', BASH, '-', script, ...words], options);
    assert.equal(stderr, '');
    return stdout.split('\n').filter((line) => line !== '');
  };
  for (const [words, expected] of CASES) {
    const own = (await offers(...words)).filter((one) => words[0] !== '' || !one.startsWith('-'));
    assert.deepEqual(own.sort(), [...expected].sort(), words.join(' '));
  }
  for (const [name, load] of Object.entries(COMMANDS)) {
    const expected = ['help', ...Object.keys((await load()).options)].map((option) => `--${option}`);
    assert.deepEqual((await offers(name, '--')).sort(), expected.sort(), name);
  }
  assert.deepEqual(await offers('clc', 'a c'), ['a capture.pcap']);
  assert.ok((await offers('run', '--policy', 'lazy', 'nod')).includes('node'));
  assert.ok((await offers('run', '-v', 'bas')).includes('bash'));
  assert.deepEqual(await offers('run', 'node', 'a c'), ['a capture.pcap']);
  assert.deepEqual(await offers('run', 'node', '--pol'), []);
});

test('fish completes commands, options, values and words', { skip: missing('fish') }, async () => {
  const script = await scriptFor('fish');
  for (const [words, expected] of CASES) {
    const { stdout, stderr } = await work.finish('fish', [
      '--no-config',
      '-c',
      FISH,
      script,
      ['isthmus', ...words].join(' '),
    ]);
    assert.equal(stderr, '');
    assert.deepEqual(stdout.trim().split('\n').sort(), [...expected].sort(), words.join(' '));
  }
});

test('zsh completes commands, options, values and words', { skip: missing('zsh') }, async () => {
  const script = await scriptFor('zsh');
  for (const [words, expected] of CASES.filter(([, offers]) => offers.length > 2)) {
    const line = ['isthmus', ...words].join(' ');
    const last = [...expected].sort().at(-1) ?? '';
    const { stdout } = await work.finish('zsh', ['-f', '-c', ZSH, 'zsh', script, line, last]);
    for (const offer of expected) assert.ok(stdout.includes(offer), `${line}: ${offer} is not in ${stdout}`);
  }
});
