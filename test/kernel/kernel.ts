/**
 * A Linux kernel to talk to: User-Mode Linux, an ordinary program, with SMC over its loopback ISM device. Its only device talks to
 * itself alone, so a peer has to give the kernel's own GID, and tokens of DMBs that are the kernel's; with them the kernel does the
 * whole handshake, and what each side makes of the messages of the other can be compared.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Gid, parseGid } from '../../src/ism/index.ts';
import { initramfs } from './initramfs.ts';
import { Network } from './network.ts';
import { type TcpConnection, TcpStack } from './tcp.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const CACHE = join(ROOT, '.kernel');
const GUEST = join(ROOT, 'test/kernel/guest.c');

/** Where a kernel may be, the first one counts: as a program, or packed with xz. */
const FOLDERS = process.env.ISTHMUS_KERNEL
  ? [process.env.ISTHMUS_KERNEL]
  : [
      CACHE,
      join(ROOT, '../shared/lab/kernel'), // one that is kept beside the checkout
    ];

function findKernel(): string | undefined {
  for (const folder of FOLDERS) {
    const names = existsSync(folder) ? readdirSync(folder) : [];
    const name = names.find((one) => one === 'linux') ?? names.find((one) => /^linux.*\.xz$/.test(one));
    if (name !== undefined) return join(folder, name);
  }
  return undefined;
}

/** Makes a file in the cache. Several tests may do so at once: each finds it whole or makes it. */
function cached(name: string, mode: number, make: () => Buffer): string {
  const path = join(CACHE, name);
  if (existsSync(path)) return path;
  mkdirSync(CACHE, { recursive: true });
  const unfinished = `${path}.${process.pid}`;
  writeFileSync(unfinished, make(), { mode });
  renameSync(unfinished, path);
  return path;
}

function unpacked(path: string): string {
  if (!path.endsWith('.xz')) return path;
  const unpack = () => execFileSync('xz', ['--decompress', '--stdout', path], { maxBuffer: 1 << 28 });
  return cached(basename(path, '.xz'), 0o755, unpack);
}

function guestImage(): string {
  const hash = createHash('sha256').update(readFileSync(GUEST)).digest('hex').slice(0, 16);
  return cached(`guest-${hash}.cpio`, 0o644, () => {
    const program = join(CACHE, `guest.${process.pid}`);
    execFileSync('gcc', ['-static', '-O2', '-Wall', '-o', program, GUEST]);
    const init = readFileSync(program);
    rmSync(program);
    return initramfs({ init });
  });
}

interface Image {
  readonly linux: string;
  readonly guest: string;
}

function findImage(): Image | string {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'User-Mode Linux runs on x86-64 Linux only';
  const kernel = findKernel();
  if (kernel === undefined) {
    const own = process.env.ISTHMUS_KERNEL;
    if (own) return `ISTHMUS_KERNEL is ${own}, and there is neither linux nor linux*.xz`;
    return 'there is no kernel to talk to: `node scripts/kernel.mjs` builds one';
  }
  try {
    return { linux: unpacked(kernel), guest: guestImage() };
  } catch (error) {
    return `the guest of the kernel cannot be made, gcc, libc6-dev and xz-utils are needed: ${(error as Error).message}`;
  }
}

const image = findImage();

/** For `skip`. */
export const noKernel = typeof image === 'string' ? image : false;

/** How a program in the kernel sees its connection. */
export interface KernelView {
  readonly mode: 'SMCD' | 'SMCR' | 'TCP';
  /** Why it is TCP, or 0. */
  readonly reason: number;
  /** The diagnosis in the Decline of the peer. */
  readonly peerDiagnosis: number;
  /** Bytes that were there to be read when the program got the connection. */
  readonly unread: number;
}

export interface KernelOptions {
  readonly ueids?: readonly string[];
}

/** The port on which the kernel listens with an SMC socket. */
export const KERNEL_PORT = 5000;

const LIMIT_MS = 20_000;

export class Kernel {
  readonly network: Network;
  readonly tcp: TcpStack;
  readonly #process: ChildProcess;
  #console = '';
  readonly #watchers = new Set<() => void>();
  #gid: Gid | null = null;

  private constructor({ linux, guest }: Image, network: Network) {
    this.network = network;
    this.tcp = new TcpStack(network);
    const machine = ['mem=128M', 'seccomp=auto', 'con0=fd:0,fd:1', 'con=null', 'quiet', 'panic=-1'];
    const args = [...machine, `initrd=${guest}`, 'rdinit=/init', network.kernelArgument];
    this.#process = spawn(linux, args, { stdio: ['pipe', 'pipe', 'ignore'] });
    const look = () => {
      for (const watcher of [...this.#watchers]) watcher();
    };
    this.#process.on('exit', look);
    this.#process.stdout?.setEncoding('latin1').on('data', (text: string) => {
      this.#console += text;
      look();
    });
  }

  static async boot({ ueids = ['ISTHMUS.TEST.A'] }: KernelOptions = {}): Promise<Kernel> {
    if (typeof image === 'string') throw new Error(image);
    const kernel = new Kernel(image, await Network.open());
    try {
      await kernel.#setUp(ueids);
      return kernel;
    } catch (error) {
      await kernel.close();
      throw error;
    }
  }

  async #setUp(ueids: readonly string[]): Promise<void> {
    const [, gid = ''] = await this.says(/^gid (.*)\nready$/m);
    this.#gid = parseGid(gid);
    for (const ueid of ueids) {
      this.#tell(`ueid ${ueid}`);
      await this.says(new RegExp(`^ueid ${ueid} 0$`, 'm'));
    }
    this.#tell(`listen ${KERNEL_PORT}`);
    await this.says(/^listening \d+ 0$/m);
    await this.network.reachable;
  }

  /** Of its loopback device. */
  get gid(): Gid {
    if (this.#gid === null) throw new Error('not booted');
    return this.#gid;
  }

  /** Makes a program in the kernel connect to us with an SMC socket. */
  connectTo(port: number): void {
    this.#tell(`connect 10.0.0.2 ${port}`);
  }

  /** Waits until a program in the kernel has its end of this connection. */
  async view({ peerPort, localPort }: TcpConnection): Promise<KernelView> {
    const pattern = /mode=(\w+) reason=(\w{8}) peer=(\w{8}) unread=(\d+)/.source;
    const line = new RegExp(`^(?:accepted|connected) ${peerPort} ${localPort} ${pattern}$`, 'm');
    const [, mode = '', reason = '', peer = '', unread] = await this.says(line);
    return {
      mode: mode as KernelView['mode'],
      reason: Number.parseInt(reason, 16),
      peerDiagnosis: Number.parseInt(peer, 16),
      unread: Number(unread),
    };
  }

  get #isRunning(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  #tell(line: string): void {
    this.#process.stdin?.write(`${line}\n`);
  }

  /** All that was said there. */
  get console(): string {
    return this.#console;
  }

  /** Waits for a text on the console. */
  says(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const settle = (done: () => void) => {
        clearTimeout(limit);
        this.#watchers.delete(look);
        done();
      };
      const fail = () =>
        settle(() => reject(new Error(`${pattern} is not in what the kernel says:\n${this.#console}`)));
      const limit = setTimeout(fail, LIMIT_MS);
      const look = () => {
        const match = pattern.exec(this.#console);
        if (match) settle(() => resolve(match));
        else if (!this.#isRunning) fail();
      };
      this.#watchers.add(look);
      look();
    });
  }

  async close(): Promise<void> {
    this.tcp.close();
    if (this.#isRunning) {
      const gone = once(this.#process, 'exit');
      this.#process.kill('SIGKILL');
      await gone;
    }
    this.network.close();
  }
}
