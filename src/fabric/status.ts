import { closeFd, receivePacket, sendPacket } from '../os/index.ts';
import { decodeMessage, encodeMessage } from './protocol.ts';

/** For one part of the answer, and for all of it. */
const PART_TIMEOUT_MS = 2000;
const TIMEOUT_MS = 20_000;
const LOOK_MS = 5;
const MAX_STATUS_BYTES = 64 << 20;

/** Asks a fabric for its state, as JSON that is not checked. Takes over the descriptor. Rejects when it does not answer. */
export async function askStatus(fd: number): Promise<string> {
  try {
    sendPacket(fd, encodeMessage({ type: 'STATUS' }));
    const parts: string[] = [];
    let lengthBytes = 0;
    const end = performance.now() + TIMEOUT_MS;
    let partEnd = performance.now() + PART_TIMEOUT_MS;
    while (performance.now() < Math.min(end, partEnd)) {
      const packet = receivePacket(fd);
      if (packet === 'end') throw new Error('the fabric has hung up');
      if (packet === null) {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
        continue;
      }
      for (const one of packet.fds) closeFd(one);
      const message = decodeMessage(packet.bytes, packet.fds.length, 'fabric');
      if (message.type === 'REFUSED') throw new Error(`the fabric refused: ${message.text}`);
      if (message.type !== 'STATUS_REPLY') continue;
      parts.push(message.json);
      lengthBytes += packet.bytes.length;
      if (lengthBytes > MAX_STATUS_BYTES) throw new Error('the fabric says more than it can have to say');
      if (message.more === 0) return parts.join('');
      partEnd = performance.now() + PART_TIMEOUT_MS;
    }
    throw new Error('the fabric does not answer');
  } finally {
    closeFd(fd);
  }
}

/** What is shown of a status. */
export interface FabricStatus {
  readonly pid: number;
  readonly socket: string;
  readonly uptimeMs: number;
  readonly memoryBytes: number | null;
  readonly claims: number;
  readonly counters: Readonly<Record<'announced' | 'matched' | 'declined' | 'pairs', number>>;
  readonly partitions: readonly {
    readonly gid: string;
    readonly pid: number;
    readonly uid: number;
    readonly program: string;
    readonly claims: number;
    readonly pairs: number;
  }[];
}

/** A fabric of another version, or one that was named and is none, may say anything. Null unless all is there that is shown. */
export function readStatus(json: string): FabricStatus | null {
  let status: unknown;
  try {
    status = JSON.parse(json);
  } catch {
    return null;
  }
  const isGood =
    hasFields(status, { pid: isCount, socket: isText, uptimeMs: Number.isFinite, claims: isCount }) &&
    hasFields(status, { memoryBytes: (value) => value === null || isCount(value) }) &&
    hasFields(status.counters, { announced: isCount, matched: isCount, declined: isCount, pairs: isCount }) &&
    Array.isArray(status.partitions) &&
    status.partitions.every((one) =>
      hasFields(one, { gid: isText, pid: isCount, uid: isCount, program: isText, claims: isCount, pairs: isCount }),
    );
  return isGood ? (status as unknown as FabricStatus) : null;
}

const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
const isText = (value: unknown) => typeof value === 'string';

function hasFields(
  value: unknown,
  fields: Readonly<Record<string, (field: unknown) => boolean>>,
): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(fields).every(([name, isGood]) => isGood((value as Record<string, unknown>)[name]));
}
