/** How the benchmark tells its programs what to do: calls and replies over the IPC channel. Nothing is said while time is taken. */
import { cpuSecondsOf } from '../process-facts.ts';

export interface Call {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

export type Reply = { readonly id: number; readonly result: unknown } | { readonly id: number; readonly error: string };

/** Serves calls until the benchmark is gone. Commands take at most one argument. */
export function serve(commands: object): void {
  process.on('message', (message) => {
    const { id, name, argument } = message as Call;
    const command = Reflect.get(commands, name) as (argument: unknown) => unknown;
    Promise.resolve()
      .then(() => command(argument))
      .then(
        (result) => process.send?.({ id, result } satisfies Reply),
        (error: unknown) => process.send?.({ id, error: (error as Error).message } satisfies Reply),
      );
  });
  process.on('disconnect', () => process.exit());
}

/** The same commands, seen from the benchmark. */
export type Remote<Commands> = {
  readonly [Name in keyof Commands]: Commands[Name] extends (...args: infer Args) => infer Result
    ? (...args: Args) => Promise<Awaited<Result>>
    : never;
};

export interface Address {
  readonly port?: number;
  readonly path?: string;
}

export interface Window {
  readonly warmMs: number;
  readonly windowMs: number;
}

/** What a connection is expected to be once it has moved; null = it is not Isthmus that is measured. */
export type Expectation = { readonly device: 'host' | 'loopback'; readonly access: 'mapped' | 'store' } | null;

/** Bytes that went through one end in a window, and the CPU time of its process. */
export interface Sample {
  readonly bytes: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
}

/** @param pids whose CPU time */
export async function sample(
  bytes: () => number,
  { warmMs, windowMs }: Window,
  pids: readonly number[] = [process.pid],
): Promise<Sample> {
  await sleep(warmMs);
  const [bytesBefore, cpuBefore, before] = [bytes(), cpuSecondsOf(pids), performance.now()];
  await sleep(windowMs);
  const seconds = (performance.now() - before) / 1000;
  return { bytes: bytes() - bytesBefore, seconds, cpuSeconds: cpuSecondsOf(pids) - cpuBefore };
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Needs --expose-gc. More than one collection, since finalizers of the first free what the next one finds. */
export async function collectGarbage(): Promise<void> {
  for (let i = 0; i < 4; i++) {
    global.gc?.();
    await sleep(50);
  }
}
