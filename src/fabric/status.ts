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
