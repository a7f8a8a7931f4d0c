import { closeFd, receivePacket, sendPacket } from '../os/index.ts';
import { decodeMessage, encodeMessage } from './protocol.ts';

const TIMEOUT_MS = 2000;
const LOOK_MS = 5;

/** Asks a fabric for its state, as JSON. Takes over the descriptor. Rejects when it does not answer. */
export async function askStatus(fd: number): Promise<string> {
  try {
    sendPacket(fd, encodeMessage({ type: 'STATUS' }));
    for (const end = performance.now() + TIMEOUT_MS; performance.now() < end; ) {
      const packet = receivePacket(fd);
      if (packet === 'end') break;
      if (packet === null) {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
        continue;
      }
      const message = decodeMessage(packet.bytes, packet.fds.length, 'fabric');
      if (message.type === 'STATUS_REPLY') return message.json;
      if (message.type === 'REFUSED') throw new Error(`the fabric refused: ${message.text}`);
    }
    throw new Error('the fabric does not answer');
  } finally {
    closeFd(fd);
  }
}
