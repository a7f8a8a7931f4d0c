/** The writer's end of a peer's DMB, in the two ways there are: copying into a mapping, and storing through a descriptor. */
import { isInRange, isWordInRange, outOfRange, type RemoteDmb, storeInOrder, type Token } from '../../ism/index.ts';
import { store } from '../../os/index.ts';

export interface RemoteDmbPlace {
  readonly token: Token;
  readonly index: number;
  readonly generation: number;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** The pair that remote DMBs belong to. */
export interface RemoteDmbOwner {
  signal(index: number, generation: number): void;
  detach(remote: RemoteDmb): void;
}

export abstract class HostRemoteDmb implements RemoteDmb {
  readonly token: Token;
  readonly index: number;
  readonly generation: number;
  readonly lengthBytes: number;
  /** False from the moment it was detached, or its pair died. */
  live = true;
  readonly #owner: RemoteDmbOwner;

  constructor(place: RemoteDmbPlace, owner: RemoteDmbOwner) {
    this.token = place.token;
    this.index = place.index;
    this.generation = place.generation;
    this.lengthBytes = place.lengthBytes;
    this.#owner = owner;
  }

  abstract readonly bytes: Buffer | null;
  protected abstract put(offset: number, data: Uint8Array): void;
  protected abstract putWord(offset: number, value: number): void;
  protected abstract putWords(offset: number, first: number, second: number): void;
  protected abstract putLong(offset: number, value: bigint): void;

  move(offset: number, data: Uint8Array): void {
    if (!isInRange(this.lengthBytes, offset, data.length)) throw outOfRange(offset, data.length, this.lengthBytes);
    if (this.live) this.put(offset, data);
  }

  storeWord(offset: number, value: number): void {
    if (!isWordInRange(this.lengthBytes, offset, 4)) throw outOfRange(offset, 4, this.lengthBytes);
    if (this.live) this.putWord(offset, value);
  }

  storeWords(offset: number, first: number, second: number): void {
    if (!isWordInRange(this.lengthBytes, offset, 8)) throw outOfRange(offset, 8, this.lengthBytes);
    if (this.live) this.putWords(offset, first, second);
  }

  storeLong(offset: number, value: bigint): void {
    if (!isWordInRange(this.lengthBytes, offset, 8)) throw outOfRange(offset, 8, this.lengthBytes);
    if (this.live) this.putLong(offset, value);
  }

  detach(): void {
    this.#owner.detach(this);
  }

  signal(): void {
    if (this.live) this.#owner.signal(this.index, this.generation);
  }
}

export class MappedRemoteDmb extends HostRemoteDmb {
  readonly bytes: Buffer;
  readonly #words: Int32Array;
  readonly #longs: BigInt64Array;

  constructor(place: RemoteDmbPlace, owner: RemoteDmbOwner, memory: ArrayBuffer) {
    super(place, owner);
    this.bytes = Buffer.from(memory, place.offset, place.lengthBytes);
    this.#words = new Int32Array(memory, place.offset, place.lengthBytes / 4);
    this.#longs = new BigInt64Array(memory, place.offset, place.lengthBytes / 8);
  }

  protected put(offset: number, data: Uint8Array): void {
    this.bytes.set(data, offset);
  }

  protected putWord(offset: number, value: number): void {
    storeInOrder(this.#words, offset >> 2, value);
  }

  protected putWords(offset: number, first: number, second: number): void {
    storeInOrder(this.#words, offset >> 2, first);
    storeInOrder(this.#words, (offset >> 2) + 1, second);
  }

  protected putLong(offset: number, value: bigint): void {
    Atomics.store(this.#longs, offset >> 3, value);
  }
}

/** The user-space form of PCI Store Block. */
export class StoredRemoteDmb extends HostRemoteDmb {
  readonly bytes = null;
  readonly #memory: StoredMemory;
  readonly #offset: number;

  constructor(place: RemoteDmbPlace, owner: RemoteDmbOwner, memory: StoredMemory) {
    super(place, owner);
    this.#memory = memory;
    this.#offset = place.offset;
  }

  protected put(offset: number, data: Uint8Array): void {
    if (data.length > 0) this.#memory.store(data, this.#offset + offset);
  }

  protected putWord(offset: number, value: number): void {
    this.#memory.storeWord(this.#offset + offset, value);
  }

  protected putWords(offset: number, first: number, second: number): void {
    this.#memory.storeWords(this.#offset + offset, first, second);
  }

  protected putLong(offset: number, value: bigint): void {
    this.#memory.storeLong(this.#offset + offset, value);
  }
}

const word = Buffer.alloc(4);
const long = Buffer.alloc(8);

/**
 * Memory of a peer that is written through its descriptor. Nothing is thrown: whoever made it can see to it at any time that it takes
 * nothing more (O_APPEND, for one), and `refused` hears of that.
 */
export class StoredMemory {
  readonly fd: number;
  readonly #refused: (error: Error) => void;

  constructor(fd: number, refused: (error: Error) => void) {
    this.fd = fd;
    this.#refused = refused;
  }

  store(data: Uint8Array, offset: number): void {
    try {
      store(this.fd, data, offset);
    } catch (error) {
      this.#refused(error as Error);
    }
  }

  /** One aligned word, whole: a write of its own. */
  storeWord(offset: number, value: number): void {
    word.writeInt32LE(value, 0);
    this.store(word, offset);
  }

  /** As storeWord, for two: the kernel copies eight aligned bytes in one piece. */
  storeWords(offset: number, first: number, second: number): void {
    long.writeInt32LE(first, 0);
    long.writeInt32LE(second, 4);
    this.store(long, offset);
  }

  storeLong(offset: number, value: bigint): void {
    long.writeBigInt64LE(value, 0);
    this.store(long, offset);
  }
}
