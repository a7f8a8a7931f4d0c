import { CaptureError, type Format, type Packet } from './format.ts';
import { isPcap, PCAP_HEADER_BYTES, pcapFormat } from './pcap.ts';
import { isPcapng, PcapngFormat } from './pcapng.ts';

/** Packets out of the chunks of a capture, as they come: keeps no more than one packet. */
export class CaptureReader {
  packets = 0;
  #format: Format | null = null;
  /** Not used yet. */
  #rest: Buffer = Buffer.alloc(0);
  /** Of the first byte of that, in the capture. */
  #position = 0;
  /** Bytes to be stepped over. */
  #skip = 0;

  /** Throws CaptureError where it is no capture; packets before that have been given. */
  *push(chunk: Buffer): Generator<Packet> {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    try {
      while (true) {
        const skipped = Math.min(this.#skip, bytes.length - at);
        at += skipped;
        this.#skip -= skipped;
        if (this.#skip > 0) break;
        const step = this.#step(bytes, at);
        if (step === null) break;
        if (step.packet !== null) this.packets++;
        this.#skip = step.next - at;
        if (step.packet !== null) yield step.packet;
      }
    } catch (error) {
      throw error instanceof CaptureError ? this.#located(error.message, at) : error;
    }
    this.#rest = Buffer.from(bytes.subarray(at));
    this.#position += at;
  }

  /** The capture has ended. Throws CaptureError when it ends within something. */
  end(): void {
    if (this.#format === null) {
      throw new CaptureError(this.#rest.length === 0 ? 'it is empty' : 'neither pcap nor pcapng: too short');
    }
    if (this.#rest.length > 0 || this.#skip > 0) throw this.#located('it is cut off', 0);
  }

  #step(bytes: Buffer, at: number): { packet: Packet | null; next: number } | null {
    if (this.#format !== null) return this.#format.step(bytes, at);
    if (bytes.length < 4) return null;
    if (isPcapng(bytes)) {
      this.#format = new PcapngFormat();
      return { packet: null, next: at };
    }
    if (!isPcap(bytes)) throw new CaptureError(unknownText(bytes));
    if (bytes.length < PCAP_HEADER_BYTES) return null;
    this.#format = pcapFormat(bytes);
    return { packet: null, next: PCAP_HEADER_BYTES };
  }

  #located(what: string, at: number): CaptureError {
    if (this.#format === null) return new CaptureError(what);
    return new CaptureError(`${what}, at byte ${this.#position + at}, behind ${this.packets} packets`);
  }
}

function unknownText(head: Buffer): string {
  const what = 'neither pcap nor pcapng';
  if (head.readUInt16BE(0) === 0x1f8b) return `${what} but gzip: zcat FILE | isthmus clc -`;
  if (head.readUInt32BE(0) === 0x28b52ffd) return `${what} but zstd: zstdcat FILE | isthmus clc -`;
  if (head.toString('latin1', 0, 3).toLowerCase() === 'e2d') return `${what} but hex: isthmus clc --hex`;
  return what;
}
