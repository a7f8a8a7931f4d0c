import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import { DEFAULT_IDLE_MS } from '../../src/fabric/run.ts';
import { DEFAULT_POLICY, type Policy } from '../../src/net/policy.ts';
import { REASONS } from '../../src/smc/reasons.ts';
import { ROOT } from '../integration/commands.ts';

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');

function filesBelow(folder: string, extension: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(extension))
    .map((name) => join(folder, name));
}

const DOCUMENTS = [
  ...readdirSync(ROOT).filter((name) => name.endsWith('.md')),
  ...(existsSync(join(ROOT, 'bench/RESULTS.md')) ? ['bench/RESULTS.md'] : []),
  ...['docs', 'src', 'test'].flatMap((folder) => filesBelow(folder, '.md')),
];

test('what is generated is current', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, 'scripts/docs.mjs'), '--check'], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, `${stdout}${stderr}`);
});

/** As GitHub makes the anchor of a heading. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-');
}

function withoutCode(text: string): string {
  return text.replace(/^```[\s\S]*?^```/gm, '').replace(/`[^`\n]*`/g, '');
}

for (const document of DOCUMENTS) {
  test(`links of ${document} lead somewhere`, () => {
    for (const [, target = ''] of withoutCode(read(document)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path = '', anchor] = target.split('#');
      const file = path === '' ? document : relative(ROOT, resolve(ROOT, dirname(document), path));
      assert.ok(existsSync(join(ROOT, file)), `${target}: there is no ${file}`);
      if (anchor === undefined) continue;
      const headings = [...read(file).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchorOf(heading));
      assert.ok(headings.includes(anchor), `${target}: ${file} has no such heading`);
    }
  });
}

test('every file that a document names exists', () => {
  const missing = DOCUMENTS.flatMap((document) =>
    [...read(document).matchAll(/`((?:src|test|bench|scripts|examples|docs)\/[\w./-]+)`/g)]
      .map(([, path = '']) => path)
      .filter((path) => !path.includes('NAME') && !existsSync(join(ROOT, path)))
      .map((path) => `${document}: ${path}`),
  );
  assert.deepEqual(missing, []);
});

// --- Settings ---

const settings = () => {
  const rows = read('docs/settings.md').matchAll(/^\| `(ISTHMUS_\w+)` \| (.*?) \|/gm);
  return new Map([...rows].map(([, name = '', value = '']) => [name, value.replaceAll('`', '')]));
};

test('docs/settings.md has every variable that the code reads, and no other', () => {
  const named = filesBelow('src', '.ts')
    .filter((file) => !file.endsWith('.test.ts'))
    .flatMap((file) => [...read(file).matchAll(/(?<!\w)ISTHMUS_[A-Z_]+\b/g)].map(([name]) => name));
  assert.deepEqual([...settings().keys()].sort(), [...new Set(named)].sort());
});

test('docs/settings.md has the defaults of the policy', () => {
  const variables: Record<keyof Policy, string> = {
    mode: 'ISTHMUS_POLICY',
    lazyBytes: 'ISTHMUS_LAZY_BYTES',
    lazyMs: 'ISTHMUS_LAZY_MS',
    maxHandshakes: 'ISTHMUS_MAX_HANDSHAKES',
    local: 'ISTHMUS_LOCAL',
    access: 'ISTHMUS_ACCESS',
    dmbBytes: 'ISTHMUS_DMB_BYTES',
    maxDmbBytes: 'ISTHMUS_MAX_DMB_BYTES',
    busyPollUs: 'ISTHMUS_BUSY_POLL_US',
    lingerMs: 'ISTHMUS_LINGER_MS',
    inBand: 'ISTHMUS_IN_BAND',
    layout: 'ISTHMUS_LAYOUT',
  };
  for (const [name, variable] of Object.entries(variables)) {
    assert.equal(settings().get(variable), String(DEFAULT_POLICY[name as keyof Policy] ?? 'not set'), variable);
  }
});

test('docs/settings.md has the default of the fabric', () => {
  assert.equal(settings().get('ISTHMUS_FABRIC_IDLE_MS'), String(DEFAULT_IDLE_MS));
});

// --- Errors and reasons ---

const sources = () => filesBelow('src', '.ts').filter((file) => !file.includes('.test.') && !file.includes('testing/'));

test('docs/errors.md has every code of an error of ours, and no other', () => {
  const rows = [...read('docs/errors.md').matchAll(/^\| `(ERR_ISTHMUS_\w+)` \| (.*?) \| (.+?) \| (.+?) \|$/gm)];
  const named = sources().flatMap((file) => read(file).match(/\bERR_ISTHMUS_[A-Z_]+\b(?!_)/g) ?? []);
  assert.deepEqual(rows.map(([, code]) => code).sort(), [...new Set(named)].sort());
});

test('docs/errors.md says whose fault an error is', () => {
  const rows = [...read('docs/errors.md').matchAll(/^\| `(ERR_ISTHMUS_\w+)` \| (.*?) \|/gm)];
  const made = sources().flatMap((file) => [
    ...read(file).matchAll(/\(\s*'(ERR_ISTHMUS_\w+)',\s*'(local|peer|system)'/g),
  ]);
  for (const [, code, faults = ''] of rows) {
    const found = made.filter(([, one]) => one === code).map(([, , fault = '']) => `\`${fault}\``);
    assert.deepEqual(faults === '-' ? [] : faults.split(', ').sort(), [...new Set(found)].sort(), code);
  }
});

test('every reason is used', () => {
  const code = sources().map(read).join('');
  const unused = Object.keys(REASONS).filter((name) => !new RegExp(`\\bREASONS\\.${name}\\b`).test(code));
  assert.deepEqual(unused, []);
});

test('what the package needs to explain itself is in it', () => {
  const { files, scripts } = JSON.parse(read('package.json')) as {
    files: string[];
    scripts: Record<string, string>;
  };
  const inPackage = (path: string) => files.some((entry) => path === entry || path.startsWith(`${entry}/`));
  for (const document of [
    'ARCHITECTURE.md',
    'SECURITY.md',
    'CHANGELOG.md',
    'docs/settings.md',
    'docs/errors.md',
    'examples/pattern.mjs',
  ])
    assert.ok(inPackage(document), document);
  for (const document of DOCUMENTS) {
    for (const [, script = ''] of read(document).matchAll(/npm run (\w+)/g))
      assert.ok(script in scripts, `${document}: ${script}`);
  }
});
