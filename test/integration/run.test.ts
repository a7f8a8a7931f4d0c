/** `isthmus run` as its users see it: by replacing itself, and by staying where a process cannot be replaced. */
import assert from 'node:assert/strict';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { readTables } from '../../src/cli/rows.ts';
import { eventually } from '../../src/testing/index.ts';
import { CLI, cannotMove, copyWithoutKoffi, type Finished, ROOT, Workplace } from './commands.ts';

let work: Workplace;
/** By how it works. */
const clis: Record<string, string> = {};

before(() => {
  work = new Workplace();
  clis.replacing = CLI;
  clis.staying = copyWithoutKoffi(join(work.directory, 'without koffi'));
});
after(() => work.close());

const skip = cannotMove();
const { execPath: NODE } = process;
const RUNS = [
  ['replacing', skip],
  ['staying', false],
] as const;

function file(name: string, text: string, mode = 0o644): string {
  const path = join(work.directory, name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

/** What is said once where koffi is missing. */
const WARNING = /^isthmus: connections will stay TCP: the optional package koffi cannot be loaded: .*\r?\n/m;

for (const [how, skip] of RUNS) {
  const withoutWarning = (text: string): string => {
    assert.equal(WARNING.test(text), how === 'staying', text);
    return text.replace(WARNING, '');
  };
  const run = async (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Finished> => {
    const finished = await work.finish(NODE, [clis[how] ?? '', 'run', ...args], { env: { ...work.env, ...env } });
    return { ...finished, stderr: withoutWarning(finished.stderr) };
  };
  const said = async (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> => {
    const { code, stdout, stderr } = await run(args, env);
    assert.deepEqual([code, stderr], [0, '']);
    return stdout;
  };

  test(`${how}: the exit code is the command's`, { skip }, async () => {
    for (const code of [0, 1, 77, 255])
      assert.deepEqual(await run([NODE, '-e', `process.exit(${code})`]), {
        code,
        signal: null,
        stdout: '',
        stderr: '',
      });
  });

  test(`${how}: a command that dies of signal n is 128 + n to a shell`, { skip }, async () => {
    for (const name of ['SIGTERM', 'SIGKILL', 'SIGPIPE', 'SIGSEGV'] as const) {
      const script = `"${NODE}" "${clis[how]}" run sh -c 'kill -${name.slice(3)} $$' 2>/dev/null; echo "code $?"`;
      const { stdout } = await work.finish('sh', ['-c', script]);
      assert.equal(stdout, `code ${128 + constants.signals[name]}\n`, name);
    }
  });

  test(`${how}: signals reach the command`, { skip }, async () => {
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const) {
      const program = `process.on('${name}', () => { console.log('got it'); process.exit(7); }); console.log('ready'); setInterval(() => {}, 1000);`;
      const started = work.start(NODE, [clis[how] ?? '', 'run', NODE, '-e', program]);
      await started.says(/ready/);
      process.kill(started.pid, name);
      const { code, stdout } = await started.finished;
      assert.deepEqual([code, stdout], [7, 'ready\ngot it\n'], name);
    }
  });

  test(`${how}: what cannot be run is 127 or 126, with the reason`, { skip }, async () => {
    const plain = file(`plain-${how}`, 'echo never');
    for (const [command, code, text] of [
      ['no-such-command', 127, /no-such-command/],
      [join(work.directory, 'nothing/here'), 127, /nothing\/here/],
      [plain, 126, /EACCES/],
      [work.directory, 126, /EACCES/],
    ] as const) {
      const ended = await run([command]);
      assert.deepEqual([ended.code, ended.stdout], [code, ''], command);
      assert.match(ended.stderr, /^isthmus: [^\n]+\n$/);
      assert.match(ended.stderr, text);
    }
  });

  test(`${how}: NODE_OPTIONS is kept and appended to, once`, { skip }, async () => {
    mkdirSync(join(work.directory, `a "quoted" folder ${how}`));
    const preload = file(`a "quoted" folder ${how}/pre load.cjs`, 'globalThis.preloaded = true;');
    const before = `--no-warnings --require ${JSON.stringify(preload)}`;
    const program = 'console.log(JSON.stringify([globalThis.preloaded, process.env.NODE_OPTIONS]))';
    const [preloaded, options] = JSON.parse(await said([NODE, '-e', program], { NODE_OPTIONS: before })) as [
      boolean,
      string,
    ];
    assert.ok(preloaded && options.startsWith(`${before} --require=`), options);
    // Once more inside of itself.
    const again = [NODE, clis[how] ?? '', 'run', NODE, '-p', 'process.env.NODE_OPTIONS'];
    assert.equal(await said(again, { NODE_OPTIONS: before }), `${options}\n`);
  });

  test(`${how}: the rest of the environment and the open descriptors are as without it`, { skip }, async () => {
    const env = { ...work.env, WITH_LINES: 'a\nb', EMPTY: '' };
    const lines = (text: string) =>
      text
        .split('\0')
        .filter((line) => !/^(NODE_OPTIONS|_|SHLVL)=/.test(line))
        .sort();
    const direct = await work.finish('env', ['-0'], { env });
    assert.deepEqual(lines(await said(['env', '-0'], env)), lines(direct.stdout));
    const list = ['sh', '-c', 'ls /proc/$$/fd'] as const;
    assert.equal(await said(list), (await work.finish(list[0], list.slice(1))).stdout);
  });

  test(`${how}: arguments are the command's own, whatever they look like`, { skip }, async () => {
    const program = 'console.log(JSON.stringify(process.argv.slice(1)))';
    const args = ['-v', '--help', '--policy', 'x', '', 'a b', '"$HOME"', '--', 'ä'];
    assert.deepEqual(JSON.parse(await said([NODE, '-e', program, '--', ...args])), args);
    assert.equal(await said(['--', NODE, '-p', '1 + 1']), '2\n');
    assert.equal((await run(['--', '--no-such-command'])).code, 127);
    assert.equal(
      await said(['--policy=eager', '--access', 'store', 'sh', '-c', 'echo $ISTHMUS_POLICY $ISTHMUS_ACCESS']),
      'eager store\n',
    );
  });

  test(`${how}: stdin, and more descriptors, pass through`, { skip }, async () => {
    const program = `process.stdin.pipe(process.stdout); require('node:fs').writeSync(3, 'on three');`;
    const stdio =
      how === 'replacing' ? (['pipe', 'pipe', 'pipe', 'pipe'] as const) : (['pipe', 'pipe', 'pipe'] as const);
    const started = work.start(
      NODE,
      [clis[how] ?? '', 'run', ...(stdio.length === 4 ? [NODE, '-e', program] : ['cat'])],
      {
        stdio: [...stdio],
      },
    );
    let three = '';
    started.child.stdio[3]?.on('data', (text) => (three += text));
    started.child.stdin?.end('through stdin');
    const { code, stdout } = await started.finished;
    assert.deepEqual([code, stdout, three], [0, 'through stdin', stdio.length === 4 ? 'on three' : '']);
  });

  test(`${how}: messages of an IPC channel pass through, the first ones too`, { skip }, async () => {
    const program = `process.on('message', (message) => message === 'end' ? process.disconnect() : process.send({ back: message }));`;
    for (const serialization of ['json', 'advanced'] as const) {
      const started = work.start(NODE, [clis[how] ?? '', 'run', NODE, '-e', program], {
        stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
        serialization,
      });
      const messages: unknown[] = [];
      started.child.on('message', (message) => messages.push(message));
      const sent = Array.from({ length: 20 }, (_, i) => ({
        i: serialization === 'json' ? i : BigInt(i),
        text: 'x'.repeat(i * 100),
      }));
      for (const message of sent) started.child.send(message);
      await eventually('all came back', () => messages.length === sent.length);
      assert.deepEqual(
        messages,
        sent.map((back) => ({ back })),
      );
      started.child.send('end');
      const { code, stderr } = await started.finished;
      assert.deepEqual([code, withoutWarning(stderr)], [0, '']);
    }
  });

  test(`${how}: a terminal passes through`, {
    skip: skip || (!existsSync('/usr/bin/script') && 'there is no script(1) of util-linux'),
  }, async () => {
    const inner = `"${NODE}" "${clis[how]}" run "${NODE}" -p "[0, 1, 2].map((fd) => require('node:tty').isatty(fd)).join()"`;
    const { code, stdout } = await work.finish('/usr/bin/script', ['-qec', inner, '/dev/null']);
    assert.deepEqual([code, withoutWarning(stdout).trim()], [0, 'true,true,true']);
  });

  test(`${how}: -v says one line on stderr`, { skip }, async () => {
    for (const flag of ['-v', '--verbose']) {
      const { code, stdout, stderr } = await run([flag, 'echo', 'hello']);
      assert.deepEqual([code, stdout], [0, 'hello\n']);
      assert.match(stderr, /^isthmus: running echo hello[^\n]*\n$/);
    }
  });
}

test('the command has the process id: killed with SIGKILL, nothing is left', { skip }, async () => {
  const started = work.start(NODE, [
    CLI,
    'run',
    NODE,
    '-e',
    `console.log('pid', process.pid); setInterval(() => {}, 1000)`,
  ]);
  assert.equal(Number((await started.says(/pid (\d+)/))[1]), started.pid);
  process.kill(started.pid, 'SIGKILL');
  assert.equal((await started.finished).signal, 'SIGKILL');
  assert.deepEqual(work.processes(), []);
});

/** Connects to itself and goes on. */
const ITSELF = `
  const net = require('node:net');
  const server = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1', () => {
    const socket = net.connect(server.address().port, '127.0.0.1').resume();
    setInterval(() => socket.write('x'), 5);
    console.log('pid', process.pid);
  });
`;

async function connectionsMoveIn(args: readonly string[]): Promise<void> {
  const started = work.start(NODE, args);
  const pid = (await started.says(/pid (\d+)/))[1] ?? '';
  await eventually('moved', () => readTables(pid).rows.filter(({ mode }) => mode === 'SMC-D').length === 2);
  process.kill(-started.pid, 'SIGKILL');
  await started.finished;
}

test('children of children are reached', { skip }, async () => {
  const itself = file('itself.cjs', ITSELF);
  const parent = `require('node:child_process').spawn('sh', ['-c', '"$0" "$1"; exit', process.execPath, process.argv[1]], { stdio: 'inherit' });`;
  await connectionsMoveIn([CLI, 'run', 'sh', '-c', '"$0" -e "$1" "$2"; exit', NODE, parent, itself]);
});

test('a package at a path with blanks, quotes and percent signs works', { skip }, async () => {
  const copy = join(work.directory, `it's 100% "here"`);
  const cli = copyWithoutKoffi(copy);
  for (const name of ['koffi', '@koromix']) {
    const from = join(ROOT, 'node_modules', name);
    if (existsSync(from)) cpSync(from, join(copy, 'node_modules', name), { recursive: true });
  }
  await connectionsMoveIn([cli, 'run', NODE, file('blanks.cjs', ITSELF)]);
});

test('called wrongly it says how to call it', async () => {
  for (const args of [[], ['-v'], ['--nonsense', 'true'], ['--policy', 'sometimes', 'true'], ['--policy']]) {
    const { code, stdout, stderr } = await work.finish(NODE, [CLI, 'run', ...args]);
    assert.deepEqual([code, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^isthmus: .+; isthmus run --help tells what it takes\n$/);
  }
  for (const flag of ['-h', '--help']) {
    const { code, stdout, stderr } = await work.finish(NODE, [CLI, 'run', flag]);
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, /^Usage: isthmus run/);
  }
});

test('a file that is no command is said to be one for Node.js', async () => {
  const program = file('server.js', '');
  const { code, stderr } = await work.finish(NODE, [CLI, 'run', program, '--port', '80']);
  assert.equal(code, 126);
  assert.equal(stderr, `isthmus: ${program}: EACCES; isthmus run node ${program} --port 80 runs it\n`);
});

test('isthmus ss says why it shows nothing', async () => {
  for (const [args, exitCode, says] of [
    [[], 0, /no program of yours has a connection|none of|no connection to show of programs with Isthmus/],
    [['--pid', '2147483647'], 1, /there is no process 2147483647\n$/],
    [['--pid', String(process.pid)], 0, /process \d+ has no connection that Isthmus has looked at/],
  ] as const) {
    const { code, stdout, stderr } = await work.finish(NODE, [CLI, 'ss', '--smcd', ...args]);
    assert.equal(code, exitCode);
    if (stdout.split('\n').length === 2) assert.match(stderr, says);
  }
});

test('isthmus ss says why programs with Isthmus show no connection', { skip }, async () => {
  const idle = `console.log('ready', process.pid); setInterval(() => {}, 1000);`;
  for (const [cli, env, says] of [
    [CLI, { ISTHMUS_POLICY: 'off' }, 'its policy is off'],
    [clis.staying ?? '', {}, 'koffi is missing: npm install koffi'],
    [CLI, {}, 'none of its connections has been looked at yet, or could move'],
  ] as const) {
    const started = work.start(NODE, [cli, 'run', NODE, '-e', idle], { env: { ...work.env, ...env } });
    const [, pid = ''] = await started.says(/ready (\d+)/);
    const { code, stderr } = await work.finish(NODE, [CLI, 'ss', '--pid', pid]);
    assert.equal(code, 0);
    assert.match(stderr, new RegExp(`process ${pid} \\(.*\\): ${says}\\n`));
    process.kill(-started.pid, 'SIGKILL');
    await started.finished;
  }
});

test('isthmus help COMMAND is isthmus COMMAND --help', async () => {
  const [help, other] = await Promise.all(
    [
      ['help', 'run'],
      ['run', '--help'],
    ].map((args) => work.finish(NODE, [CLI, ...args])),
  );
  assert.deepEqual(help, other);
  assert.match(help?.stdout ?? '', /^Usage: isthmus run/);
});

test('a reader that has seen enough ends a command quietly', async () => {
  for (const args of ['--help', 'ss', 'ss --json', 'fabric status', 'run --help']) {
    const { stderr } = await work.finish('sh', ['-c', `"${NODE}" "${CLI}" ${args} | true`]);
    assert.doesNotMatch(stderr, /EPIPE|Error/, args);
  }
});

test('isthmus fabric takes no file away, and says what is missing', async () => {
  const notes = file('notes.txt', 'mine');
  const missing = join(work.directory, 'missing');
  for (const [args, code, says] of [
    [['--socket', notes], 1, `${notes} exists and is not a socket`],
    [['--socket', join(missing, 'fabric.sock')], 1, `there is no directory ${missing}`],
    [['status', '--socket', notes], 2, 'ISTHMUS_FABRIC=PATH'],
    [['status', 'more'], 2, "no 'isthmus fabric status more'"],
    [['--json'], 2, 'isthmus fabric status'],
  ] as const) {
    const finished = await work.finish(NODE, [CLI, 'fabric', ...args]);
    assert.equal(finished.code, code, args.join(' '));
    assert.ok(finished.stderr.includes(says), finished.stderr);
  }
  assert.equal(readFileSync(notes, 'utf8'), 'mine');
});
