import { ask } from './ask.ts';
import type { EidTable } from './eids.ts';

const MAX_STATUS_BYTES = 64 << 20;

/** Asks a fabric for its state, as JSON that is not checked. Takes over the descriptor. Rejects when it does not answer. */
export async function askStatus(fd: number): Promise<string> {
  const parts: string[] = [];
  let lengthBytes = 0;
  const json = await ask(fd, { type: 'STATUS' }, (message) => {
    if (message.type !== 'STATUS_REPLY') return undefined;
    parts.push(message.json);
    lengthBytes += message.json.length;
    if (lengthBytes > MAX_STATUS_BYTES) throw new Error('the fabric says more than it can have to say');
    return message.more === 0 ? parts.join('') : undefined;
  });
  if (json === null) throw new Error('the fabric has hung up');
  return json;
}

/** What is shown of a status. */
export interface FabricStatus {
  readonly pid: number;
  readonly socket: string;
  readonly uptimeMs: number;
  readonly memoryBytes: number | null;
  readonly claims: number;
  /** Not known to a fabric of version 1. */
  readonly eids?: EidTable;
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
    (status.eids === undefined || hasFields(status.eids, { ueids: isTexts, seid: isSeid, seidEnabled: isBoolean })) &&
    hasFields(status.counters, { announced: isCount, matched: isCount, declined: isCount, pairs: isCount }) &&
    Array.isArray(status.partitions) &&
    status.partitions.every((one) =>
      hasFields(one, { gid: isText, pid: isCount, uid: isCount, program: isText, claims: isCount, pairs: isCount }),
    );
  return isGood ? (status as unknown as FabricStatus) : null;
}

const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
const isText = (value: unknown) => typeof value === 'string';
const isTexts = (value: unknown) => Array.isArray(value) && value.every(isText);
const isSeid = (value: unknown) => value === null || isText(value);
const isBoolean = (value: unknown) => typeof value === 'boolean';

function hasFields(
  value: unknown,
  fields: Readonly<Record<string, (field: unknown) => boolean>>,
): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(fields).every(([name, isGood]) => isGood((value as Record<string, unknown>)[name]));
}
