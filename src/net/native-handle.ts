/** A socket's handle as C++ made it, below our overrides. */
import type { TcpHandle } from './internals.ts';

export class NativeHandle {
  readonly #handle: TcpHandle;
  readonly #proto: TcpHandle;
  /** Null = not steered by us. */
  #reads: boolean | null = null;

  constructor(handle: TcpHandle) {
    this.#handle = handle;
    this.#proto = Object.getPrototypeOf(handle) as TcpHandle;
  }

  get bytesRead(): number {
    return Reflect.get(this.#proto, 'bytesRead', this.#handle) as number;
  }

  get bytesWritten(): number {
    return Reflect.get(this.#proto, 'bytesWritten', this.#handle) as number;
  }

  read(on: boolean): void {
    if (this.#reads === on) return;
    this.#reads = on;
    if (on) this.#proto.readStart.call(this.#handle);
    else this.#proto.readStop.call(this.#handle);
  }

  /** Somebody else has steered it meanwhile. */
  forget(): void {
    this.#reads = null;
  }
}
