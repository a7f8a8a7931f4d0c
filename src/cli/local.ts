/** Steps of `isthmus doctor` and `isthmus chk` that look at this machine, this Node.js and this user: what the connections of all programs need. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { endianness, release } from 'node:os';
import { FabricClient, type FabricIdentity, FabricUnavailable, findFabric, withFabric } from '../fabric/client.ts';
import type { FabricPlace } from '../fabric/locate.ts';
import { readIdleMs } from '../fabric/start.ts';
import { reasonOfFabric, reasonOfSystem } from '../net/causes.ts';
import { CurrentPolicy } from '../net/current-policy.ts';
import { IS_NODE, testInternals } from '../net/internals.ts';
import type { Policy } from '../net/policy.ts';
import { SELF, type Subject } from '../net/rules.ts';
import { testByMoving } from '../net/self-test.ts';
import {
  closeFd,
  createSharedMemory,
  errorCode,
  ffi,
  isSizeSealed,
  map,
  openWriteOnly,
  peerCredentials,
  populate,
  testCookies,
  testDoorbell,
} from '../os/index.ts';
import { REASONS, type Reason, withCause } from '../smc/reasons.ts';
import { packageJson } from './command.ts';
import { userText } from './processes.ts';
import type { Finding, Step } from './steps.ts';

/** Where the programs of this user meet. */
export interface FoundFabric {
  readonly place: FabricPlace;
  readonly identity: FabricIdentity;
  readonly uid: number;
  readonly started: boolean;
}

/** @param found is told of the fabric */
export function localSteps(env: NodeJS.ProcessEnv, found: (fabric: FoundFabric) => void): Step[] {
  let distrust: FabricUnavailable | null = null;
  const faults: string[] = [];
  const current = new CurrentPolicy(env, (text) => faults.push(text));
  return [
    { name: 'system', look: system },
    { name: 'FFI', look: loadFfi },
    { name: 'kernel', look: askKernel },
    { name: 'Node.js', look: testNode },
    { name: 'settings', look: () => settings(current, env, faults) },
    { name: 'policy', look: () => policy(current) },
    { name: 'memory', look: () => memory(current.now) },
    { name: 'descriptors', look: descriptors },
    {
      name: 'fabric',
      async look() {
        try {
          const fabric = await joinOnce(env);
          found(fabric);
          return fabricText(fabric);
        } catch (error) {
          if (!(error instanceof FabricUnavailable && error.kind === 'untrusted'))
            return { failed: reasonOfFabric(error) };
          distrust = error;
          return 'what stands in its place is looked at next';
        }
      },
    },
    {
      name: 'trust',
      look: () =>
        distrust !== null
          ? { failed: reasonOfFabric(distrust) }
          : env.ISTHMUS_FABRIC
            ? 'ISTHMUS_FABRIC names it'
            : 'nobody but root and this user can have put it there',
    },
  ];
}

const failed = (reason: Reason): Finding => ({ failed: reason });

function system(): Finding {
  const { platform, arch, versions } = process;
  const text = `${platform} ${release()} on ${arch}, Node.js ${versions.node}`;
  if (!IS_NODE) return failed(REASONS.RUNTIME);
  if (platform !== 'linux') return failed(withCause(REASONS.PLATFORM, `this is ${text}`));
  if (endianness() !== 'LE' || /^(arm|ia32|mips.*|ppc|s390)$/.test(arch))
    return failed(withCause(REASONS.PLATFORM, `${arch} is no 64-bit little-endian machine`));
  const needed = packageJson().engines.node.replace(/^\D+/, '');
  if (versions.node.localeCompare(needed, undefined, { numeric: true }) < 0)
    return failed(
      withCause(
        REASONS.INTERNALS,
        `Node.js ${versions.node} is older than ${needed}`,
        `run it with Node.js ${needed} or newer`,
      ),
    );
  return text;
}

function loadFfi(): Finding {
  ffi();
  return 'the system can be called (koffi)';
}

async function askKernel(): Promise<Finding> {
  testCookies();
  await testDoorbell();
  return 'sockets have cookies, a pipe wakes this program';
}

async function testNode(): Promise<Finding> {
  const internals = testInternals();
  const surprise = typeof internals === 'string' ? internals : await testByMoving(internals);
  if (surprise !== null) return failed(withCause(REASONS.INTERNALS, surprise));
  return 'inside it is as expected: a connection within this process moved';
}

/** @param faults of the policy's settings, once it is read */
function settings(current: CurrentPolicy, env: NodeJS.ProcessEnv, faults: string[]): Finding {
  const { mode, access, dmbBytes } = current.now;
  readIdleMs(env, (text) => faults.push(text));
  if (faults.length > 0) return { note: `${faults.join('; ')} (docs/settings.md says what is possible)` };
  return `policy ${mode}, access ${access}, buffers of ${dmbBytes} bytes`;
}

/** What holds for all connections; rules with addresses are asked for one server. */
function policy(current: CurrentPolicy): Finding {
  return findingOf({ direction: 'connect', address: undefined, port: undefined, who: SELF }, current);
}

/** What a policy says of a connection. */
export function findingOf(subject: Subject, policy: CurrentPolicy): Finding {
  const { reason, where } = policy.decide(subject);
  return reason === null ? `connections may move (${where})` : failed(reason);
}

/** As for one connection. */
function memory({ dmbBytes }: Policy): Finding {
  let fd = -1;
  try {
    fd = createSharedMemory('isthmus-doctor', dmbBytes);
    populate(fd, 0, dmbBytes);
    new Uint8Array(map(fd, dmbBytes)).fill(1);
    if (!isSizeSealed(fd)) return failed(withCause(REASONS.SYSTEM, 'seals of a memfd do not hold'));
    closeFd(openWriteOnly(fd));
    return `a sealed memfd of ${dmbBytes} bytes can be made, mapped and written`;
  } catch (error) {
    const isLack = ['ENOMEM', 'ENOSPC'].includes(errorCode(error) ?? '');
    return failed(isLack ? withCause(REASONS.MEM, (error as Error).message) : reasonOfSystem(error));
  } finally {
    if (fd >= 0) closeFd(fd);
  }
}

/** Three for a program, five for each of ten others that it shares memory with. */
const DESCRIPTORS_NEEDED = 53;

function descriptors(): Finding {
  if (!existsSync('/proc/self/fd'))
    return { note: 'there is no /proc here: isthmus ss shows nothing, access store cannot be had' };
  const used = readdirSync('/proc/self/fd').length;
  const limit = Number(/^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? Number.NaN);
  const text = `${Number.isNaN(limit) ? 'no limit' : `${limit} allowed`}, ${used} in use here`;
  if (limit - used < DESCRIPTORS_NEEDED)
    return failed(reasonOfSystem(Object.assign(new Error(`${text}, too few are left`), { code: 'EMFILE' })));
  return `${text}; three more a program, up to five for each program it shares memory with`;
}

/** Joins the fabric as a program would, and leaves it. */
async function joinOnce(env: NodeJS.ProcessEnv): Promise<FoundFabric> {
  const before = findFabric(env);
  if (before !== null) closeFd(before.fd);
  let uid = -1;
  const about = { thread: 0, program: 'isthmus doctor' };
  const client = await withFabric(env, (fd, place) => {
    uid = peerCredentials(fd).uid;
    return FabricClient.join(fd, place, about, DEAF);
  });
  client.close();
  return { place: client.identity.place, identity: client.identity, uid, started: before === null };
}

const nothing = () => {};
const DEAF = {
  introduced: nothing,
  show: nothing,
  released: nothing,
  matched: nothing,
  declined: nothing,
  eids: nothing,
  silent: nothing,
  lost: nothing,
};

const KINDS = { own: "this user's own", system: "the system's", named: 'named by ISTHMUS_FABRIC' } as const;

function fabricText({ place, identity, uid, started }: FoundFabric): string {
  const who = `process ${identity.fabricPid || 'of another pid namespace'} of ${userText(uid)}`;
  return `${place.socket} (${KINDS[place.kind]}), ${who}, protocol ${identity.version}${started ? ', started now' : ''}`;
}
