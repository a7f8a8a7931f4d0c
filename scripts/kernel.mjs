// Builds the kernel that test/kernel talks to: Debian's Linux source, unpatched, as User-Mode Linux (an ordinary program: no root,
// no KVM). Leaves it in .kernel/linux. Takes about four minutes on two CPUs, and 2 GB of disk while it runs.
// Needs Debian or Ubuntu: apt checks the source against Debian's signatures. Packages: see `needed`.
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

const SOURCE = 'linux-source-7.2'; // the expected answers were seen with this one
const SUITE = 'trixie-backports';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

const root = new URL('..', import.meta.url).pathname;
const folder = join(root, '.kernel');
const target = join(folder, 'linux');
const build = join(folder, 'build');

const needed = {
  'apt-get': 'apt',
  dpkg: 'dpkg',
  tar: 'tar',
  xz: 'xz-utils',
  make: 'make',
  gcc: 'gcc libc6-dev',
  flex: 'flex',
  bison: 'bison',
  bc: 'bc',
};

function run(file, args, options = {}) {
  execFileSync(file, args, { stdio: ['ignore', 'inherit', 'inherit'], ...options });
}

/** apt with lists, cache and sources of its own, so that the system's stay as they are. */
function download() {
  const apt = join(build, 'apt');
  for (const name of ['lists/partial', 'cache/archives/partial', 'parts']) {
    mkdirSync(join(apt, name), { recursive: true });
  }
  writeFileSync(join(apt, 'status'), '');
  writeFileSync(
    join(apt, 'parts/source.sources'),
    `Types: deb\nURIs: http://deb.debian.org/debian\nSuites: ${SUITE}\nComponents: main\nSigned-By: ${KEYRING}\n`,
  );
  const settings = {
    'Dir::Etc::SourceList': '/dev/null',
    'Dir::Etc::SourceParts': join(apt, 'parts'),
    'Dir::State': apt,
    'Dir::State::status': join(apt, 'status'),
    'Dir::Cache': join(apt, 'cache'),
    'APT::Sandbox::User': 'root',
  };
  const options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  run('apt-get', [...options, 'update']);
  run('apt-get', [...options, 'download', SOURCE], { cwd: build });
}

if (existsSync(target)) {
  console.log(`${target} is there already`);
  process.exit(0);
}
const missing = Object.entries(needed).filter(([file]) => {
  const folders = (process.env.PATH ?? '').split(':');
  return !folders.some((one) => existsSync(join(one, file)));
});
if (missing.length > 0 || !existsSync(KEYRING)) {
  const packages = [...missing.map(([, name]) => name), ...(existsSync(KEYRING) ? [] : ['debian-archive-keyring'])];
  console.error(`these packages are needed: ${packages.join(' ')}`);
  process.exit(1);
}

rmSync(build, { recursive: true, force: true });
mkdirSync(build, { recursive: true });
download();
const archive = readdirSync(build).find((name) => name.startsWith(`${SOURCE}_`));
run('dpkg', ['--extract', archive, '.'], { cwd: build });
run('tar', ['--extract', '--file', `usr/src/${SOURCE}.tar.xz`], { cwd: build });
const source = join(build, SOURCE);
const make = (...args) => run('nice', ['make', 'ARCH=um', ...args], { cwd: source });
make(`KCONFIG_ALLCONFIG=${join(root, 'test/kernel/linux.config')}`, 'allnoconfig');
make(`--jobs=${availableParallelism()}`, 'linux');
// Whoever finds it finds it whole.
copyFileSync(join(source, 'linux'), join(folder, 'linux.new'));
run('strip', [join(folder, 'linux.new')]);
renameSync(join(folder, 'linux.new'), target);
rmSync(build, { recursive: true });
console.log(`built ${target}`);
