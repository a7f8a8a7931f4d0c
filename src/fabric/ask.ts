/** Questions to a fabric without joining it: for commands. */
import { closeFd, sendPacket } from '../os/index.ts';
import { receiveFrom } from './client.ts';
import { type EidTable, tableOf } from './eids.ts';
import { decodeMessage, type EidChange, encodeMessage, type FabricMessage, type MessageByName } from './protocol.ts';

/** For one message of the answer, and for all of it. */
const PART_TIMEOUT_MS = 2000;
const TIMEOUT_MS = 20_000;
const LOOK_MS = 5;

/**
 * Sends a question, and gives the fabric's messages to `heard` until that makes an answer of them. Takes over the descriptor.
 * Null when the fabric hung up without a word: it was about to end. Rejects when it refuses or does not answer.
 */
export async function ask<Answer>(
  fd: number,
  question: FabricMessage,
  heard: (message: FabricMessage) => Answer | undefined,
): Promise<Answer | null> {
  try {
    if (!trySend(fd, question)) return null;
    const end = performance.now() + TIMEOUT_MS;
    let partEnd = performance.now() + PART_TIMEOUT_MS;
    while (performance.now() < Math.min(end, partEnd)) {
      const packet = receiveFrom(fd);
      if (packet === 'end') return null;
      if (packet === null) {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
        continue;
      }
      for (const one of packet.fds) closeFd(one);
      const message = decodeMessage(packet.bytes, packet.fds, 'fabric');
      if (message.type === 'REFUSED') throw new Error(refusal(question, message));
      const answer = heard(message);
      if (answer !== undefined) return answer;
      partEnd = performance.now() + PART_TIMEOUT_MS;
    }
    throw new Error('the fabric does not answer');
  } finally {
    closeFd(fd);
  }
}

/** False when it has hung up. */
function trySend(fd: number, question: FabricMessage): boolean {
  const packet = encodeMessage(question);
  try {
    return sendPacket(fd, packet);
  } catch {
    return false;
  }
}

/** What we ask is well-formed, so one that does not understand it is an older one. */
function refusal(question: FabricMessage, { reason, text }: MessageByName<'REFUSED'>): string {
  return reason === 3
    ? `the fabric does not understand ${question.type}: it is of an older version`
    : `the fabric refused: ${text}`;
}

export function askEids(fd: number): Promise<EidTable | null> {
  return ask(fd, { type: 'EID_SHOW' }, (message) => (message.type === 'EIDS' ? tableOf(message) : undefined));
}

/** @param ueid of meaning to the first two changes. The answer's `error` is an errno, 0 = done. */
export function askEidChange(
  fd: number,
  change: EidChange,
  ueid: string,
): Promise<MessageByName<'EID_CHANGED'> | null> {
  return ask(fd, { type: 'EID_CHANGE', change, ueid }, (message) =>
    message.type === 'EID_CHANGED' ? message : undefined,
  );
}
