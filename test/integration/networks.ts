/** Network namespaces of a test, with wires between them. Made by root. */
import { execFileSync, spawnSync } from 'node:child_process';

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/** For `skip`: false, or which of the commands is missing. */
export function cannotRun(commands: Readonly<Record<string, string>>): string | false {
  const missing = Object.keys(commands).filter((command) => spawnSync(command, ['--version']).error !== undefined);
  if (missing.length === 0) return false;
  return `${missing.join(', ')} not found (Debian packages: ${missing.map((one) => commands[one]).join(', ')})`;
}

export function cannotMakeNetworks(): string | false {
  if (!isRoot()) return 'network namespaces are made by root';
  return cannotRun({ ip: 'iproute2', nft: 'nftables' });
}

export function sh(command: string, input = ''): void {
  const [file = '', ...args] = command.split(' ');
  execFileSync(file, args, { input, stdio: ['pipe', 'pipe', 'inherit'] });
}

/** An end of a wire. */
interface Plug {
  /** Null: that of the test itself. */
  readonly network: string | null;
  /** With the length of its prefix. */
  readonly address: string;
}

export class Networks {
  readonly #names: string[] = [];
  #wires = 0;

  /** A new namespace, with its loopback interface up; the name that `ip netns exec` takes. */
  add(): string {
    const name = `isthmus-${process.pid}-${this.#names.length}`;
    sh(`ip netns add ${name}`);
    this.#names.push(name);
    sh(`ip -n ${name} link set lo up`);
    return name;
  }

  wire(one: Plug, other: Plug & { readonly network: string }): void {
    const [ours, theirs] = [`is${process.pid}a${this.#wires}`, `is${process.pid}b${this.#wires++}`];
    const inside = ({ network }: Plug) => (network === null ? 'ip' : `ip -n ${network}`);
    sh(`${inside(one)} link add ${ours} type veth peer name ${theirs} netns ${other.network}`);
    for (const [plug, link] of [
      [one, ours],
      [other, theirs],
    ] as const) {
      sh(`${inside(plug)} addr add ${plug.address} dev ${link}`);
      sh(`${inside(plug)} link set ${link} up`);
    }
  }

  /** Wires go with the namespaces. */
  close(): void {
    for (const name of this.#names) spawnSync('ip', ['netns', 'del', name]);
  }
}
