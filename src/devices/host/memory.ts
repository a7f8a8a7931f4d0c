/**
 * The memory a partition makes for one peer: pieces (memfds), cut into slots of the size classes of SMC (16 KiB << n).
 * A connection costs no descriptor and no mapping. A piece is never given to another pair.
 */
import { IsmError } from '../../ism/index.ts';
import { closeFd, createSharedMemory, errorCode, giveBack, map, openWriteOnly, populate } from '../../os/index.ts';

/** Address space, not memory: pages come with the slots. */
export const PIECE_BYTES = 16 << 20;
export const MAX_PIECES = 64;
const SMALLEST_SLOT_BYTES = 16 << 10;
export const LARGEST_SLOT_BYTES = 4 << 20;
/** Free slots of a class that keep their pages: not more memory than that. */
const MAX_WARM_BYTES = 1 << 20;

export interface Slot {
  readonly piece: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly memory: ArrayBuffer;
}

interface Piece {
  readonly fd: number;
  /** What the peer gets: the same, or a write-only one. */
  readonly peerFd: number;
  readonly memory: ArrayBuffer;
  used: number;
}

/** The size class of a wish: 16 KiB, 32 KiB ... 4 MiB. */
export function slotBytes(lengthBytes: number): number {
  let bytes = SMALLEST_SLOT_BYTES;
  while (bytes < lengthBytes) bytes *= 2;
  return bytes;
}

export class PairMemory {
  readonly #access: 'mapped' | 'store';
  readonly #pieces: Piece[] = [];
  /** Free slots by size: with pages, and without. */
  readonly #warm = new Map<number, Slot[]>();
  readonly #cold = new Map<number, Slot[]>();
  #bytes = 0;

  /** Makes the first piece; its first `areaBytes` hold the signal area. Throws when the system refuses. */
  constructor(access: 'mapped' | 'store', areaBytes: number) {
    this.#access = access;
    const first = this.#addPiece();
    try {
      populate(first.fd, 0, areaBytes);
    } catch (error) {
      this.close();
      throw noMemory(error);
    }
    first.used = slotBytes(areaBytes);
  }

  get pieceCount(): number {
    return this.#pieces.length;
  }

  /** Memory in use by slots. */
  get bytes(): number {
    return this.#bytes;
  }

  piece(index: number): { peerFd: number; memory: ArrayBuffer } {
    const piece = this.#pieces[index];
    if (piece === undefined) throw new RangeError(`piece ${index} of ${this.#pieces.length}`);
    return piece;
  }

  #addPiece(): Piece {
    if (this.#pieces.length === MAX_PIECES) {
      throw new IsmError('ERR_ISTHMUS_NO_MEMORY', 'local', `a peer gets at most ${MAX_PIECES} pieces of memory`);
    }
    const fd = createSharedMemory('isthmus', PIECE_BYTES);
    let peerFd = fd;
    try {
      if (this.#access === 'store') peerFd = openWriteOnly(fd);
      const piece = { fd, peerFd, memory: map(fd, PIECE_BYTES), used: 0 };
      this.#pieces.push(piece);
      return piece;
    } catch (error) {
      if (peerFd !== fd) closeFd(peerFd);
      closeFd(fd);
      throw error;
    }
  }

  /** A slot with its pages in place. Throws IsmError NO_MEMORY. */
  allocate(lengthBytes: number): Slot {
    const size = slotBytes(lengthBytes);
    let slot = this.#warm.get(size)?.pop();
    if (slot !== undefined) {
      new Uint8Array(slot.memory, slot.offset, size).fill(0);
    } else {
      slot = this.#cold.get(size)?.pop() ?? this.#cut(size);
      try {
        populate(this.#fdOf(slot), slot.offset, size);
      } catch (error) {
        this.#keep(this.#cold, slot);
        throw noMemory(error);
      }
    }
    this.#bytes += size;
    return slot;
  }

  #cut(size: number): Slot {
    let index = this.#pieces.length - 1;
    let piece = this.#pieces[index];
    if (piece === undefined || piece.used + size > PIECE_BYTES) {
      try {
        piece = this.#addPiece();
      } catch (error) {
        throw error instanceof IsmError ? error : noMemory(error);
      }
      index++;
    }
    const slot = { piece: index, offset: piece.used, lengthBytes: size, memory: piece.memory };
    piece.used += size;
    return slot;
  }

  release(slot: Slot): void {
    this.#bytes -= slot.lengthBytes;
    const warm = this.#warm.get(slot.lengthBytes);
    if ((warm?.length ?? 0) * slot.lengthBytes < MAX_WARM_BYTES) {
      this.#keep(this.#warm, slot);
    } else {
      giveBack(this.#fdOf(slot), slot.offset, slot.lengthBytes);
      this.#keep(this.#cold, slot);
    }
  }

  #keep(lists: Map<number, Slot[]>, slot: Slot): void {
    const list = lists.get(slot.lengthBytes);
    if (list === undefined) lists.set(slot.lengthBytes, [slot]);
    else list.push(slot);
  }

  #fdOf(slot: Slot): number {
    const piece = this.#pieces[slot.piece];
    if (piece === undefined) throw new RangeError(`piece ${slot.piece}`);
    return piece.fd;
  }

  /** Gives all pages back and closes. Views that still exist read zeros; the mapping goes with the last of them. */
  close(): void {
    for (const { fd, peerFd } of this.#pieces.splice(0)) {
      giveBack(fd, 0, PIECE_BYTES);
      if (peerFd !== fd) closeFd(peerFd);
      closeFd(fd);
    }
    this.#bytes = 0;
  }
}

function noMemory(cause: unknown): IsmError {
  return new IsmError('ERR_ISTHMUS_NO_MEMORY', 'system', `no memory for a DMB: ${errorCode(cause) ?? cause}`, {
    cause,
  });
}
