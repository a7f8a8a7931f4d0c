/** When a partition waits for a peer and when it sleeps at once, on a CPU that others want too. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as rest } from 'node:timers/promises';
import { cgroupCpus } from '../../os/index.ts';
import { type PolledPair, Polling } from './polling.ts';

const skip = cgroupCpus() < 2 && 'it is never waited with less than two CPUs';

/** A peer on another CPU. While it is waited for, the CPU is away for two milliseconds again and again. */
class Peer implements PolledPair {
  readonly #perStall: number;
  /** Found by looks since the CPU was away. */
  #found = 0;
  isAwake = false;
  readonly canRunBeside = true;
  readonly isOnOurCpu = false;
  isDead = false;

  /** @param perStall what comes between two times */
  constructor(perStall: number) {
    this.#perStall = perStall;
  }

  get hasWork(): boolean {
    if (this.#found < this.#perStall) return true;
    this.#found = 0;
    for (const end = performance.now() + 2; performance.now() < end; );
    return false;
  }

  look(): number {
    if (!this.isAwake) return 0;
    this.#found++;
    return 1;
  }

  sleep(): void {
    this.isAwake = false;
  }

  wake(): void {
    this.isAwake = true;
  }

  tellPlace(): void {}
  tellCpu(): void {}
}

/** How often the peer is waited for, of so many times that its doorbell is rung. */
async function waits(peer: Peer, rings: number): Promise<number> {
  const polling = new Polling(200);
  polling.add(peer);
  let count = 0;
  for (let i = 0; i < rings; i++) {
    polling.rung(peer);
    if (peer.isAwake) count++;
    await rest(5);
  }
  polling.remove(peer);
  peer.isDead = true;
  return count;
}

test('where little comes each time that we have the CPU, we sleep', { skip }, async () => {
  assert.ok((await waits(new Peer(2), 40)) < 20);
});

test('where much comes each time, we wait', { skip }, async () => {
  assert.ok((await waits(new Peer(50), 40)) > 20);
});

test('a peer of whom something comes all the time keeps neither another peer nor the event loop waiting', {
  skip,
}, async () => {
  const polling = new Polling(200);
  const peers = [new Chatterer(), new Chatterer()];
  for (const peer of peers) {
    polling.add(peer);
    polling.rung(peer);
  }
  for (let turns = 0; turns < 20; turns++) {
    for (const peer of peers) if (!peer.isAwake) polling.rung(peer); // the CPU was away
    await rest(1);
  }
  for (const peer of peers) polling.remove(peer);
  const [most = 0, least = 0] = peers.map(({ looks }) => looks).sort((a, b) => b - a);
  assert.ok(least > 1000, `${most} and ${least} looks`);
  assert.ok(least > most / 2, `${most} and ${least} looks`);
});

class Chatterer extends Peer {
  looks = 0;

  constructor() {
    super(Number.POSITIVE_INFINITY);
  }

  override look(): number {
    this.looks++;
    return super.look();
  }
}
