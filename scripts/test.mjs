// Runs the tests: node scripts/test.mjs [part of a file name ...]
// Node 20's runner takes no globs, so the list is made here. A test that spins cannot be timed out from inside: the watchdog
// outside ends everything. At the end it says in words what was skipped and why.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const root = new URL('..', import.meta.url).pathname;
process.chdir(root);
const filters = process.argv.slice(2);
const files = ['dist/src', 'dist/bench', 'dist/test']
  .flatMap((folder) =>
    (existsSync(folder) ? readdirSync(folder, { recursive: true }) : []).map((name) => join(folder, name)),
  )
  .filter((file) => file.endsWith('.test.js') && (filters.length === 0 || filters.some((part) => file.includes(part))))
  .sort();
if (files.length === 0) {
  console.error('no test file matches');
  process.exit(1);
}

/** For Node 20 and 22 a whole file is one. */
const TEST_MS = 15 * 60_000;
const WATCHDOG_MS = 30 * 60_000;
const runner = spawn(process.execPath, ['--test', '--test-reporter=spec', `--test-timeout=${TEST_MS}`, ...files], {
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, ISTHMUS_CONFIG: 'none' }, // a policy of this machine is not tested
  detached: true, // a process group of its own, so that nothing of it is left behind
});
const skipped = [];
let tail = '';
runner.stdout.on('data', (chunk) => {
  process.stdout.write(chunk);
  tail += chunk;
  const lines = tail.split('\n');
  tail = lines.pop();
  for (const line of lines) {
    const match = /^\s*﹣ (.*?) \([\d.]+ms\) # (.*)$/.exec(line);
    if (match) skipped.push(`${match[1]}: ${match[2]}`);
  }
});
const endGroup = (signal) => {
  try {
    process.kill(-runner.pid, signal);
  } catch {}
};
const watchdog = setTimeout(() => {
  console.error(`\nwatchdog: the tests did not end within ${WATCHDOG_MS / 60_000} minutes`);
  endGroup('SIGKILL');
}, WATCHDOG_MS);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => endGroup(signal));
runner.on('close', (code, signal) => {
  clearTimeout(watchdog);
  endGroup('SIGKILL');
  const unique = [...new Set(skipped)];
  console.log(
    unique.length === 0 ? '\nnothing was skipped' : `\nskipped (${unique.length}):\n  ${unique.join('\n  ')}`,
  );
  process.exitCode = signal ? 1 : code;
});
