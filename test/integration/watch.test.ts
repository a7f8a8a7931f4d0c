/** `isthmus ss --watch`: in place on a terminal, block by block elsewhere, and how it ends. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { CLI, Workplace } from './commands.ts';

let work: Workplace;
before(() => {
  work = new Workplace();
});
after(() => work.close());

const ESC = '\u001b';
const ofTerminal = (pattern: string) => new RegExp(pattern.replaceAll('ESC', ESC));
const WATCH = [CLI, 'ss', '--watch', '0.1'];

test('off a terminal there comes a block each time, without escapes, until Ctrl-C', async () => {
  const watching = work.start(process.execPath, WATCH);
  await watching.says(/connections: \d+.*\n\nState (?:.*\n)+\n.*connections: \d+.*\n\nState .* Shm B\/s +TCP B\/s\n/);
  watching.child.kill('SIGINT');
  const { code, stdout, stderr } = await watching.finished;
  assert.deepEqual([code, stderr], [0, '']);
  assert.ok(!stdout.includes(ESC));
});

test('another signal is told as a shell tells it', async () => {
  const watching = work.start(process.execPath, WATCH);
  await watching.says(/State/);
  watching.child.kill('SIGTERM');
  assert.equal((await watching.finished).code, 143);
});

test('it ends when nobody reads any more', async () => {
  const command = `"$@" | head -n 1; exit "\${PIPESTATUS[0]}"`;
  const { code, stdout, stderr } = await work.finish('bash', ['-c', command, '-', process.execPath, ...WATCH]);
  assert.deepEqual([code, stderr], [0, '']);
  assert.match(stdout, /^.*connections: .*\n$/);
});

const noTerminal = spawnSync('script', ['--version']).error && 'script (bsdutils) is missing';

test('on a terminal it has a screen of its own, and gives it back', { skip: noTerminal }, async () => {
  // A shell that stays would get the Ctrl-C, too, and dash ends by it whatever its command says.
  const watching = work.start('script', ['-qec', `exec ${[process.execPath, ...WATCH].join(' ')}`, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  await watching.says(
    ofTerminal('ESC\\[\\?1049hESC\\[\\?25lESC\\[H.*connections: \\d+[^]*ESC\\[JESC\\[H.*connections: '),
  );
  watching.child.stdin?.write('\u0003');
  const { code, stdout } = await watching.finished;
  assert.equal(code, 0);
  assert.match(stdout, ofTerminal('ESC\\[\\?25hESC\\[\\?1049l$'));
});
