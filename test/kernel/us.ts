/** Our own handshake in the place of the kernel's: what it makes of the bytes of a table, in the words of the table. */
import assert from 'node:assert/strict';
import type { InBandOutcome } from '../../src/smc/in-band.ts';
import { type ClcMessage, decodeClc } from '../../src/smc/index.ts';
import { type Host, shakeHands, Wire } from '../handshake/ends.ts';
import { type Cut, hex8, inWords, pieces } from './clc.ts';

/** Where we differ on purpose. */
export interface Differs {
  readonly outcome: string;
  readonly why: string;
}

/** One handshake; the other end is a test. */
export class Us {
  readonly #wire = new Wire();
  readonly #heard = new Wire();
  readonly #outcome: Promise<InBandOutcome>;
  #read = 0;

  constructor(role: 'client' | 'server', { context }: Host) {
    this.#wire.peer = this.#heard;
    this.#outcome = shakeHands(role, this.#wire, context);
  }

  say(bytes: Buffer, cut: Cut = 'whole'): void {
    for (const piece of pieces(bytes, cut)) this.#wire.deliver(piece);
  }

  end(): void {
    this.#wire.end();
  }

  /** The next message, or null when there is none before the outcome. */
  async next(): Promise<ClcMessage | null> {
    const message = () => this.#heard.received[this.#read];
    const heard = new Promise<void>((resolve) => {
      this.#heard.onReadable = () => message() && resolve();
      this.#heard.onReadable();
    });
    await Promise.race([heard, this.#outcome]);
    const bytes = message();
    if (bytes === undefined) return null;
    this.#read++;
    return decodeClc(bytes);
  }

  /** In the words of a table. A Confirm has to be the end, a Decline as well. */
  async outcome(): Promise<string> {
    const message = await this.next();
    if (message?.type === 'accept') return inWords(message);
    const outcome = await this.#outcome;
    if (message?.type === 'confirm') assert.ok('parts' in outcome);
    if (message?.type === 'decline') assert.ok('reason' in outcome && !outcome.byPeer);
    if (message !== null) return inWords(message);
    if ('parts' in outcome) return 'SMCD';
    return 'error' in outcome ? outcome.error : `TCP ${hex8(outcome.reason.code)}`;
  }
}

/** What a row expects of us: the same as of the kernel, whose FIN and RST are an error in our words, unless it says otherwise. */
export function expectedOfUs(row: { readonly outcome: string; readonly ours?: Differs }): string {
  return row.ours?.outcome ?? row.outcome.replace(/^(FIN|RST).*$/, 'EPROTO');
}

export function nameForUs({ name, ours }: { readonly name: string; readonly ours?: Differs }): string {
  return ours ? `${name}: ${ours.why}` : name;
}
