/** The writer's end of a peer's DMB, in the two ways there are: copying into a mapping, and storing through a descriptor. */
import {
  isInRange,
  isWordInRange,
  outOfRange,
  type RemoteDmb,
  RING_HEAD_BYTES,
  type StoreToArea,
  storeInOrder,
  type Token,
} from '../../ism/index.ts';
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
  protected abstract putLong(offset: number, value: bigint): void;

  move(offset: number, data: Uint8Array): void {
    if (!isInRange(this.lengthBytes, offset, data.length)) throw outOfRange(offset, data.length, this.lengthBytes);
    if (this.live) this.put(offset, data);
  }

  storeWord(offset: number, value: number): void {
    if (!isWordInRange(this.lengthBytes, offset, 4)) throw outOfRange(offset, 4, this.lengthBytes);
    if (this.live) this.putWord(offset, value);
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

  protected putLong(offset: number, value: bigint): void {
    Atomics.store(this.#longs, offset >> 3, value);
  }
}

/** The user-space form of PCI Store Block. */
export class StoredRemoteDmb extends HostRemoteDmb {
  readonly bytes = null;
  readonly #words: StoredWords;

  /** @param words of this DMB; all who write there have to have the same */
  constructor(place: RemoteDmbPlace, owner: RemoteDmbOwner, words: StoredWords) {
    super(place, owner);
    this.#words = words;
  }

  protected put(offset: number, data: Uint8Array): void {
    this.#words.move(offset, data);
  }

  protected putWord(offset: number, value: number): void {
    this.#words.word(offset, value);
  }

  protected putLong(offset: number, value: bigint): void {
    this.#words.long(offset, value);
  }
}

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
}

const long = new BigInt64Array(1);
const pair = new Int32Array(long.buffer);
const pairBytes = new Uint8Array(long.buffer);
const word = new Int32Array(1);
const wordBytes = new Uint8Array(word.buffer);

/**
 * Words in such memory, whole for whoever reads them meanwhile. The kernel copies eight aligned bytes upward, in one piece or in two: no
 * word of 32 bits is seen half done. Four bytes alone it copies one by one on CPUs without FSRM (Linux, arch/x86/lib/copy_user_64.S). So a
 * word of the head, where those stand that are read at any time, goes with the one beside it, which is known: nobody else writes there.
 */
export class StoredWords implements StoreToArea {
  readonly #memory: StoredMemory;
  readonly #offset: number;
  readonly #head = new Int32Array(RING_HEAD_BYTES / 4);
  readonly #headBytes = new Uint8Array(this.#head.buffer);

  /** @param offset of the first byte, a multiple of eight; memory that is zeroed begins there */
  constructor(memory: StoredMemory, offset: number) {
    this.#memory = memory;
    this.#offset = offset;
  }

  move(offset: number, data: Uint8Array): void {
    if (data.length === 0) return;
    if (offset < RING_HEAD_BYTES) this.#headBytes.set(data.subarray(0, RING_HEAD_BYTES - offset), offset);
    this.#memory.store(data, this.#offset + offset);
  }

  word(offset: number, value: number): void {
    if (offset >= RING_HEAD_BYTES) {
      word[0] = value;
      this.#memory.store(wordBytes, this.#offset + offset);
      return;
    }
    this.#head[offset >> 2] = value;
    const even = (offset >> 3) << 1;
    this.#storePair(4 * even, this.#head[even] as number, this.#head[even + 1] as number);
  }

  words(offset: number, first: number, second: number): void {
    if (offset < RING_HEAD_BYTES) {
      this.#head[offset >> 2] = first;
      this.#head[(offset >> 2) + 1] = second;
    }
    this.#storePair(offset, first, second);
  }

  long(offset: number, value: bigint): void {
    long[0] = value;
    this.words(offset, pair[0] as number, pair[1] as number);
  }

  #storePair(offset: number, first: number, second: number): void {
    pair[0] = first;
    pair[1] = second;
    this.#memory.store(pairBytes, this.#offset + offset);
  }
}
