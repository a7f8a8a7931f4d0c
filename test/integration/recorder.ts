/** A partition's ears: what a fabric says is kept, nothing is done about it. */
import { type FabricClient, type FabricListener, FabricUnavailable, joinFabric } from '../../src/fabric/client.ts';
import type { FabricMessage, MessageByName } from '../../src/fabric/protocol.ts';
import type { Eid } from '../../src/ism/index.ts';

export class Recorder implements FabricListener {
  readonly messages: Partial<FabricMessage>[] = [];
  /** Of introductions: to be closed by the test. */
  readonly fds: number[] = [];
  lostBecause: string | null = null;

  introduced(message: MessageByName<'INTRODUCE'>, fds: readonly [number, number, number] | null): void {
    this.messages.push(message);
    this.fds.push(...(fds ?? []));
  }
  show(claim: number): void {
    this.messages.push({ type: 'SHOW', claim });
  }
  released(claim: number): void {
    this.messages.push({ type: 'RELEASED', claim });
  }
  matched(message: MessageByName<'MATCHED'>): void {
    this.messages.push(message);
  }
  declined(claim: number, reason: number): void {
    this.messages.push({ type: 'DECLINED', claim, reason } as MessageByName<'DECLINED'>);
  }
  eids(ueids: readonly Eid[]): void {
    this.messages.push({ type: 'EIDS', ueids: ueids.join(' ') });
  }
  silent(): void {}
  lost(cause: string): void {
    this.lostBecause = cause;
  }

  has(type: string): boolean {
    return this.messages.some((message) => message.type === type);
  }
}

/** A fabric that does not get the CPU for a while is asked again. */
export async function joinPatiently(
  about: { readonly thread: number; readonly program: string },
  listener: FabricListener,
  env: NodeJS.ProcessEnv,
): Promise<FabricClient> {
  for (const end = performance.now() + 15_000; ; ) {
    try {
      return await joinFabric(about, listener, env);
    } catch (error) {
      const isSilent = error instanceof FabricUnavailable && error.kind === 'silent';
      if (!isSilent || performance.now() > end) throw error;
    }
  }
}
